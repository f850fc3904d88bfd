"""The part of the public face that writes models: folders, merged weights, exports, the Hub."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Self

from reviewguard import card, files, hub, loading
from reviewguard.bundle import ADAPTER, MANIFEST, Bundle, check_target, read_manifest, write_bundle
from reviewguard.data.reviews import Data
from reviewguard.decider import Decider
from reviewguard.errors import BundleError, ConfigError, ExportError, HubError, requires
from reviewguard.runtime.choose import GRAPHS

if TYPE_CHECKING:
    from reviewguard.export.report import ExportReport, Limits

#: Where a tensor lies in memory can move the last bit of a sum; anything that saving lost moves a logit far more.
_SAME_LOGITS: Final = 1e-5


class Saver(Decider):
    """The part of `reviewguard.Classifier` that writes a trained model somewhere, and sees that it is the same there."""

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the model to a folder; a model that is there already is replaced, atomically.

        What was written is loaded again first, and must give the same logits but for rounding (1e-5). Under torchrun only the
        first process writes.

        Raises:
            BundleError: If the folder holds something else, or of a merged model the adapters, which would be lost; if it cannot
                be written, or would not give back the model.
            NotTrainedError: Before training.
        """
        fitted = self._trained()
        if fitted.manifest.merged is not None:
            check_target(Path(folder), never=ADAPTER)
        write_bundle(Path(folder), fitted.manifest, fitted.files, check=self._require_same)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        revision: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        message: str = "Upload a model made with reviewguard",
        license: str | None = None,
        datasets: Sequence[str] = (),
    ) -> str:
        """Upload the model to the Hugging Face Hub, as one commit; `from_pretrained(repo_id)` gives it back.

        A saved model, a merged one and an export are each a repository's whole content, or a branch's. Of a model that is there
        already, files that this one lacks are deleted; files that belong to no model stay. HF_ENDPOINT is honoured.

        Args:
            repo_id: `owner/name`; the repository is made if it is not there.
            revision: Branch, made if it is not there; None: main.
            private: Of a repository that is made: whether only its owner sees it; None: as its owner has set.
            token: With the right to write; None: HF_TOKEN, or that of `hf auth login`.
            message: Of the commit.
            license: For the model card: an identifier such as "apache-2.0".
            datasets: For the model card: Hub ids of the training data.

        Returns:
            The commit, to be pinned with `from_pretrained(repo_id, revision=...)`. Under torchrun only the first process uploads,
            and the others get an empty string.

        Raises:
            ConfigError: If `repo_id` has another form.
            HubError: If anything fails on the way; what was there is as it was.
            NotTrainedError: Before training.
        """
        fitted = self._trained()
        if not hub.is_repo_id(repo_id):
            raise ConfigError(f"{repo_id!r} is no Hub id; it has the form owner/name")
        if not files.is_main_process():
            return ""
        about = card.published(fitted.read("README.md").decode(), repo_id, license, datasets).encode()
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            write_bundle(folder, fitted.manifest, {**fitted.files, "README.md": about}, check=self._require_same)
            stale = _listed(repo_id, revision, token) - {"README.md", *fitted.files}
            return hub.push(folder, repo_id, revision=revision, private=private, token=token, message=message, delete=stale)

    def _require_same(self, written: Bundle) -> None:
        if self._is_export():
            return  # a copy of verified files
        difference = self._trained().difference(loading.load(written))
        if not difference <= _SAME_LOGITS:
            raise BundleError(
                f"the model that was written to {written.folder} differs from this one by {difference:.3g} in a logit; nothing "
                "was saved. Please report this"
            )

    def merge(self, texts: Iterable[str], base: Literal["trained", "original"] = "trained") -> Self:
        """Fold the adapters of a fine-tuned model into its weights, in float32; this classifier stays as it is.

        Args:
            texts: To judge the change on, such as your validation texts.
            base: What to merge into: the weights that the adapters were trained on (of QLoRA the 4-bit ones, dequantised), or the
                published full-precision ones. It is never merged into four bits.

        Returns:
            A classifier without adapters, whose `manifest.merged` says how far either base moves the logits, and how many labels.

        Raises:
            ExportError: If there are no adapters or no texts.
            NotTrainedError: Before training.
        """
        fitted = self._trained()
        with requires("train"):
            from reviewguard.export import merge
        merged = copy.copy(self)
        merged._fitted, _ = merge.merge(fitted, self._texts(texts), base)
        return merged

    def export(
        self,
        folder: str | os.PathLike[str],
        validation: Data | None = None,
        *,
        split: str = "",
        int8: bool = False,
        limits: Limits | None = None,
    ) -> ExportReport:
        """Write the model as one ONNX graph from token ids to logits, for prediction with the base install alone.

        Each graph is first compared with torch: on padded batches of several shapes, of texts alone and in company, and on the
        validation texts. If it is not true to the model, nothing is written. Adapters are merged into the weights that they were
        trained on (see `merge`).

        Args:
            folder: Where to write; an older model there is replaced.
            validation: Labelled texts to judge by, as for `train`. No row is dropped.
            split: Of them, only rows with this value in the column of splits; empty: all rows.
            int8: Write a second graph, a quarter of the size: weights in eight bits, activations quantised token by token, so
                that a text's probability does not depend on its batch. It needs `validation`, of at least 1,000 texts.
            limits: What an export may change at most; None: `Limits()`.

        Returns:
            How the graphs compare; also written as `export_report.json`, and as a table in the model card.

        Raises:
            ExportError: If this model is an export already, or a graph is not true to it; the message names texts that changed.
            BundleError: If the folder holds something else, or cannot be written.
            DataError: If a validation row lacks text or label, or a label was not in training.
        """
        fitted = self._trained()
        if self._is_export():
            raise ExportError("this model is an ONNX export already; use save() to copy it")
        with requires("export"):
            from reviewguard.export import write
            from reviewguard.export.report import Limits
        reviews = None if validation is None else self._read(validation, split)
        return write.export(fitted, Path(folder), reviews, int8=int8, limits=limits or Limits())

    def _is_export(self) -> bool:
        return any(graph in self._trained().files for graph in GRAPHS.values())


def _listed(repo: str, revision: str | None, token: str | None) -> set[str]:
    """The files of the model that is there already; other files are somebody's, and stay."""
    try:
        folder = hub.fetch(repo, revision, HubError, only=[MANIFEST], token=token)
        return set(read_manifest(folder).files)
    except (HubError, BundleError):
        return set()  # no such repository yet, or no model in it; if it is something else, the upload will say so
