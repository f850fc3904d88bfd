"""Layout of a bundle, the folder that holds a trained model, and its manifest.

- `reviewguard.json`: the manifest, written last: description of the model, and size and SHA-256 of every other file
- `config.json`: Hugging Face configuration: id2label, label2id, problem_type
- `tokenizer.json`, `tokenizer_config.json`
- `head.safetensors`: the head, for all backends
- `ngrams.safetensors`: scores of hashed n-grams and of the type-token ratio, for models that combine them with the encoder
- `adapter/`: low-rank adapters, in PEFT format
- `encoder/`: encoder weights, if they cannot be fetched again: fine-tuned, merged, or from a local folder
- `onnx/model.onnx`: an export: one graph from token ids to logits; it replaces the four preceding entries
- `onnx/model.onnx_data`: weights of the graph, if they exceed the limit of 2 GiB for one file
- `onnx/model_quantized.onnx`: the graph in int8, if requested
- `references.safetensors`: embeddings of negative validation texts, used to adapt an export
- `adaptation.safetensors`: correction that adaptation adds to the log-odds, if the model was adapted
- `export_report.json`: comparison of the graphs with the torch model
- `vocabulary.safetensors`: ids of the vocabulary pieces that a pruned encoder keeps of the published ones
- `tfidf.json`, `tfidf.safetensors`: n-grams and coefficients of a model of the backend `tfidf`
- `baseline.json`, `baseline.safetensors`: the same of the baseline that was fitted on the same training rows
- `trained_on.safetensors`: hashes of the training texts, by which `evaluate` recognises rows that the model has seen
- `validation.safetensors`: logits and class indices of the validation rows, on which decisions can be set
- `split.csv`: the split of each text, by SHA-256
- `README.md`: the model card

No file is a pickle, and no file is executed.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final

import msgspec

from reviewguard.bundle import format_1
from reviewguard.bundle.decision import Decision
from reviewguard.bundle.windows import Windows
from reviewguard.config import Normalization
from reviewguard.data.labels import LabelType, restored
from reviewguard.errors import BundleError, FormatVersionError

MANIFEST: Final = "reviewguard.json"
VALIDATION: Final = "validation.safetensors"
#: Files that only torch models have, and that only models with adapters have; exports and merged models cannot restore them.
HEAD: Final = "head.safetensors"
ADAPTER: Final = "adapter/"
FORMAT_VERSION: Final = 2
_MAX_MANIFEST_BYTES: Final = 16 * 2**20


class FileEntry(msgspec.Struct, frozen=True):
    """Size in bytes and SHA-256 of a file in the bundle."""

    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Description of a trained model, without its weights.

    Attributes:
        format_version: Version of the bundle format.
        reviewguard_version: Version of reviewguard that wrote the bundle.
        classes: Labels in the order of the logits, as strings.
        label_type: Original type of the labels, to which predictions in Python are converted.
        positive: Positive class of binary metrics; None with three or more classes.
        normalization: Name of the text normalisation (`reviewguard.data.normalize`).
        max_length: Maximum number of tokens of a text.
        head: Kind of head (`reviewguard.models.heads`).
        recipe: Settings of the training run, including the hash of the encoder.
        training: Training report (`reviewguard.training.report.TrainingReport`) as plain data; None after `fit`.
        decision: How logits become decisions: temperature, operating point, abstention.
        windows: How texts longer than `max_length` tokens are read; None: they are truncated.
        merged: Effect of merging the adapters (`reviewguard.export.merge.MergeReport`) as plain data; None: nothing was merged.
        max_fertility: Pieces per word (`reviewguard.data.tokens.Encoded`) above which a text is out-of-distribution; None: no
            limit.
        min_tokens: Number of tokens, special tokens included, below which a text is out-of-distribution.
        data_sha256: SHA-256 of the training rows, independent of their order: the hash of the sorted lines "SHA-256 of the text,
            tab, label".
        files: All other files of the folder.
    """

    format_version: int
    reviewguard_version: str
    classes: Annotated[list[str], msgspec.Meta(min_length=2)]
    positive: str | None
    normalization: Normalization
    max_length: Annotated[int, msgspec.Meta(ge=1)]
    head: str
    recipe: dict[str, Any]
    training: dict[str, Any] | None
    data_sha256: str
    label_type: LabelType = "str"
    max_fertility: float | None = None
    min_tokens: int = 0
    decision: Decision = Decision()
    windows: Windows | None = None
    merged: dict[str, Any] | None = None
    files: dict[str, FileEntry] = {}

    @property
    def text_column(self) -> str:
        """The text column that was named in training; empty: it was detected, and is detected in new data as well."""
        return str(self.recipe.get("data", {}).get("text", ""))


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a folder; the other files need not exist.

    Raises:
        BundleError: If the manifest is missing or malformed.
        FormatVersionError: If the format is newer than this version of reviewguard supports.
    """
    try:
        if (folder / MANIFEST).stat().st_size > _MAX_MANIFEST_BYTES:
            raise BundleError(f"{folder / MANIFEST} is larger than {_MAX_MANIFEST_BYTES} bytes, too large for a manifest")
        raw = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise BundleError(f"{folder} does not hold a reviewguard model: cannot read {MANIFEST} ({error.strerror})") from error
    try:
        content = msgspec.json.decode(raw, type=dict[str, Any])
        version = content.get("format_version")
        if version not in (1, FORMAT_VERSION):
            raise FormatVersionError(
                f"{folder} has format {version!r}; this version of reviewguard reads formats 1 to {FORMAT_VERSION}. "
                "If a newer release wrote it, run: pip install --upgrade reviewguard"
            )
        manifest = msgspec.convert(format_1.upgraded(content) if version == 1 else content, Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{folder / MANIFEST} is malformed: {error}") from error
    if len(set(manifest.classes)) < len(manifest.classes) or manifest.positive not in (None, *manifest.classes):
        raise BundleError(f"{folder / MANIFEST} is malformed: classes {manifest.classes}, positive {manifest.positive!r}")
    try:
        restored(manifest.classes, manifest.label_type)
    except ValueError as error:
        raise BundleError(f"{folder / MANIFEST} is malformed: a class is not of type {manifest.label_type}: {error}") from error
    if not manifest.decision.fits(len(manifest.classes), manifest.positive):
        raise BundleError(f"{folder / MANIFEST} is malformed: its decision settings do not fit {len(manifest.classes)} classes")
    if (windows := manifest.windows) is not None and (
        2 * windows.overlap > manifest.max_length or (windows.rule == "max" and manifest.positive is None)
    ):
        raise BundleError(f"{folder / MANIFEST} is malformed: its windows do not fit {manifest.max_length} tokens or its classes")
    for name in manifest.files:
        _check_name(name, folder)
    return manifest


def _check_name(name: str, folder: Path) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or set(name) & set("\\:\0") or name == MANIFEST:
        raise BundleError(f"{folder / MANIFEST} lists {name!r}, which is not a plain path inside the folder")
