"""The folder that a trained model is: layout, manifest, hashes, and writes that a crash cannot tear.

- `reviewguard.json`: the manifest, written last: what the model is and the sha256 of every other file
- `config.json`: Hugging Face style: id2label, label2id, problem_type
- `tokenizer.json`, `tokenizer_config.json`
- `head.safetensors`: the head, for every backend
- `ngrams.safetensors`: scores of hashed n-grams and of their variety, where a bag of them stands beside the encoder
- `adapter/`: low-rank adapters, in PEFT's format
- `encoder/`: encoder weights, only where they cannot be fetched again: fine-tuned, merged, or from a local folder
- `onnx/model.onnx`: an export: one graph from token ids to logits; then the four above it are not there
- `onnx/model.onnx_data`: its weights, where they exceed the two gibibytes that one file may have
- `onnx/model_quantized.onnx`: the same graph in int8, if it was asked for
- `references.safetensors`: embeddings of validation texts of the negative class, by which an export is adapted
- `adaptation.safetensors`: what adapting adds to the log-odds, if the model was adapted
- `export_report.json`: how the graphs compare with torch
- `baseline.json`, `baseline.safetensors`: the bag of words that every result is shown beside
- `trained_on.safetensors`: hashes of the training texts, so that `evaluate` can tell rows that the model has seen
- `validation.safetensors`: logits and class indices of the validation rows, which decisions can be set on
- `split.csv`: which text was in train, validation and test, by sha256
- `README.md`: the model card

No file is a pickle, and none is executed.
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
#: What only models of torch have, and what only those with adapters have: no export and no merged model gives it back.
HEAD: Final = "head.safetensors"
ADAPTER: Final = "adapter/"
FORMAT_VERSION: Final = 2
_MAX_MANIFEST_BYTES: Final = 16 * 2**20


class FileEntry(msgspec.Struct, frozen=True):
    """Size in bytes and sha256 of a file of the bundle."""

    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a trained model is, apart from its weights.

    Attributes:
        format_version: Of this layout.
        reviewguard_version: That wrote the bundle.
        classes: Labels in the order of the logits, as strings.
        label_type: What the labels were before they became strings, and are again where Python asks for them.
        positive: The class that binary metrics are about; None with three classes or more.
        normalization: Name of the text normalisation (`reviewguard.data.normalize`).
        max_length: Tokens read of a text.
        head: Kind of head (`reviewguard.models.heads`).
        recipe: The settings it was trained with, the encoder's hash filled in.
        training: Training report (`reviewguard.evaluation.report.TrainingReport`) as plain data; None after `fit`.
        decision: How logits are read: temperature, operating point, abstention.
        windows: How a text of more than `max_length` tokens is read; None: its beginning only.
        merged: What merging the adapters changed (`reviewguard.export.merge.MergeReport`) as plain data; None where none were.
        max_fertility: Pieces a word (`reviewguard.data.tokens.Encoded`) above which a text is unfamiliar; None: none is.
        min_tokens: Tokens, special ones included, below which it is out_of_distribution.
        data_sha256: Of the training rows, whatever their order: sha256 over the sorted lines "sha256 of the text, tab, label".
        files: Every other file of the folder.
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
        """The column of texts that the model was trained on by name; empty: it was detected, and is detected again."""
        return str(self.recipe.get("data", {}).get("text", ""))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder whose other files may not be there yet.

    Raises:
        BundleError: If there is none, or it is malformed.
        FormatVersionError: If the format is newer than this reviewguard.
    """
    try:
        if (folder / MANIFEST).stat().st_size > _MAX_MANIFEST_BYTES:
            raise BundleError(f"{folder / MANIFEST} is larger than {_MAX_MANIFEST_BYTES} bytes; that is no manifest")
        raw = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise BundleError(f"{folder} holds no model of reviewguard: cannot read {MANIFEST} ({error.strerror})") from error
    try:
        content = msgspec.json.decode(raw, type=dict[str, Any])
        version = content.get("format_version")
        if version not in (1, FORMAT_VERSION):
            raise FormatVersionError(
                f"{folder} is in format {version!r}; this reviewguard reads formats 1 to {FORMAT_VERSION}. "
                "If it was written by a newer release, run: pip install --upgrade reviewguard"
            )
        manifest = msgspec.convert(format_1.upgraded(content) if version == 1 else content, Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{folder / MANIFEST} is malformed: {error}") from error
    if len(set(manifest.classes)) < len(manifest.classes) or manifest.positive not in (None, *manifest.classes):
        raise BundleError(f"{folder / MANIFEST} is malformed: classes {manifest.classes}, positive {manifest.positive!r}")
    try:
        restored(manifest.classes, manifest.label_type)
    except ValueError as error:
        raise BundleError(f"{folder / MANIFEST} is malformed: classes that are no {manifest.label_type}: {error}") from error
    if not manifest.decision.fits(len(manifest.classes), manifest.positive):
        raise BundleError(f"{folder / MANIFEST} is malformed: a decision that does not fit its {len(manifest.classes)} classes")
    if (windows := manifest.windows) is not None and (
        2 * windows.overlap > manifest.max_length or (windows.rule == "max" and manifest.positive is None)
    ):
        raise BundleError(
            f"{folder / MANIFEST} is malformed: windows that do not fit {manifest.max_length} tokens and its classes"
        )
    for name in manifest.files:
        _check_name(name, folder)
    return manifest


def _check_name(name: str, folder: Path) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or set(name) & set("\\:\0") or name == MANIFEST:
        raise BundleError(f"{folder / MANIFEST} lists {name!r}, which is not a plain path inside the folder")
