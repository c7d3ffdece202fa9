"""Debts: hot rows that landed and were refused by the table, to be paid by the repair function.

A debt is a message that points at rows of one landing object by their place in it, so it stays
small, and paying it twice writes the same items. It counts as owed once SQS has acknowledged it;
before that nothing of it is delivered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from sinks.deadline import Deadline
from sinks.queue import Queue
from sinks.table import Waiting

DEBT_ROWS_MAX = 1_000  # rows a message points at; what the repair function can pay in one go

Span = tuple[int, int]
"""From the first to behind the last."""


class DebtError(ValueError):
    """A message of the repair queue that is no debt."""


@dataclass(frozen=True)
class Limits:
    """Up to where a refusal is a debt; beyond, the table is too far behind and records go back."""

    share_max: float = 0.2
    rows_max: int = 100_000


@dataclass(frozen=True)
class Debt:
    """Rows of a landing object that the hot table owes.

    `rows` are places in the landing object, `records` those of their source records in the raw
    object: how the rows came to be, for who reads the queue. They are owed as of an `epoch`: what
    was reprocessed under a later one may have made the rows' items others. 0 is that of each row.
    """

    pipeline: str
    landing_key: str
    rows: tuple[Span, ...]
    raw_key: str
    records: tuple[Span, ...]
    epoch: int = 0

    @cached_property
    def id(self) -> str:
        """Of the rows: whoever owes them again, as of the same epoch, owes the same debt."""
        named = orjson.dumps([self.landing_key, self.rows, *filter(None, [self.epoch])])
        return hashlib.blake2b(named, digest_size=16).hexdigest()

    @property
    def places(self) -> list[int]:
        """The rows' places, one by one."""
        return [place for low, high in self.rows for place in range(low, high)]

    def message(self) -> str:
        return orjson.dumps(
            {
                "debt": self.id,
                "pipeline": self.pipeline,
                "landing_key": self.landing_key,
                "rows": self.rows,
                "raw_key": self.raw_key,
                "records": self.records,
                "epoch": self.epoch,
            }
        ).decode()


def debt_of(message: str) -> Debt:
    """The debt in a message's body. Raises `DebtError`."""
    try:
        said = orjson.loads(message)
        debt = Debt(
            pipeline=_text(said["pipeline"]),
            landing_key=_text(said["landing_key"]),
            rows=_spans(said["rows"]),
            raw_key=_text(said["raw_key"]),
            records=_spans(said["records"]),
            epoch=int(said.get("epoch", 0)),
        )
        known = said["debt"]
    except (KeyError, TypeError, ValueError) as error:
        raise DebtError(f"not a debt: {type(error).__name__}: {error}") from None
    if not debt.rows or sum(high - low for low, high in debt.rows) > DEBT_ROWS_MAX:
        raise DebtError(f"debt {known!r}: not of 1 to {DEBT_ROWS_MAX} rows")
    if known != debt.id:
        raise DebtError(f"debt {known!r}: its rows are those of {debt.id}")
    return debt


def debts_of(  # noqa: PLR0913, PLR0917  what a debt says
    pipeline: str,
    landing_key: str,
    raw_key: str,
    rows: Sequence[int],
    indexes: Sequence[int],
    epoch: int = 0,
) -> list[Debt]:
    """The debts for these rows, in ascending order, and the source record of each."""
    return [
        Debt(
            pipeline=pipeline,
            landing_key=landing_key,
            rows=spans(rows[at : at + DEBT_ROWS_MAX]),
            raw_key=raw_key,
            records=spans(sorted(set(indexes[at : at + DEBT_ROWS_MAX]))),
            epoch=epoch,
        )
        for at in range(0, len(rows), DEBT_ROWS_MAX)
    ]


def bearable(refused: int, hot_rows: int, queue: Queue, limits: Limits) -> bool:
    """Whether so many refused rows may become debts. Raises `Unavailable`, `Misconfigured`.

    The queue is taken to hold full messages: rather too early back to the mapping than too late.
    """
    if refused > limits.share_max * hot_rows or refused > limits.rows_max:
        return False
    return queue.messages() * DEBT_ROWS_MAX + refused <= limits.rows_max


def owe(
    queue: Queue, debts: Sequence[Debt], deadline: Deadline, waiting: Waiting
) -> tuple[Debt, ...]:
    """Send the debts; returns those that are owed by the deadline: durable in the queue."""
    left = queue.send_all([debt.message() for debt in debts], deadline, waiting)
    return tuple(debt for place, debt in enumerate(debts) if place not in left)


def spans(places: Sequence[int]) -> tuple[Span, ...]:
    """Ascending places as half-open ranges."""
    found: list[list[int]] = []
    for place in places:
        if found and found[-1][1] == place:
            found[-1][1] += 1
        else:
            found.append([place, place + 1])
    return tuple((low, high) for low, high in found)


def _spans(said: Any) -> tuple[Span, ...]:
    """Ranges as a message says them: of whole numbers, ascending and apart."""
    found = tuple((low, high) for low, high in said)
    edges = [edge for span in found for edge in span]
    if not all(isinstance(edge, int) and not isinstance(edge, bool) for edge in edges):
        raise TypeError("a range is not of whole numbers")
    if edges != sorted(set(edges)) or (edges and edges[0] < 0):
        raise ValueError("ranges are not ascending and apart")
    return found


def _text(said: Any) -> str:
    if not isinstance(said, str) or not said:
        raise TypeError(f"{said!r} is not text")
    return said
