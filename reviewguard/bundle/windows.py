"""How a text that is longer than the model reads at once is read: in overlapping windows, whose logits are combined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from reviewguard.bundle.decision import log_odds

Rule = Literal["mean", "max"]
RULES: Final[tuple[Rule, ...]] = get_args(Rule)


class Windows(msgspec.Struct, frozen=True, kw_only=True):
    """Overlapping windows over the tokens of a long text.

    Attributes:
        overlap: Tokens that a window shares with the one before.
        rule: What becomes of their logits: the "mean", weighted by the tokens of each window, or those of the window in which the
            log-odds of the positive class are the "max".
        max_windows: Windows read of a text at most, from its beginning; a text with more is truncated.
    """

    overlap: Annotated[int, msgspec.Meta(ge=0)]
    rule: Rule
    max_windows: Annotated[int, msgspec.Meta(ge=1)] = 8

    def combined(self, logits: NDArray[np.float32], tokens: Sequence[Sequence[int]], positive: int | None) -> NDArray[np.float32]:
        """Logits of texts, float32 (texts, classes), from those of their windows.

        Args:
            logits: Of all windows, text by text, float32 (windows, classes).
            tokens: Of each window of each text.
            positive: Index of the positive class; needed by the rule "max".
        """
        counts = [len(windows) for windows in tokens]
        starts = np.cumsum([0, *counts[:-1]])
        if self.rule == "mean":
            # A float32 times a number of tokens is exact in float64: a text of one window keeps its logits to the bit.
            weights = np.concatenate(tokens).astype(np.float64)[:, None]
            mean: NDArray[np.float64] = np.add.reduceat(logits * weights, starts) / np.add.reduceat(weights, starts)
            return mean.astype(np.float32)
        assert positive is not None
        odds = log_odds(logits)[:, positive]
        best = [start + int(odds[start : start + count].argmax()) for start, count in zip(starts, counts, strict=True)]
        return logits[best]
