"""Whether two ways came to the same items, the same rows and the same verdicts.

Items are compared attribute by attribute, numbers by value. Rows are compared in every column that
the baseline has: the reading's fields, its id, its digest and where it came from; what Millrace
writes beyond them (raw object, generation, counts) has no counterpart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from loadtests.bench.local import TABLE, Endpoint, Worker
from loadtests.bench.traffic import Planted, Traffic
from sinks import parquet

Items = dict[tuple[str, str], dict[str, Any]]


@dataclass(frozen=True)
class Output:
    """What a contestant made of an event: items by key, rows, and its bad records."""

    items: Items
    rows: pa.Table
    bad: tuple[Planted, ...]

    def found(self, planted: Sequence[Planted]) -> int:
        """How many planted records are among the bad ones, by the right reason if one is given."""
        told = {(one.sequence, one.sub): one.reason for one in self.bad}
        reasons = [(told.get((one.sequence, one.sub)), one.reason) for one in planted]
        return sum(reason in {"", right} for reason, right in reasons)


def output_of(endpoint: Endpoint, worker: Worker, traffic: Traffic, file: Path) -> Output:
    """Run the event, and gather what came to rest."""
    file.write_bytes(traffic.event)
    endpoint.set(keep=True)
    told = worker.run(file, tell=True)
    landed = [key for key in endpoint.told()["keys"] if "/landing/" in key]
    tables = [parquet.decode(endpoint.object(key)) for key in landed]
    found = Output(
        items=items_in(endpoint.bodies()),
        rows=pa.concat_tables(tables),
        bad=tuple(Planted(*one) for one in told["bad"]),
    )
    endpoint.set()
    return found


def items_in(requests: Iterable[dict[str, Any]]) -> Items:
    """The items of BatchWriteItem requests as plain values."""
    puts = (put["PutRequest"]["Item"] for one in requests for put in one["RequestItems"][TABLE])
    plain = ({name: plain_value(value) for name, value in item.items()} for item in puts)
    return {(item["pk"], item["sk"]): item for item in plain}


def plain_value(value: dict[str, Any]) -> Any:
    (kind, held), *_ = value.items()
    return Decimal(held) if kind == "N" else held


def differences(ours: Output, theirs: Output, traffic: Traffic) -> list[str]:
    """What is not the same, in words; nothing where all is."""
    found = []
    if ours.items != theirs.items:
        keys = {
            key
            for key in ours.items.keys() | theirs.items.keys()
            if ours.items.get(key) != theirs.items.get(key)
        }
        found.append(f"{len(keys)} items differ, such as {min(keys)}")
    columns = theirs.rows.column_names
    if not _ordered(ours.rows, columns).equals(_ordered(theirs.rows, columns)):
        found.append("the rows differ")
    for name, output in (("ours", ours), ("theirs", theirs)):
        if len(output.bad) != len(traffic.planted):
            found.append(f"{name}: {len(output.bad)} bad of {len(traffic.planted)} planted")
    return found


def _ordered(rows: pa.Table, columns: list[str]) -> pa.Table:
    """The rows by where they came from, without what the schema says beyond types."""
    chosen = rows.select(columns).sort_by([("_sequence", "ascending"), ("_sub", "ascending")])
    plain = pa.schema([(field.name, field.type) for field in chosen.schema])
    return chosen.cast(plain).combine_chunks()
