"""What the oracle knows: what was sent, what sources told of it, and what lies in the stores."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from infra.doubles.stepfunctions import Execution
from infra.simulation.drawn import Made
from infra.simulation.messages import EPOCH_START, Element, Fate, Judge, Message, Place
from infra.simulation.sources import Position

DIGEST_BYTES = 16
UNREAD = "unread"  # the generation of what was set aside without a look (law 8)

Row = dict[str, Any]
Item = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Violation:
    """An invariant that does not hold: `kind` is what shrinking must keep."""

    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


@dataclass
class Known:
    """What the oracle was told during a run (it is the sources' `Ears`)."""

    members: dict[Position, tuple[tuple[Message, ...], ...]] = field(default_factory=dict)
    aggregated: set[Position] = field(default_factory=set)
    judges: dict[str, Judge] = field(default_factory=dict)  # by the generation they make
    bodies: dict[Position, bytes] = field(default_factory=dict)
    arrivals: dict[Position, int] = field(default_factory=dict)
    settled_positions: dict[Position, float] = field(default_factory=dict)
    parked_positions: set[Position] = field(default_factory=set)
    groups: dict[str, list[Position]] = field(default_factory=dict)  # of FIFO, in their order
    accepted: list[float] = field(default_factory=list)  # when an operator accepted rejects
    violations: list[Violation] = field(default_factory=list)
    now: Any = None
    _elements: dict[tuple[Position, str], dict[Place, Element]] = field(default_factory=dict)

    def made(self, position: Position, made: Made) -> None:
        self.members[position], self.bodies[position] = made.members, made.body
        if made.aggregated:
            self.aggregated.add(position)

    def elements(self, position: Position, generation: str) -> dict[Place, Element]:
        """What a source record comes to under a generation's rules; else nothing."""
        named = (position, generation)
        if named not in self._elements:
            members, judge = self.members.get(position, ()), self.judges.get(generation)
            arrival = self.arrivals.get(position)
            self._elements[named] = (
                {} if judge is None or arrival is None else judge.elements(members, arrival)
            )
        return self._elements[named]

    def received(self, position: Position, body: bytes, arrival_micros: int) -> None:
        self.arrivals[position] = arrival_micros
        if self.bodies.get(position, body) != body:
            raise AssertionError(f"the source gave other bytes for {position}")

    def settled(self, position: Position) -> None:
        self.settled_positions.setdefault(position, self.now())

    def parked(self, position: Position, arrival_micros: int) -> None:
        self.arrivals.setdefault(position, arrival_micros)
        self.parked_positions.add(position)


@dataclass(frozen=True)
class Stores:
    """What lies in the account at the end; `gone` are objects that a lifecycle rule removed."""

    objects: Mapping[str, bytes]
    gone: Mapping[str, bytes]
    hot: Mapping[tuple[str, str], Item]
    ledger: Mapping[tuple[str, str], Item]
    succeeded: Sequence[str]
    executions: Sequence[Execution] = ()


@dataclass(frozen=True, order=True)
class Standing:
    """A row that analysts count, in the order in which the earliest stands for its repeats.

    Attempts that overlap write an element more than once: any of its origins is as good.
    """

    arrival: int
    position: Position
    place: Place
    generation: str
    identity: tuple[str, bytes]
    origin: tuple[str, int] = field(compare=False)

    @classmethod
    def of(cls, row: Row) -> Standing:
        return cls(
            micros(row["_arrival"]),
            position_of(row),
            place_of(row),
            row["_generation"],
            (row["_record_id"], row["_digest"]),
            (row["_raw"], row["_index"]),
        )


@dataclass(frozen=True)
class Chosen:
    """A position's one fate by law 5: the generation that counts, and its rows by place."""

    generation: str
    fates: Mapping[Place, Fate]

    @property
    def worst(self) -> Fate:
        return worst(self.fates)


def worst(fates: Mapping[Place, Fate]) -> Fate:
    """What becomes of a record: quarantined if any of it is, dropped if all of it is."""
    there = set(fates.values())
    return next(fate for fate in ("quarantined", "delivered", "dropped") if fate in there)


def place_of(row: Row) -> Place:
    return (row["_sub"], row["_child"])


def position_of(row: Row) -> Position:
    return (row.get("_stream", ""), row.get("_shard", ""), row.get("_sequence", ""))


def digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest()


def micros(moment: datetime) -> int:
    return (moment - EPOCH_START) // timedelta(microseconds=1)
