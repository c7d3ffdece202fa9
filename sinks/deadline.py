"""The absolute moment after which no effect is begun (law 7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sinks.errors import DeadlinePassed

Clock = Callable[[], float]
"""Seconds since 1970, as `time.time`."""


@dataclass(frozen=True)
class Deadline:
    """`at` is in seconds since 1970; it travels in the workflow's state as milliseconds."""

    at: float
    clock: Clock

    @classmethod
    def of_millis(cls, millis: int, clock: Clock) -> Deadline:
        return cls(millis / 1000, clock)

    @property
    def left(self) -> float:
        """Seconds that remain; negative when it has passed."""
        return self.at - self.clock()

    def sooner(self, seconds: float) -> Deadline:
        """A deadline so much before this one."""
        return Deadline(self.at - seconds, self.clock)

    def check(self, what: str) -> None:
        """Raise `DeadlinePassed` rather than begin `what` too late."""
        if self.left <= 0:
            raise DeadlinePassed(f"{what}: the deadline passed {-self.left:.1f} s ago")
