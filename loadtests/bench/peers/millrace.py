"""Millrace's own part of the file job: Transform, landing's Parquet, the texts that Hot puts.

A few thousand lines at a time, as Deliveries are. Beside the job it rejects with a reason, names
repeats, and carries lineage in each row.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from job import measured

from loadtests.bench.traffic import NOON, contract
from sinks import parquet
from sinks.hot import Wanted
from transform.pipeline import Transform
from transform.records import Delivery

LINES_A_BATCH = 7_000


def work(lines: Path, folder: Path) -> None:
    rules = Transform(contract())
    with lines.open("rb") as source, (folder / "items.json").open("wb") as items:
        number = 0
        while bodies := [line.rstrip(b"\n") for line in islice(source, LINES_A_BATCH)]:
            made = rules.apply(delivery(bodies, number).table(), "raw")
            (folder / f"rows-{number}.parquet").write_bytes(parquet.encode(made.rows))
            puts = Wanted.of(made.rows, rules.contract).puts()
            items.writelines(put + b"\n" for put in puts)
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
