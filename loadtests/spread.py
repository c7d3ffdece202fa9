"""Of several rounds, the middle and how far they lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        low, middle, high = (
            quantiles(values, n=4, method="inclusive") if len(values) > 1 else (*values * 3,)
        )
        return cls(middle, low, high)

    def shown(self, form: str) -> str:
        """The median, and in brackets the quartiles."""
        return f"{self.median:{form}} ({self.low:{form}} to {self.high:{form}})"
