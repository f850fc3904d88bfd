"""Texts as embeddings, and those of the negative class that an export carries: adapting holds the false positive rate on them."""

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
#: Bytes that the references of an export take at most, and bytes of a reference besides its embedding.
_MOST_BYTES, _BYTES_BESIDE = 2**20, 12


class Embedded(NamedTuple):
    """Texts as the correction sees them.

    Attributes:
        embeddings: float32 (n, width).
        odds: Log-odds of the positive class, uncorrected, float64 (n,).
        words: Of each text, int64 (n,).
    """

    embeddings: Floats
    odds: NDArray[np.float64]
    words: NDArray[np.int64]

    def and_then(self, others: Embedded) -> Embedded:
        """These, and others after them."""
        return Embedded(
            np.concatenate([self.embeddings, others.embeddings]),
            np.concatenate([self.odds, others.odds]),
            np.concatenate([self.words, others.words]),
        )

    def rows(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> Embedded:
        """Some of them."""
        return Embedded(self.embeddings[chosen], self.odds[chosen], self.words[chosen])


def embed(trained: TrainedModel, scorer: CpuScorer, texts: Sequence[str]) -> Embedded:
    """Log-odds and embeddings of texts, one at least; of a long one, those of the first window.

    Args:
        trained: Of two classes; its own scorer is not used.
        scorer: Of an export of it.
        texts: As given.
    """
    assert trained.positive is not None
    encoded = trained.tokenizer.encode(trained.normalized(texts))

    def run(batch: Batch) -> Floats:
        return np.concatenate(scorer.embedded(batch), axis=1)

    found = compute(run, trained.tokenizer, encoded, scorer.token_budget, "embedding", scorer.workers)
    classes = len(trained.manifest.classes)
    return Embedded(found[:, classes:], log_odds(found[:, :classes])[:, trained.positive], word_counts(encoded))


def to_file(trained: TrainedModel, scorer: CpuScorer, texts: Sequence[str]) -> dict[str, bytes]:
    """The file of a bundle: embeddings in eight bits, each with its scale; of as many texts as fit into `_MOST_BYTES`.

    Args:
        trained: As for `embed`.
        scorer: The same.
        texts: Of the negative class, one at least, that the model was not trained on.
    """
    width = embed(trained, scorer, texts[:1]).embeddings.shape[1]
    kept = embed(trained, scorer, texts[: _MOST_BYTES // (width + _BYTES_BESIDE)])
    scales = np.maximum(np.abs(kept.embeddings).max(axis=1), np.float32(1e-12)) / np.float32(127)
    tensors = {
        "embeddings": np.round(kept.embeddings / scales[:, None]).astype(np.int8),
        "scales": scales,
        "odds": kept.odds.astype(np.float32),
        "words": kept.words.astype(np.int32),
    }
    return {FILE: safetensors.numpy.save(tensors)}


def from_file(content: bytes) -> Embedded:
    """What `to_file` wrote.

    Raises:
        BundleError: If it is malformed.
    """
    with well_formed(FILE):
        tensors = safetensors.numpy.load(content)
        embeddings, scales, odds, words = (tensors[name] for name in ("embeddings", "scales", "odds", "words"))
        if embeddings.ndim != 2 or {scales.shape, odds.shape, words.shape} != {(len(embeddings),)}:
            raise ValueError(f"shapes {embeddings.shape}, {scales.shape}, {odds.shape}, {words.shape}")
    return Embedded(embeddings.astype(np.float32) * scales[:, None], odds.astype(np.float64), words.astype(np.int64))
