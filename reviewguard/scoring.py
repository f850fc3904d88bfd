"""From texts to logits and predictions, whatever computes the logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from reviewguard.tokens import Batch, Encoded, Tokenizer

Floats = NDArray[np.float32]


class Scorer(Protocol):
    """What computes logits: a torch model or an ONNX session."""

    token_budget: int
    """Padded tokens a batch may hold; small batches fit the cache of a CPU."""

    def logits(self, batch: Batch) -> Floats:
        """Logits, float32 (batch, classes), for `input_ids` and `attention_mask`, int64 (batch, length)."""
        ...


class Prediction(msgspec.Struct, frozen=True):
    """What the model says of one text.

    Attributes:
        label: The most probable class.
        score: Its probability, 0 to 1.
        truncated: The text was longer than the model reads; its end had no influence.
    """

    label: str
    score: float
    truncated: bool


def batches(encoded: Sequence[Encoded], token_budget: int) -> Iterator[list[int]]:
    """Group rows of similar length so that no padded batch exceeds the budget (a longer single row stands alone)."""
    batch: list[int] = []
    for row in sorted(range(len(encoded)), key=lambda i: len(encoded[i].ids)):
        # Rows come shortest first, so the newest row sets the padded length.
        if batch and (len(batch) + 1) * len(encoded[row].ids) > token_budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def compute(
    run: Callable[[Batch], Floats], tokenizer: Tokenizer, encoded: Sequence[Encoded], token_budget: int, progress: str = ""
) -> Floats:
    """Run a function over length-sorted batches; rows come back in the order of the input.

    Args:
        run: From a batch to float32 (batch, width).
        tokenizer: Pads the batches.
        encoded: At least one tokenised text.
        token_budget: See `batches`.
        progress: Title of the progress bar, shown on terminals only; empty: none.

    Returns:
        float32 (texts, width).
    """
    out: Floats | None = None
    with tqdm(total=len(encoded), desc=progress, unit=" texts", disable=None if progress else True, leave=False) as bar:
        for rows in batches(encoded, token_budget):
            values = run(tokenizer.pad([encoded[row] for row in rows]))
            if out is None:
                out = np.empty((len(encoded), values.shape[1]), dtype=np.float32)
            out[rows] = values
            bar.update(len(rows))
    if out is None:
        raise ValueError("compute needs at least one text")
    return out


def softmax(logits: Floats) -> Floats:
    """Probabilities, float32 (n, classes), of logits (n, classes)."""
    exp: Floats = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Floats = exp / exp.sum(axis=1, keepdims=True)
    return probabilities


def predictions(probabilities: Floats, encoded: Sequence[Encoded], classes: Sequence[str]) -> list[Prediction]:
    """Name the most probable class of each row."""
    return [
        Prediction(classes[best], float(row[best]), item.truncated)
        for row, best, item in zip(probabilities, probabilities.argmax(axis=1), encoded, strict=True)
    ]
