"""A contract's own examples, tried: whether each message becomes what its `[[example]]` says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from infra.contracts.trial import applied
from transform.contract import Contract, Example
from transform.records import Batch
from transform.timestamps import EPOCH, MICROSECOND, TimestampError, parse_timestamp


@dataclass(frozen=True)
class Difference:
    """What an example expects of `what`, and what is."""

    what: str
    expected: Any
    found: Any


@dataclass(frozen=True)
class Verdict:
    """An example and where it differs from what it says: nowhere, if it holds."""

    name: str
    differences: tuple[Difference, ...]

    @property
    def holds(self) -> bool:
        return not self.differences

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "holds": self.holds}


def verdicts(contract: Contract, now: int) -> list[Verdict]:
    """Each example tried; `now`, in microseconds, is the arrival of those that name none."""
    return [Verdict(one.name, tuple(_differences(contract, one, now))) for one in contract.examples]


def _differences(contract: Contract, example: Example, now: int) -> Iterator[Difference]:
    arrival = now if example.arrival is None else example.arrival
    batch = applied(contract, [example.message], arrival, example.attributes)
    yield from _fate(batch, example)
    if example.rows >= 0 and batch.rows.num_rows != example.rows:
        yield Difference("rows", example.rows, batch.rows.num_rows)
    if example.expect is None or not batch.rows.num_rows:
        return
    row = batch.rows.slice(0, 1).to_pylist()[0]
    for name, expected in example.expect.items():
        if not _same(row[name], expected):
            yield Difference(name, expected, row[name])


def _fate(batch: Batch, example: Example) -> Iterator[Difference]:
    """Differences in what became of the message as a whole."""
    rejects = batch.rejects.to_pylist()
    reasons = [row["_reason"] for row in rejects]
    if example.dropped is not None:
        rules = batch.drops.column("_rule").to_pylist()
        if example.dropped not in rules:
            yield Difference("dropped", example.dropped, ", ".join(rules) or _told(batch))
    if example.rejected is not None:
        if example.rejected not in reasons:
            yield Difference("rejected", example.rejected, _told(batch))
        elif example.field not in (None, *(row["_field"] for row in rejects)):
            blamed = ", ".join(str(row["_field"]) for row in rejects)
            yield Difference("field", example.field, blamed)
    elif example.expect is not None and not batch.rows.num_rows:
        yield Difference("fate", "delivered", _told(batch))


def _told(batch: Batch) -> str:
    """What became of a message, in words."""
    if batch.rejects.num_rows:
        row = batch.rejects.slice(0, 1).to_pylist()[0]
        return f"rejected: {row['_reason']}: {row['_detail']}"
    return "delivered" if batch.rows.num_rows else "dropped"


def _same(found: Any, expected: Any) -> bool:
    """Whether a row's value is the expected one; a moment may be written as text."""
    if isinstance(found, datetime) and isinstance(expected, str):
        try:
            moment = parse_timestamp(expected, "iso8601")
        except TimestampError:
            return False
        return (found - EPOCH) // MICROSECOND == moment
    if isinstance(found, bool) != isinstance(expected, bool):
        return False
    return bool(found == expected)
