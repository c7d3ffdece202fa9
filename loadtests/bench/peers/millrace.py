"""Millrace's own part of the file job: Transform, landing's Parquet, the texts that Hot puts.

A few thousand lines at a time, as Deliveries are. Beside the job it rejects with a reason, names
repeats, and carries lineage in each row.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import IO, Any

import orjson
from job import measured

from loadtests.bench.traffic import NOON, contract
from sinks import hot, parquet
from sinks.deadline import Deadline
from sinks.table import Waiting
from transform.pipeline import Transform
from transform.records import Delivery

LINES_A_BATCH = 7_000


class Texts:
    """A table that takes the texts of puts into a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def put_each(self, _keys: Any, puts: Iterable[Any], *_: Any, **_how: Any) -> set[Any]:
        for put in puts:
            self.file.write(put if isinstance(put, bytes) else orjson.dumps(put))
            self.file.write(b"\n")
        return set()


def work(lines: Path, folder: Path) -> None:
    rules = Transform(contract())
    deadline = Deadline(60.0, lambda: 0.0)
    waiting = Waiting(lambda _: None, lambda low, _: low)
    with lines.open("rb") as source, (folder / "items.json").open("wb") as items:
        table: Any = Texts(items)
        number = 0
        while bodies := [line.rstrip(b"\n") for line in islice(source, LINES_A_BATCH)]:
            made = rules.apply(delivery(bodies, number).table(), "raw")
            (folder / f"rows-{number}.parquet").write_bytes(parquet.encode(made.rows))
            hot.write(table, made.rows, rules.contract, deadline, waiting)
            number += 1


def delivery(bodies: list[bytes], number: int) -> Delivery:
    count = len(bodies)
    return Delivery(
        source="kinesis",
        stream="file",
        shards=["0"] * count,
        sequences=[str(number * LINES_A_BATCH + at) for at in range(count)],
        groups=["file"] * count,
        arrivals=[NOON] * count,
        attributes=[None] * count,
        bodies=bodies,
    )


if __name__ == "__main__":
    measured(work)
