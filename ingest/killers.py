"""Law 8: when Transform dies of a Delivery, find the record that it dies of.

The Delivery is split eight ways, and what dies is split again, until single records are left. A
record that kills alone, twice, is set aside unread only with a control: another part of the same
Delivery passed, or a canary did. Without one it is the world that is broken, and the record goes
back.

Parts are too small to tell whether the world is wrong (law 9): so rejects are withheld until all
parts are tried, and judged together. If nearly all is bad, the breaker has the word: nothing is set
aside, and no killer either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any

from ingest.breaker import Finding, RejectLimits, Rejects, Sample
from ingest.workflow import TransformDied
from sinks.deadline import Deadline
from sinks.errors import SinkError
from transform.records import Outcome

PARTS = 8  # to find one record of 10,000 takes five rounds, and one to make sure
KILLERS_MAX = 3  # of a Delivery: with more, something else than its records is wrong
WHY_CHARS_MAX = 500  # of Transform's last words, kept with the record

Run = Callable[[int, int, dict[str, Any]], tuple[Outcome, Sample | None]]
"""Run the workflow on `received` records from `first` on, with more in its state.

There is a sample where rejects were to be withheld.
"""

Parallel = Callable[[Callable[["Part"], "Ran"], Iterable["Part"]], Iterable["Ran"]]
"""`map`, as a thread pool has it: results in the order of the parts."""


class NothingDone(RuntimeError):
    """Transform died, time is over and no record of the Delivery has a fate.

    Raised through, so that the mapping bisects the batch and each half is tried with time of its
    own.
    """


@dataclass(frozen=True)
class Part:
    """Records [first, first + received) of a Delivery."""

    first: int
    received: int

    def split(self) -> Iterator[Part]:
        """Up to eight parts of it, as even as can be."""
        size = math.ceil(self.received / PARTS)
        for first in range(self.first, self.first + self.received, size):
            yield Part(first, min(size, self.first + self.received - first))


@dataclass(frozen=True)
class Ran:
    """What came of a part: an Outcome, or Transform's death, or weather (neither)."""

    part: Part
    outcome: Outcome | None = None
    died: str | None = None
    sample: Sample | None = None


@dataclass
class Hunt:
    """One hunt through one Delivery. `round_seconds` is what a round may take: Transform's time.

    `found` is what is wrong with the Delivery as a whole, `killers` how many were set aside.
    """

    run: Run
    parallel: Parallel
    deadline: Deadline
    round_seconds: float
    limits: RejectLimits
    ran: list[Ran] = field(default_factory=list)
    killers: int = 0
    found: Finding | None = None

    def through(self, received: int, died: str) -> Outcome:
        """The Outcome of a Delivery of which Transform died as a whole."""
        alone = self._search(Ran(Part(0, received), died=died))
        if alone and self._in_time():  # the first time it may have been a process that just died
            alone = self._all([ran.part for ran in alone], "withhold")
        else:
            alone = []
        samples = [ran.sample for ran in self.ran if ran.sample]
        self.found = reduce(add, samples).judged(self.limits) if samples else None
        if self.found is None:
            self._all(self._withheld(), "write")
            self._set_aside(alone)
        return together(received, ((ran.part, ran.outcome) for ran in self.ran))

    def _search(self, whole: Ran) -> list[Ran]:
        """The records that Transform dies of alone, a few at most."""
        suspects = [whole]
        alone: list[Ran] = []
        while suspects and self._in_time():
            alone += [ran for ran in suspects if ran.part.received == 1]
            parts = [p for ran in suspects if ran.part.received > 1 for p in ran.part.split()]
            suspects = self._all(parts, "withhold")[:KILLERS_MAX]
        return alone[:KILLERS_MAX]

    def _in_time(self) -> bool:
        """Whether there is time for another round, and then to write what is withheld."""
        kept = self.round_seconds / 2 if self._withheld() else 0.0
        return self.deadline.left > self.round_seconds + kept

    def _withheld(self) -> list[Part]:
        return [ran.part for ran in self.ran if ran.sample and ran.sample.rejected]

    def _set_aside(self, alone: list[Ran]) -> None:
        if not alone or self.deadline.left <= self.round_seconds:
            return
        passed = sum(r.outcome.received - r.outcome.retried for r in self.ran if r.outcome)
        if not (passed or self._canary_passes()):
            return
        control = f"{passed} records of its Delivery passed" if passed else "a canary passed"
        for ran in alone:
            unread = f"Transform died of it alone, while {control}: {ran.died}"
            tried = self._try(ran.part, unread=unread)
            if tried.outcome is not None:
                self.ran.append(tried)
                self.killers += tried.outcome.quarantined

    def _canary_passes(self) -> bool:
        return self._try(Part(0, 0), canary=True).outcome is not None

    def _all(self, parts: list[Part], rejects: Rejects) -> list[Ran]:
        """Try all these parts at once; returns those that Transform died of."""
        tried = list(self.parallel(lambda part: self._try(part, rejects=rejects), parts))
        self.ran += [ran for ran in tried if ran.outcome is not None]
        return [ran for ran in tried if ran.died is not None]

    def _try(self, part: Part, **more: Any) -> Ran:
        try:
            outcome, sample = self.run(part.first, part.received, more)
        except TransformDied as died:
            return Ran(part, died=str(died)[:WHY_CHARS_MAX])
        except SinkError:
            return Ran(part)
        return Ran(part, outcome, sample=sample)


def together(received: int, parts: Iterable[tuple[Part, Outcome | None]]) -> Outcome:
    """The Outcome of a Delivery from those of its parts; what no part had goes back.

    Of a part that ran twice, the first time it was withheld, the later Outcome counts.
    """
    back = [True] * received
    delivered = dropped = quarantined = 0
    for part, outcome in parts:
        if outcome is None:
            continue
        delivered += outcome.delivered
        dropped += outcome.dropped
        quarantined += outcome.quarantined
        back[part.first : part.first + part.received] = [False] * part.received
        for index in outcome.retry_indexes():
            back[part.first + index] = True
    padded = [False, *back, False]
    edges = [index for index, (a, b) in enumerate(pairwise(padded)) if a != b]
    return Outcome(
        received=received,
        delivered=delivered,
        dropped=dropped,
        quarantined=quarantined,
        retry=tuple(zip(edges[::2], edges[1::2], strict=True)),
    )
