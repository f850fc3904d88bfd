"""Recipes: frozen, strictly decoded settings; and the presets, which are part of the package as TOML files.

A recipe is the content of a preset file with the user's overrides applied. Each backend extends `Recipe` with its own fields
(see `reviewguard.training.backends`). `C` of logistic regression, for example, is an option of recipes that use it and an
unknown key in all others.
"""

from __future__ import annotations

import contextlib
import os
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin

import msgspec

from reviewguard.errors import ConfigError, nearest

Fraction = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Augmentation = Literal["case", "punctuation", "misspelling", "articles", "casual", "snippet"]
Normalization = Literal["typography", "unicode-english", "study", "none"]
Quoting = Literal["auto", "quoted", "none"]


class DataConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How rows are read, cleaned and split.

    Attributes:
        text: Text column; empty: detected by name.
        label: Label column; empty: detected by name.
        delimiter: Field delimiter of CSV and TSV files, one character; empty: a tab in .tsv, a comma in .csv.
        quoting: Meaning of double quotes in CSV and TSV files. "quoted": they may enclose fields, which can then contain
            delimiters and line breaks. "none": they are plain characters. "auto": "quoted" in CSV, with an error if a quoted
            field seems to have absorbed other rows; "none" in TSV, unless the file can only be read with quotes.
        header: Whether the first row of CSV and TSV files holds the column names; without a header they are "0", "1" and so on.
        split: Column that assigns rows to train, validation and test, used if present; empty: not looked for.
        group: Column whose equal values stay in the same split (product, author); empty: none.
        subclass: Column of kinds within a class, such as the generators of fakes; empty: none. Each subclass is learned as a
            separate class, and the probability of a class is the sum over its subclasses. Rows without a value form a subclass.
        positive: Positive class of binary metrics; empty: a class with a name like "fake", or else the last class.
        normalization: Text normalisation, applied identically in training and prediction.
        augment: Share of the training texts that are changed before training, each by one of `augmentations`; 0: none.
            Augmentation makes a model robust to such changes and costs some accuracy on clean texts.
        augmentations: Kinds of changes: "case" (the whole text in lower case, or the case of some letters swapped), "punctuation"
            (removed), "misspelling" (of an eighth of the words), "articles" (half of them omitted), "casual" style, and "snippet"
            (a few sentences or words instead of the whole text). A kind that is listed twice is drawn twice as often.
        near_duplicates: Jaccard similarity of word trigrams above which two training texts are near-duplicates; 0 keeps all.
        min_tokens: Minimum length of training texts in tokens of the encoder, without special tokens.
        max_tokens: Maximum length of training texts in tokens of the encoder, without special tokens. The study used 10 to 512.
        validation: Validation share if the library splits the data. It is a share of the independent groups: near-duplicates and
            rows with equal values of `group` form one group, every other row its own.
        test: Test share if the library splits the data, measured like `validation`.
        split_file: `split.csv` of an earlier run to reproduce, which takes precedence over a split column; empty: a new split.
    """

    text: str = ""
    label: str = ""
    delimiter: str = ""
    quoting: Quoting = "auto"
    header: bool = True
    split: str = "split"
    group: str = ""
    subclass: str = ""
    positive: str = ""
    normalization: Normalization = "typography"
    augment: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    augmentations: Annotated[tuple[Augmentation, ...], msgspec.Meta(min_length=1)] = get_args(Augmentation)
    near_duplicates: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.8
    min_tokens: Annotated[int, msgspec.Meta(ge=0)] = 10
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] = 512
    validation: Fraction = 0.1
    test: Fraction = 0.2
    split_file: str = ""


class EncoderConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The encoder that computes embeddings, and its settings.

    Attributes:
        repo: Hub id, a local folder in Hugging Face layout, or a GGUF file (or a folder with one), whose weights are dequantised.
        revision: Commit of the Hub repository; required for a Hub id.
        weights_sha256: Expected SHA-256 of the weight file(s), of a GGUF file that of the file; empty: recorded but not compared.
        dense: Folder of a sentence-transformers Dense layer applied after pooling; empty: none.
        normalize: Whether to scale embeddings to unit length.
        pooling: "mean" over the tokens of the last layer without padding (in an encoder-decoder: of its encoder), or the "last"
            token without padding, as decoders need (in an encoder-decoder: the decoder's state at the end of the text, as in
            T5ForSequenceClassification).
        prefix: Text put before each text, such as "query: ", as some encoders were trained; empty: none. Of a text that is
            read in windows, only the first has it.
        prune_vocabulary: Whether to keep only the pieces of the vocabulary that the training texts use, and single characters.
            Multilingual encoders become several times smaller; words that do not occur in training fall into more pieces.
        max_length: Maximum number of tokens of a text, special tokens included; longer texts are truncated, which is reported.
    """

    repo: str
    revision: str = ""
    weights_sha256: str = ""
    dense: str = ""
    normalize: bool = False
    pooling: Literal["mean", "last"] = "mean"
    prefix: str = ""
    prune_vocabulary: bool = False
    max_length: Annotated[int, msgspec.Meta(ge=8)] = 512


class LoraConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685).

    Attributes:
        r: Rank.
        alpha: Numerator of the update's scale: alpha / r, or alpha / sqrt(r) with `rank_stabilized`.
        dropout: Dropout rate of the adapter's input.
        target_modules: Names of the linear layers to adapt, each of which must exist in every layer; "all-linear": all of them.
        rank_stabilized: Whether to scale by alpha / sqrt(r) (Kalajdzievski 2023, arXiv:2312.03732), so that large ranks still
            learn.
    """

    r: Positive = 16
    alpha: Annotated[float, msgspec.Meta(gt=0)] = 32
    dropout: Fraction = 0.05
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    rank_stabilized: bool = False


class LoopConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the fine-tuning loop. The defaults are those of the study.

    Attributes:
        epochs: Number of passes over the training rows.
        batch_size: Number of rows per optimizer step, over all devices and accumulated micro-batches.
        micro_batch_size: Maximum number of rows that a device computes at once, which determines memory and speed. `batch_size`
            must be a multiple of `micro_batch_size` times the number of devices.
        learning_rate: Peak learning rate of AdamW.
        schedule: Decay of the learning rate from its peak to the end of the last epoch.
        warmup: Share of all steps over which the learning rate rises from 0.
        weight_decay: Weight decay of AdamW; not applied to biases and norms.
        max_grad_norm: Norm to which gradients are clipped; 0: no clipping.
        optimizer: "adamw", or "paged_adamw_8bit" (bitsandbytes; replaced by "adamw" on a CPU, where it is not supported).
        precision: "bf16" autocast, "fp32", or "auto": bf16 if the hardware supports it. T5 overflows in fp16, so there is none.
        gradient_checkpointing: Whether to recompute activations in the backward pass: a third slower, with far less memory.
        dropout: Dropout rate before the head.
        class_weight: "balanced" weights rows inversely to the frequency of their class; "none" weights all rows equally.
        label_smoothing: Share of each label that is spread over all classes.
        patience: Number of epochs without a better validation F1 after which training stops; 0: no early stopping.
        save_steps: Number of optimizer steps between checkpoints, in addition to the one after each epoch; 0: only that one.
        checkpoints: Checkpoints kept after successful training: "none", the "last" (and the best, if different), from which
            training can continue for more epochs, or "all".
        report_to: Loggers that also receive the metrics of `metrics.jsonl`, through transformers; each needs its package.
    """

    epochs: Positive = 3
    batch_size: Positive = 16
    micro_batch_size: Positive = 16
    learning_rate: Annotated[float, msgspec.Meta(gt=0)] = 2e-4
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Fraction = 0.1
    weight_decay: Annotated[float, msgspec.Meta(ge=0)] = 0.01
    max_grad_norm: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    optimizer: Literal["adamw", "paged_adamw_8bit"] = "adamw"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    gradient_checkpointing: bool = False
    dropout: Fraction = 0.1
    class_weight: Literal["balanced", "none"] = "balanced"
    label_smoothing: Fraction = 0.0
    patience: Annotated[int, msgspec.Meta(ge=0)] = 0
    save_steps: Annotated[int, msgspec.Meta(ge=0)] = 500
    checkpoints: Literal["none", "last", "all"] = "last"
    report_to: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings common to all presets; a backend's `Config` adds its own fields.

    Attributes:
        backend: Name of a module of `reviewguard.training.backends`.
        data: How rows are read, cleaned and split.
        description: One line for `reviewguard presets`.
        seed: Random seed of all steps.
    """

    backend: str
    data: DataConfig = DataConfig()
    description: str = ""
    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] = 42


class EncoderRecipe(Recipe, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings common to the backends that start from a published encoder.

    Attributes:
        encoder: The encoder and its settings.
    """

    encoder: EncoderConfig


R = TypeVar("R", bound=msgspec.Struct)
_BETWEEN: Final = re.compile(r",(?![^\[]*\])")


def preset_names() -> list[str]:
    """Sorted names of the presets in the package."""
    folder = resources.files("reviewguard.presets")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_preset(name: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a preset as plain data.

    Args:
        name: One of `preset_names()`, or the path of your own recipe, ending in .toml.

    Raises:
        ConfigError: If the preset does not exist (the message suggests the nearest name), or the file is not valid TOML.
    """
    if not isinstance(name, str | os.PathLike):
        raise ConfigError(f"preset is {type(name).__name__} {name!r}; it must be a name, the path of a .toml file, or a mapping")
    source: Traversable = Path(name)
    if not str(name).endswith(".toml"):
        if name not in preset_names():
            hint = nearest(str(name), preset_names())
            raise ConfigError(f"no preset is called {str(name)!r}; {hint}; or pass the path of a .toml file")
        source = resources.files("reviewguard.presets").joinpath(f"{name}.toml")
    try:
        return tomllib.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the recipe {name}: {error}") from error


def split_list(text: str) -> list[str]:
    """Split a text at commas that are not inside brackets."""
    return [item.strip() for item in _BETWEEN.split(text) if item.strip()]


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """Parse command-line overrides such as `C=10` and `hidden=[64, 32]`.

    Arrays and quoted strings are parsed as TOML. Other values remain strings, which `decode` converts to the type of the option.

    Raises:
        ConfigError: If an item has no `=`.
    """
    overrides: dict[str, Any] = {}
    for item in assignments:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"an override must be KEY=VALUE, such as encoder.max_length=128; got {item!r}")
        overrides[key.strip()] = value.strip()
        if value.strip().startswith(("[", "'", '"')):
            with contextlib.suppress(tomllib.TOMLDecodeError):
                overrides[key.strip()] = tomllib.loads(f"value = {value}")["value"]
    return overrides


def merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Apply overrides with dotted (`encoder.max_length`) or double-underscore (`encoder__max_length`) keys."""
    merged = {key: dict(value) if isinstance(value, Mapping) else value for key, value in base.items()}
    for key, value in overrides.items():
        *sections, leaf = key.replace("__", ".").split(".")
        target: dict[str, Any] = merged
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise ConfigError(f"{key!r} is not an option: {section!r} is a value, not a section")
        target[leaf] = value
    return merged


def decode(values: Mapping[str, Any], type_: type[R], where: str = "") -> R:
    """Decode plain data into a settings type; strings such as "10" are accepted as numbers.

    Raises:
        ConfigError: If a key is unknown or a value is not allowed; the message names the place, and the nearest allowed name or
            the expected type.
    """
    _refuse_unknown(values, type_, where)
    try:
        return msgspec.convert(values, type_, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where or 'the recipe'} has an invalid value: {error}") from error


def _refuse_unknown(values: Mapping[str, Any], type_: type[msgspec.Struct], where: str) -> None:
    fields = {field.name: field for field in msgspec.structs.fields(type_)}
    for key, value in values.items():
        place = f"{where + '.' if where else ''}{key}"
        if key not in fields:
            raise ConfigError(f"{place} is not an option; {nearest(key, fields)}")
        if choices := _choices(fields[key].type):
            for item in value if isinstance(value, list | tuple) else [value]:
                if isinstance(item, str) and item not in choices:
                    raise ConfigError(f"{place} has an invalid value: {item!r}; {nearest(item, choices)}")
        inner = next(
            (t for t in (fields[key].type, *get_args(fields[key].type)) if isinstance(t, type) and issubclass(t, msgspec.Struct)),
            None,
        )
        if inner is not None and isinstance(value, Mapping):
            _refuse_unknown(value, inner, place)


def _choices(kind: Any) -> tuple[str, ...]:
    """Allowed values of a setting or of each of its items; empty if they are not restricted."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Annotated, tuple):
        return _choices(inner[0])
    return inner if origin is Literal else ()
