"""What an engine is asked: three questions about Parquet files, over and over, a line of JSON each.

    python ENGINE.py < questions > answers

    totals      over all rows or those of a span of event time, by status
    history     one device's rows in the order of event time

An engine is a module with `totals` and `history`, which are timed, and `added`, which adds a
history up and is not. Sums are of integers (of a float with three decimals, its thousandths), so
they are exact in any order. Engines may run in environments of their own, so this module has
nothing but the standard library.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Protocol

COLUMNS = ("event_time", "sequence", "temperature", "pressure")
"""Of a device's history; `pressure` is missing in files from before it was in the contract."""

Sums = tuple[int, int, int, int, int]
"""Rows, sequence, temperature, rows that have a pressure, pressure."""


@dataclass(frozen=True)
class Question:
    """`schema` is an empty file with all columns, `since` and `until` are seconds since 1970.

    `distinct` asks that repeats be removed, where the files still have them.
    """

    files: list[str]
    schema: str
    device: str | None = None
    since: int | None = None
    until: int | None = None
    distinct: bool = False

    @property
    def span(self) -> tuple[datetime, datetime] | None:
        if self.since is None or self.until is None:
            return None
        return _utc(self.since), _utc(self.until)


class Engine(Protocol):
    """What answers questions."""

    def totals(self, question: Question) -> list[tuple[str, Sums]]: ...

    def history(self, question: Question) -> Any: ...

    def added(self, history: Any) -> Sums: ...


def serve(engine: Engine, clock: Callable[[], float] = time.process_time) -> None:
    """Answer every line that comes in, with the seconds it took: of CPU, where that can be told."""
    for line in sys.stdin:
        question = Question(**json.loads(line))
        began = clock()
        found = engine.totals(question) if question.device is None else engine.history(question)
        seconds = clock() - began
        answer = dict(found) if question.device is None else {question.device: engine.added(found)}
        sys.stdout.write(json.dumps({"answer": answer, "seconds": seconds}) + "\n")
        sys.stdout.flush()


def _utc(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)  # noqa: UP017  Spark's Python may be 3.8
