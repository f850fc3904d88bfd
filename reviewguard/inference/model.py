"""A trained model in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from reviewguard.bundle.decision import REVIEW
from reviewguard.bundle.manifest import Manifest
from reviewguard.bundle.windows import Windows
from reviewguard.data.normalize import NORMALIZERS
from reviewguard.data.tokens import Encoded, Tokenizer, word_counts
from reviewguard.errors import DataError, IntegrityError
from reviewguard.inference.scoring import Floats, Prediction, Scorer, require_finite, score

#: Number of texts per chunk when streaming.
CHUNK_TEXTS: Final = 1024
#: Texts for comparing two models: short, empty, and longer than any model's maximum length.
_PROBES: Final = ("A kettle that boils.", "", "The lid rattles, but for the price I cannot complain. " * 200)

_EMPTY: Final = Prediction(None, None, None, truncated=False, out_of_distribution=False, error="the text is empty")


@dataclass(frozen=True)
class TrainedModel:
    """A trained model: its manifest, its tokenizer, the scorer that computes logits, and the files of its bundle.

    `files` maps file names in the bundle to contents, or to paths of files to copy.
    """

    manifest: Manifest
    tokenizer: Tokenizer
    scorer: Scorer
    files: Mapping[str, bytes | Path]

    def read(self, name: str) -> bytes:
        """Read one of `files`.

        Raises:
            IntegrityError: If the file on disk has changed since this model was loaded.
        """
        content = self.files[name]
        if isinstance(content, bytes):
            return content
        data = content.read_bytes()
        if hashlib.sha256(data).hexdigest() != self.manifest.files[name].sha256:
            raise IntegrityError(f"{content} changed on disk since this model was loaded; load it again")
        return data

    def normalized(self, texts: Sequence[str]) -> list[str]:
        """Apply the model's normalisation to texts."""
        normalize = NORMALIZERS[self.manifest.normalization]
        return [normalize(text) for text in texts]

    def logits(self, texts: Sequence[str], progress: str = "") -> tuple[Floats, list[Encoded]]:
        """Compute logits, float32 (n, classes), and return them with the tokens.

        Raises:
            PredictionError: If a logit is not finite.
        """
        if not texts:
            return np.empty((0, len(self.manifest.classes)), dtype=np.float32), []
        windows = self.manifest.windows
        overlap, max_windows = (windows.overlap, windows.max_windows) if windows else (0, 1)
        encoded = self.tokenizer.encode(self.normalized(texts), overlap, max_windows)
        # Without windows, each text is a single piece.
        pieces = [replace(item, ids=ids, more=()) for item in encoded for ids in (item.ids, *item.more)] if windows else encoded
        logits = score(self.scorer, self.tokenizer, pieces, progress)
        require_finite(
            logits, [1 + len(item.more) for item in encoded]
        )  # checked first, because combining windows could hide an infinity
        if windows is not None:
            logits = windows.combined(logits, [[len(item.ids), *map(len, item.more)] for item in encoded], self.positive)
        return logits, encoded

    def with_windows(self, windows: Windows | None) -> TrainedModel:
        """A copy of this model that reads long texts in these windows."""
        return replace(self, manifest=msgspec.structs.replace(self.manifest, windows=windows))

    def difference(self, other: TrainedModel) -> float:
        """The largest absolute difference between the logits of two models, on a few texts."""
        return float(np.abs(self.logits(_PROBES)[0] - other.logits(_PROBES)[0]).max())

    @property
    def positive(self) -> int | None:
        """Index of the positive class. None: the model has more than two classes."""
        positive = self.manifest.positive
        return None if positive is None else self.manifest.classes.index(positive)

    def probabilities(self, texts: Sequence[str]) -> Floats:
        """Calibrated probabilities, float32 (n, classes).

        Raises:
            DataError: If a text is empty.
            PredictionError: If a logit is not finite.
        """
        return self.manifest.decision.probabilities(self._of_written(texts)[0])

    def labels(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Index of the predicted class of each text, int64 (n,).

        Raises:
            DataError: If a text is empty.
            PredictionError: If a logit is not finite.
        """
        logits, encoded = self._of_written(texts)
        predicted: NDArray[np.int64] = self.manifest.decision.scores(logits, self.positive, word_counts(encoded)).argmax(axis=1)
        return predicted

    def _of_written(self, texts: Sequence[str]) -> tuple[Floats, list[Encoded]]:
        """Compute `logits`, and raise DataError if a text is empty."""
        logits, encoded = self.logits(texts)
        if empty := [row for row, item in enumerate(encoded) if not item.words]:
            raise DataError(
                f"{len(empty)} texts are empty, first texts[{empty[0]}]; remove them, or use stream(), which reports an error "
                "instead of a label"
            )
        return logits, encoded

    def stream(self, texts: Iterable[str]) -> Iterator[Prediction]:
        """Predict any number of texts lazily, in order and in constant memory."""
        remaining = iter(texts)
        while chunk := list(islice(remaining, CHUNK_TEXTS)):
            yield from self.predictions(chunk)

    def predictions(self, texts: Sequence[str]) -> list[Prediction]:
        """Predict each text; an empty text gets an error instead of a label."""
        if not texts:
            return []
        logits, encoded = self.logits(texts)
        classes, decision, words = self.manifest.classes, self.manifest.decision, word_counts(encoded)
        predicted = decision.scores(logits, self.positive, words).argmax(axis=1)
        decided = decision.decisions(logits, classes, self.positive, words)
        max_fertility, min_tokens = self.manifest.max_fertility, self.manifest.min_tokens
        outliers = [
            len(item.ids) < min_tokens or (max_fertility is not None and item.fertility > max_fertility) for item in encoded
        ]
        return [
            Prediction(
                classes[best],
                float(row[best]),
                REVIEW if is_outlier else choice,
                item.truncated,
                is_outlier,
                dict(zip(classes, row.tolist(), strict=True)),
            )
            if item.words
            else _EMPTY
            for row, best, choice, item, is_outlier in zip(
                decision.probabilities(logits), predicted, decided, encoded, outliers, strict=True
            )
        ]
