"""Reading of long texts in overlapping windows whose logits are combined."""

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
        overlap: Number of tokens that consecutive windows share.
        rule: How the logits of the windows are combined: "mean", weighted by the number of tokens of each window, or "max", the
            logits of the window with the largest log-odds of the positive class.
        max_windows: Maximum number of windows read from the beginning of a text; a longer text is truncated.
    """

    overlap: Annotated[int, msgspec.Meta(ge=0)]
    rule: Rule
    max_windows: Annotated[int, msgspec.Meta(ge=1)] = 8

    def combined(self, logits: NDArray[np.float32], tokens: Sequence[Sequence[int]], positive: int | None) -> NDArray[np.float32]:
        """Combine the logits of windows into logits of texts, float32 (texts, classes).

        Args:
            logits: Logits of all windows, text by text, float32 (windows, classes).
            tokens: Number of tokens of each window of each text.
            positive: Index of the positive class; required by the rule "max".
        """
        counts = [len(windows) for windows in tokens]
        starts = np.cumsum([0, *counts[:-1]])
        if self.rule == "mean":
            # The product of a float32 and a token count is exact in float64, so the logits of a single window do not change.
            weights = np.concatenate(tokens).astype(np.float64)[:, None]
            mean: NDArray[np.float64] = np.add.reduceat(logits * weights, starts) / np.add.reduceat(weights, starts)
            return mean.astype(np.float32)
        assert positive is not None
        odds = log_odds(logits)[:, positive]
        best = [start + int(odds[start : start + count].argmax()) for start, count in zip(starts, counts, strict=True)]
        return logits[best]
