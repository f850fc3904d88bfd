"""From texts to logits and predictions, whatever computes the logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from reviewguard.data.tokens import Batch, Encoded, Tokenizer
from reviewguard.errors import PredictionError

Floats = NDArray[np.float32]


class Scorer(Protocol):
    """What computes logits: a torch model or an ONNX session."""

    @property
    def name(self) -> str:
        """Engine, precision, and what it computes on."""
        ...

    @property
    def token_budget(self) -> int:
        """Padded tokens that a batch may hold; small batches fit the cache of a CPU."""
        ...

    workers: int
    """Batches that may be computed side by side."""

    def logits(self, batch: Batch, *, alone: bool = False) -> Floats:
        """Logits, float32 (batch, classes), for `input_ids` and `attention_mask`, int64 (batch, length).

        With `alone`, no other batch is computed meanwhile: all cores may work on this one.
        """
        ...


class Prediction(msgspec.Struct, frozen=True):
    """What the model says of one text.

    Attributes:
        label: The most probable class, as a string, or the one that the operating point calls for. None where there is an error,
            as are score and decision.
        score: Its probability, 0 to 1.
        decision: What to do with the text. A class: act on it as the model's answer. "needs_review": a person should look; the
            model abstains, or the text is unfamiliar or shorter than every band that has a threshold. "not_flagged": a one-sided
            model has nothing against the text, which does not show that it is genuine. Without abstention it is `label`.
        truncated: The text was longer than the model reads; its end had no influence.
        out_of_distribution: The text is in another language or script than the training texts, or shorter than 99.5 % of them;
            the label is unreliable then.
        scores: Probability of each class, by label; empty where there is an error.
        error: Why there is no answer, such as an empty text; None: there is one.
    """

    label: str | None
    score: float | None
    decision: str | None
    truncated: bool
    out_of_distribution: bool
    scores: dict[str, float] = {}
    error: str | None = None


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
    run: Callable[[Batch], Floats],
    tokenizer: Tokenizer,
    encoded: Sequence[Encoded],
    token_budget: int,
    progress: str = "",
    workers: int = 1,
) -> Floats:
    """Run a function over length-sorted batches; rows come back in the order of the input.

    Args:
        run: From a batch to float32 (batch, width); with several workers, called by as many threads.
        tokenizer: Pads the batches.
        encoded: At least one tokenised text.
        token_budget: See `batches`.
        progress: Title of the progress bar, shown on terminals only; empty: none.
        workers: Batches computed side by side.

    Returns:
        float32 (texts, width).
    """
    if not encoded:
        raise ValueError("compute needs at least one text")
    out: Floats | None = None
    # The longest come first: at the end the workers wait for each other, and then short ones are left.
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
    """Logits of tokenised texts, float32 (texts, classes), by the batch size and the workers of a scorer."""
    if len(encoded) == 1 or len(encoded) * max(len(item.ids) for item in encoded) <= scorer.token_budget:
        return scorer.logits(tokenizer.pad(encoded), alone=True)
    return compute(scorer.logits, tokenizer, encoded, scorer.token_budget, progress, scorer.workers)


def require_finite(logits: Floats, rows: Sequence[int]) -> None:
    """Refuse logits that are not finite: their argmax is the first class.

    Args:
        logits: float32 (sum of rows, classes).
        rows: Of each text, how many rows it has.

    Raises:
        PredictionError: Naming the first texts.
    """
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        wrong = np.unique(np.repeat(np.arange(len(rows)), rows)[~finite])
        raise PredictionError(
            f"the model gives no finite logits for {len(wrong)} of {len(rows)} texts, first for those at "
            f"{', '.join(map(str, wrong[:5]))} (counted from 0); its weights or its graph are damaged, or numbers overflow in "
            "this precision: load it again, or with precision='fp32'"
        )
