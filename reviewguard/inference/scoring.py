"""From texts to logits and predictions, independent of the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from reviewguard.data.tokens import Batch, Encoded, Tokenizer
from reviewguard.errors import PredictionError

Floats = NDArray[np.float32]


class Scorer(Protocol):
    """Computes logits: a torch model or an ONNX session."""

    @property
    def name(self) -> str:
        """Engine, precision, and threads or device."""
        ...

    @property
    def token_budget(self) -> int:
        """Maximum number of tokens in a batch, padding included. On a CPU, small batches fit into the cache."""
        ...

    workers: int
    """Number of batches that may be computed in parallel."""

    def logits(self, batch: Batch, *, alone: bool = False) -> Floats:
        """Compute logits, float32 (batch, classes), from `input_ids` and `attention_mask`, int64 (batch, length).

        With `alone`, no other batch is computed at the same time, so that this one may use all cores.
        """
        ...


class Prediction(msgspec.Struct, frozen=True):
    """The prediction for one text.

    Attributes:
        label: The most probable class as a string, or the class given by the operating point. None: see `error`; `score` and
            `decision` are then None as well.
        score: The label's probability, 0 to 1.
        decision: What to do with the text. A class: act on the prediction. "needs_review": the model abstains, or the text is
            out-of-distribution or shorter than every length band; a person should decide. "not_flagged": a one-sided model found
            no evidence for the positive class, which does not show that the text is genuine. Without abstention, this is `label`
            for all other texts.
        truncated: Whether the text was longer than the model reads, so that its end was ignored.
        out_of_distribution: Whether the text is in another language or script than the training texts, or shorter than 99.5 % of
            them. The label is then unreliable.
        scores: Probability of each class, by label. Empty: see `error`.
        error: Why there is no prediction, such as an empty text. None: no error.
    """

    label: str | None
    score: float | None
    decision: str | None
    truncated: bool
    out_of_distribution: bool
    scores: dict[str, float] = {}
    error: str | None = None


#: Most padding of a batch, as part of the budget.
_PADDING: Final = 1 / 16


def batches(encoded: Sequence[Encoded], token_budget: int) -> Iterator[list[int]]:
    """Group rows of similar length.

    No padded batch exceeds the budget, and none has more padding than a fixed part of it: on a CPU, a few batches without padding
    are faster than one that is half padding. A single row that exceeds the budget forms its own batch.
    """
    batch: list[int] = []
    tokens = 0
    for row in sorted(range(len(encoded)), key=lambda i: len(encoded[i].ids)):
        # Rows are in ascending length, so the last row determines the padded length.
        length = len(encoded[row].ids)
        padded = (len(batch) + 1) * length
        if batch and (padded > token_budget or padded - tokens - length > token_budget * _PADDING):
            yield batch
            batch, tokens = [], 0
        batch.append(row)
        tokens += length
    if batch:
        yield batch


def compute(
    run: Callable[[Batch], Floats],
    tokenizer: Tokenizer,
    encoded: Sequence[Encoded],
    token_budget: int,
    progress: str = "",
    workers: int = 1,
) -> Floats:
    """Apply a function to batches sorted by length, and return the rows in input order.

    Args:
        run: Function from a batch to float32 (batch, width). With several workers, it is called from several threads.
        tokenizer: Tokenizer that pads the batches.
        encoded: At least one tokenised text.
        token_budget: Maximum number of tokens in a batch, see `batches`.
        progress: Title of the progress bar, which is shown on terminals only. Empty: no progress bar.
        workers: Number of batches computed in parallel.

    Returns:
        Outputs, float32 (texts, width).
    """
    if not encoded:
        raise ValueError("compute needs at least one text")
    out: Floats | None = None
    # Longest batches first, so that workers wait for each other only briefly at the end.
    groups = list(batches(encoded, token_budget))[::-1]

    def run_on(rows: list[int]) -> Floats:
        return run(tokenizer.pad([encoded[row] for row in rows]))

    with (
        tqdm(total=len(encoded), desc=progress, unit=" texts", disable=None if progress else True, leave=False) as bar,
        ThreadPoolExecutor(workers) as pool,
    ):
        for rows, values in zip(groups, (pool.map if workers > 1 else map)(run_on, groups), strict=True):
            if out is None:
                out = np.empty((len(encoded), values.shape[1]), dtype=np.float32)
            out[rows] = values
            bar.update(len(rows))
    assert out is not None
    return out


def score(scorer: Scorer, tokenizer: Tokenizer, encoded: Sequence[Encoded], progress: str = "") -> Floats:
    """Compute logits of tokenised texts, float32 (texts, classes), with the scorer's batch size and workers."""
    if len(list(batches(encoded, scorer.token_budget))) == 1:
        return scorer.logits(tokenizer.pad(encoded), alone=True)
    return compute(scorer.logits, tokenizer, encoded, scorer.token_budget, progress, scorer.workers)


def require_finite(logits: Floats, rows: Sequence[int]) -> None:
    """Check that all logits are finite; the argmax of NaN would be the first class.

    Args:
        logits: Logits, float32 (sum of rows, classes).
        rows: Number of rows of each text.

    Raises:
        PredictionError: If a logit is not finite. The message lists the first such texts.
    """
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        affected = np.unique(np.repeat(np.arange(len(rows)), rows)[~finite])
        raise PredictionError(
            f"the logits of {len(affected)} of {len(rows)} texts are not finite, first at positions "
            f"{', '.join(map(str, affected[:5]))} (counted from 0); the weights or the graph are damaged, or values overflow in "
            "this precision: load the model again, or load it with precision='fp32'"
        )
