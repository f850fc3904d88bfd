"""Reference texts of the negative class, stored in an export as embeddings: adaptation keeps their false positive rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from reviewguard.bundle.decision import log_odds
from reviewguard.bundle.folder import well_formed
from reviewguard.data.tokens import Batch, word_counts
from reviewguard.inference.engines.cpu import CpuScorer
from reviewguard.inference.model import TrainedModel
from reviewguard.inference.scoring import Floats, compute

FILE: Final = "references.safetensors"
#: Maximum size of the references in bytes, and bytes per reference in addition to its embedding.
_MOST_BYTES, _BYTES_BESIDE = 2**20, 12


class Embedded(NamedTuple):
    """Embeddings, log-odds and lengths of texts.

    Attributes:
        embeddings: Embeddings, float32 (n, width).
        odds: Uncorrected log-odds of the positive class, float64 (n,).
        words: Number of words of each text, int64 (n,).
    """

    embeddings: Floats
    odds: NDArray[np.float64]
    words: NDArray[np.int64]

    def and_then(self, others: Embedded) -> Embedded:
        """Concatenate with other texts."""
        return Embedded(
            np.concatenate([self.embeddings, others.embeddings]),
            np.concatenate([self.odds, others.odds]),
            np.concatenate([self.words, others.words]),
        )

    def rows(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> Embedded:
        """Select rows."""
        return Embedded(self.embeddings[chosen], self.odds[chosen], self.words[chosen])


def embed(trained: TrainedModel, scorer: CpuScorer, texts: Sequence[str]) -> Embedded:
    """Compute log-odds and embeddings of texts. For a long text, only the first window is used.

    Args:
        trained: Two-class model. Its scorer is not used.
        scorer: Scorer of an export of this model.
        texts: At least one text, not normalised.
    """
    assert trained.positive is not None
    encoded = trained.tokenizer.encode(trained.normalized(texts))

    def run(batch: Batch) -> Floats:
        return np.concatenate(scorer.embedded(batch), axis=1)

    outputs = compute(run, trained.tokenizer, encoded, scorer.token_budget, "embedding", scorer.workers)
    classes = len(trained.manifest.classes)
    return Embedded(outputs[:, classes:], log_odds(outputs[:, :classes])[:, trained.positive], word_counts(encoded))


def to_file(trained: TrainedModel, scorer: CpuScorer, texts: Sequence[str]) -> dict[str, bytes]:
    """Write the references to a bundle file: 8-bit embeddings with a scale per text, for as many texts as fit into `_MOST_BYTES`.

    Args:
        trained: Two-class model. Its scorer is not used.
        scorer: Scorer of an export of this model.
        texts: At least one negative text that the model was not trained on.
    """
    width = embed(trained, scorer, texts[:1]).embeddings.shape[1]
    references = embed(trained, scorer, texts[: _MOST_BYTES // (width + _BYTES_BESIDE)])
    scales = np.maximum(np.abs(references.embeddings).max(axis=1), np.float32(1e-12)) / np.float32(127)
    tensors = {
        "embeddings": np.round(references.embeddings / scales[:, None]).astype(np.int8),
        "scales": scales,
        "odds": references.odds.astype(np.float32),
        "words": references.words.astype(np.int32),
    }
    return {FILE: safetensors.numpy.save(tensors)}


def from_file(content: bytes) -> Embedded:
    """Read the content that `to_file` wrote.

    Raises:
        BundleError: If the file is malformed.
    """
    with well_formed(FILE):
        tensors = safetensors.numpy.load(content)
        embeddings, scales, odds, words = (tensors[name] for name in ("embeddings", "scales", "odds", "words"))
        if embeddings.ndim != 2 or {scales.shape, odds.shape, words.shape} != {(len(embeddings),)}:
            raise ValueError(f"shapes {embeddings.shape}, {scales.shape}, {odds.shape}, {words.shape}")
    return Embedded(embeddings.astype(np.float32) * scales[:, None], odds.astype(np.float64), words.astype(np.int64))
