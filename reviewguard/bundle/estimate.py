"""Estimates with confidence intervals."""

from __future__ import annotations

import msgspec


class Estimate(msgspec.Struct, frozen=True):
    """An estimate and the bounds of its 95 % interval; None where undefined, such as the AUC of a single class."""

    value: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.value is None:
            return "undefined"
        return f"{self.value:.4f}" if self.low is None else f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"
