"""Public shapes of messages, by contracts written from the reference alone.

`tests/shapes/` has for each a contract, messages (a source record on each line) and the rows they
come to. The real messages of ../shared are by the shipped contract.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from transform.contract_file import load_contract
from transform.pipeline import Transform
from transform.records import Batch, Delivery
from transform.timestamps import parse_timestamp

HERE = Path(__file__).parent / "shapes"
SENSORS = Path(__file__).parents[2] / "shared" / "data" / "environment-sensors.ndjson"
SHAPES = sorted(path.stem for path in HERE.glob("*.toml"))
ARRIVAL = parse_timestamp("2025-11-24T16:05:00Z", "iso8601")


def batch_of(contract: str, bodies: list[bytes]) -> Batch:
    count = len(bodies)
    delivery = Delivery(
        source="kinesis",
        stream="s",
        shards=["shard-0"] * count,
        sequences=[str(number) for number in range(count)],
        groups=["key"] * count,
        arrivals=[ARRIVAL] * count,
        attributes=[None] * count,
        bodies=bodies,
    )
    return Transform(load_contract(contract)).apply(delivery.table(), "raw/x")


def messages(shape: str) -> list[bytes]:
    return (HERE / f"{shape}.messages.ndjson").read_bytes().splitlines()


def outcomes(shape: str) -> list[dict[str, Any]]:
    """Every row, reject and mark of a shape's messages, in the order of their places."""
    batch = batch_of(str(HERE / f"{shape}.toml"), messages(shape))
    found = [one for of in (batch.rows, batch.rejects, batch.drops) for one in of.to_pylist()]
    found.sort(key=lambda one: (one["_index"], one["_sub"], one["_child"]))
    return [dict(_told(one)) for one in found]


def _told(row: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "at", f"{row['_index']}.{row['_child']}"
    for mark in ("_rule", "_reason", "_field", "_detail", "_record_id", "_rescued"):
        if row.get(mark) is not None:
            yield mark, row[mark]
    for name, value in row.items():
        if not name.startswith("_") and value is not None:
            yield name, value.isoformat() if isinstance(value, datetime) else value


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_comes_out_as_its_rows_say(shape):
    expected = (HERE / f"{shape}.rows.ndjson").read_text(encoding="utf-8").splitlines()
    assert outcomes(shape) == [json.loads(line) for line in expected]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_shows_what_is_kept_and_what_is_not(shape):
    kinds = {"_record_id", "_reason", "_rule"} - ({"_rule"} if shape == "senml" else set())
    assert kinds <= {key for outcome in outcomes(shape) for key in outcome}


@pytest.mark.skipif(not SENSORS.exists(), reason="the real messages are not here")
def test_the_real_messages_come_out_whole():
    bodies = SENSORS.read_bytes().splitlines()
    batch = batch_of("environment-sensors", bodies)
    assert (batch.rows.num_rows, batch.rejects.num_rows) == (len(bodies), 0)
    assert batch.rows.column("_rescued").null_count == len(bodies)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_goes_through_the_whole_path(shape, tmp_path):
    """`millrace ingest` accounts for every message as its rows say."""
    file, contract = (str(HERE / f"{shape}{end}") for end in (".messages.ndjson", ".toml"))
    command = ["ingest", file, "--contract", contract, "--state", str(tmp_path), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli", *command],
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    account = json.loads(done.stdout.splitlines()[-1])
    rows = outcomes(shape)
    fates: dict[str, set[str]] = {}
    for row in rows:
        fates.setdefault(row["at"].partition(".")[0], set()).update(row)
    bad = {at for at, marks in fates.items() if "_reason" in marks}
    good = {at for at, marks in fates.items() if "_record_id" in marks} - bad
    assert account["unaccounted"] == 0
    assert account["sent"] == len(fates)
    assert account["quarantined"]["total"] == len(bad)
    assert account["delivered"] == len(good)
    assert account["dropped"] == len(fates) - len(bad) - len(good)
    assert account["parquet_rows"] == sum("_record_id" in row for row in rows)
