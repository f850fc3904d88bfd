"""Recipes: frozen, strictly decoded settings, and the presets that ship as TOML.

A recipe is what a preset file holds, with the user's overrides applied. Each backend extends `Recipe` with its own
fields (see `reviewguard.training.backends`), so `C` of a logistic regression is an option of recipes that use it and an
unknown key everywhere else.
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
        text: Column of the texts; empty: detected by name.
        label: Column of the labels; empty: detected by name.
        delimiter: Between the fields of CSV and TSV files, one character; empty: a tab in .tsv, a comma in .csv.
        quoting: What double quotes mean in CSV and TSV files. "quoted": a field may stand in them, with separators and line
            breaks inside. "none": they are plain characters. "auto": in CSV "quoted", with an error where a quoted field seems to
            have swallowed rows; in TSV "none", unless the file can be read with quotes only.
        header: Whether the first row of CSV and TSV files names the columns; without it they are "0", "1" and so on.
        split: Column that assigns rows to train, validation and test; empty: never look for one. Used if present.
        group: Column whose equal values stay on one side of a split (product, author); empty: none.
        subclass: Column that tells kinds within a class apart, such as the generators of fakes; empty: none. Each kind is learned
            as a class of its own, and a class's probability is the sum of theirs. Rows without a value are a kind too.
        positive: Class that binary metrics are about; empty: the one named like a fake, else the last.
        normalization: Named text normalisation, applied in training and at prediction alike.
        augment: Share of the training texts that are changed, each in one way of `augmentations`, before training; 0: none. It
            makes a model robust against such changes and costs some accuracy on clean texts.
        augmentations: The ways: all in lower "case" or some letters in the other one, no "punctuation", "misspelling" of an
            eighth of the words, half of the "articles" left out, "casual" style, and a "snippet" of a few sentences or words in
            place of the whole text. One that is named twice is drawn twice as often.
        near_duplicates: Jaccard similarity of word trigrams from which two training texts count as one; 0 keeps all.
        min_tokens: Shortest training text kept, in tokens of the encoder, special tokens not counted.
        max_tokens: Longest training text kept, in the same unit. The study kept 10 to 512.
        validation: Share for validation where the library splits: of the independent groups, which are single rows but for
            near-duplicates and values of `group`.
        test: Share for test where the library splits, of the same.
        split_file: `split.csv` of an earlier run, to be reproduced whatever a column of splits says; empty: split anew.
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
    """Which encoder turns a text into a vector, and how.

    Attributes:
        repo: Hub id, or a local folder in Hugging Face layout.
        revision: Commit of the Hub repository; required for a Hub id.
        weights_sha256: Expected sha256 of the weight file(s); empty: recorded, not compared.
        dense: Folder of a sentence-transformers Dense layer applied after pooling; empty: none.
        normalize: Scale vectors to unit length.
        pooling: "mean" over the real tokens of the last layer (of an encoder-decoder: of its encoder), or the "last" real token,
            as decoders need (of an encoder-decoder: the decoder's state at the end of the text, as T5ForSequenceClassification).
        max_length: Tokens read of a text, special tokens included; the rest is cut off and flagged.
    """

    repo: str
    revision: str = ""
    weights_sha256: str = ""
    dense: str = ""
    normalize: bool = False
    pooling: Literal["mean", "last"] = "mean"
    max_length: Annotated[int, msgspec.Meta(ge=8)] = 512


class LoraConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685).

    Attributes:
        r: Rank.
        alpha: Scale of the update: alpha / r, or alpha / sqrt(r) where `rank_stabilized`.
        dropout: On the adapter's input.
        target_modules: Names of linear layers to adapt, each of which must be there in every layer; "all-linear": all of them.
        rank_stabilized: Scale by alpha / sqrt(r) (Kalajdzievski 2023, arXiv:2312.03732), which keeps large ranks learning.
    """

    r: Positive = 16
    alpha: Annotated[float, msgspec.Meta(gt=0)] = 32
    dropout: Fraction = 0.05
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    rank_stabilized: bool = False


class LoopConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The training loop of fine-tuning. The defaults are the study's.

    Attributes:
        epochs: Passes over the rows.
        batch_size: Rows an optimizer step sees, over all devices and accumulated micro-batches.
        micro_batch_size: Rows a device computes at once, at most. It sets memory and speed; `batch_size` must be a multiple of it
            times the number of devices.
        learning_rate: Highest rate of AdamW.
        schedule: How the rate falls from there to the end of the last epoch.
        warmup: Share of all steps over which the rate rises from 0.
        weight_decay: Of AdamW; not on biases and norms.
        max_grad_norm: Gradients are scaled down to this norm; 0 leaves them.
        optimizer: "adamw", or "paged_adamw_8bit" (bitsandbytes; on a CPU, which it is not made for, "adamw" takes its place).
        precision: "bf16" autocast, "fp32", or "auto": bf16 where the hardware computes in it. No fp16: T5 overflows in it.
        gradient_checkpointing: Compute each layer again in the backward pass instead of keeping it: a third slower, far smaller.
        dropout: Before the head.
        class_weight: "balanced" weighs rows inversely to their class's frequency; "none" weighs all alike.
        label_smoothing: Share of each label spread over all classes.
        patience: Epochs without a better validation F1 after which training stops; 0: never.
        save_steps: Optimizer steps between checkpoints, besides the one that ends each epoch; 0: that one only.
        checkpoints: What stays of them once training has succeeded: "none", the "last" one (with the best, if that is another),
            from which training to more epochs continues, or "all" that were written.
        report_to: Loggers that get the figures of `metrics.jsonl` too, through transformers; each is a package to install.
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
    """What every preset holds; a backend's `Config` adds its own fields.

    Attributes:
        backend: Name of a module of `reviewguard.training.backends`.
        encoder: Which encoder, and how.
        data: How rows are read, cleaned and split.
        description: One line for `reviewguard presets`.
        seed: Of everything that draws random numbers.
    """

    backend: str
    encoder: EncoderConfig
    data: DataConfig = DataConfig()
    description: str = ""
    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] = 42


R = TypeVar("R", bound=msgspec.Struct)
_BETWEEN: Final = re.compile(r",(?![^\[]*\])")


def preset_names() -> list[str]:
    """Names of the presets that ship with the package, sorted."""
    folder = resources.files("reviewguard.presets")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_preset(name: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a preset as plain data.

    Args:
        name: One of `preset_names()`, or the path of a recipe of your own, ending in .toml.

    Raises:
        ConfigError: If there is no such preset, with the nearest name, or the file is no TOML.
    """
    if not isinstance(name, str | os.PathLike):
        raise ConfigError(f"preset is {type(name).__name__} {name!r}; it is a name, the path of a .toml file, or a mapping")
    source: Traversable = Path(name)
    if not str(name).endswith(".toml"):
        if name not in preset_names():
            hint = nearest(str(name), preset_names())
            raise ConfigError(f"no preset is called {str(name)!r}; {hint}; or give the path of a .toml file")
        source = resources.files("reviewguard.presets").joinpath(f"{name}.toml")
    try:
        return tomllib.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the recipe {name}: {error}") from error


def split_list(text: str) -> list[str]:
    """Items between commas, those inside of brackets left alone."""
    return [item.strip() for item in _BETWEEN.split(text) if item.strip()]


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """Read command-line overrides such as `C=10` and `hidden=[64, 32]`.

    An array or a quoted string is read as TOML; anything else stays as it is, and `decode` turns it into its option's type.

    Raises:
        ConfigError: If an item has no `=`.
    """
    overrides: dict[str, Any] = {}
    for item in assignments:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"an override is KEY=VALUE, such as encoder.max_length=128; got {item!r}")
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
    """Decode plain data into a settings type, refusing unknown keys and wrong types; "10" will do for a number.

    Raises:
        ConfigError: With the nearest allowed name, or the expected type, and the place.
    """
    _refuse_unknown(values, type_, where)
    try:
        return msgspec.convert(values, type_, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where or 'the recipe'} has a value that is not allowed: {error}") from error


def _refuse_unknown(values: Mapping[str, Any], type_: type[msgspec.Struct], where: str) -> None:
    fields = {field.name: field for field in msgspec.structs.fields(type_)}
    for key, value in values.items():
        place = f"{where + '.' if where else ''}{key}"
        if key not in fields:
            raise ConfigError(f"{place} is not an option; {nearest(key, fields)}")
        if choices := _choices(fields[key].type):
            for one in value if isinstance(value, list | tuple) else [value]:
                if isinstance(one, str) and one not in choices:
                    raise ConfigError(f"{place} has a value that is not allowed: {one!r}; {nearest(one, choices)}")
        inner = next(
            (t for t in (fields[key].type, *get_args(fields[key].type)) if isinstance(t, type) and issubclass(t, msgspec.Struct)),
            None,
        )
        if inner is not None and isinstance(value, Mapping):
            _refuse_unknown(value, inner, place)


def _choices(kind: Any) -> tuple[str, ...]:
    """The names that a setting, or each item of it, must be one of; none where it may be anything else."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Annotated, tuple):
        return _choices(inner[0])
    return inner if origin is Literal else ()
