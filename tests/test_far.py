"""Files of the lake are read where they lie: by ranges, of the hours and columns that are asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from infra.doubles.world import Call
from infra.views import Views
from sinks.bucket import Bucket
from sinks.lake import compact, far, manifest
from sinks.lake.far import Far
from sinks.lake.manifest import File
from sinks.lake.plan import Plan
from tests import lakes
from tests.lakes import Attempt, Verdict, World

T = TypeVar("T")
OLD = (0, 1)
HOURS = 4


@dataclass
class Watched:
    """A world that remembers which objects were read."""

    read: list[str] = field(default_factory=list)
    clock: Callable[[], float] = lambda: 0.0

    def effect(self, call: Call, act: Callable[[], T]) -> T:
        if call.operation == "GetObject":
            self.read.append(call.detail)
        return act()

    def takes(self, call: Call, key: tuple[str, str]) -> bool:  # noqa: ARG002  no table here
        return True


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture
def bucket(watched: Watched) -> Bucket:
    """A lake of four hours, a row each."""
    numbers = range(HOURS)
    world = World(
        dict.fromkeys(numbers, 1),
        {n: lakes.NOON + n for n in numbers},
        {
            (n, 0, OLD): Verdict("landing", f"d{n}", lakes.NOON + n * lakes.HOUR, bytes([n]) * 16)
            for n in numbers
        },
        (),
    )
    bucket = lakes.made(watched)
    objects = lakes.write(bucket, world, Attempt(tuple(numbers), OLD, 3), "raw/1")
    compact.compact(bucket, lakes.CONTRACT, Plan(tuple(objects), 0))
    watched.read.clear()
    return bucket


def asked(bucket: Bucket, sql: str) -> list[tuple[object, ...]]:
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        Views(bucket, db).make({"t": lakes.CONTRACT}, {"t"})
        return db.sql(sql).fetchall()


def test_a_query_for_an_hour_opens_no_other(bucket: Bucket, watched: Watched) -> None:
    files = {f.key for f in manifest.read(bucket, "t").files}
    sql = (
        """SELECT device FROM t WHERE "at" >= '2026-11-24T14:00Z' AND "at" < '2026-11-24T15:00Z'"""
    )
    assert asked(bucket, sql) == [("d2",)]
    assert len(files) == HOURS
    assert {key for key in watched.read if key in files} == {
        key for key in files if "/2026-11-24/14/" in key
    }


def test_a_query_for_all_hours_has_every_row_once(bucket: Bucket) -> None:
    assert asked(bucket, "SELECT device FROM t ORDER BY 1") == [(f"d{n}",) for n in range(HOURS)]


def test_a_column_that_files_have_not_is_null(bucket: Bucket) -> None:
    files = list(manifest.read(bucket, "t").files)
    schema = lakes.CONTRACT.landing_schema().append(pa.field("new", pa.float64()))
    rows = far.dataset(bucket, files, schema, "at").to_table()
    assert rows.num_rows == rows.column("new").null_count == HOURS
    assert rows.schema.equals(schema)


def test_a_file_is_read_as_any_file_is() -> None:
    bucket = lakes.made()
    data = bytes(range(256)) * 1_024
    bucket.put("x", data)
    file = Far(bucket, File("x", 0, len(data), 0, 0, ()))
    assert (file.readable(), file.seekable(), file.tell()) == (True, True, 0)
    assert file.seek(10) == 10
    assert file.read(5) == data[10:15]
    assert file.tell() == 15
    assert file.seek(-3, 2) == len(data) - 3
    assert file.read() == data[-3:]
    assert file.read(9) == b""
    assert file.seek(0) == 0
    assert file.read() == data
    file.seek(len(data) - far.FOOTER_BYTES - 2)
    assert file.read(6) == data[-far.FOOTER_BYTES - 2 :][:6]


def test_a_footer_takes_one_request(bucket: Bucket, watched: Watched) -> None:
    [file, *_] = manifest.read(bucket, "t").files
    watched.read.clear()
    far.dataset(bucket, [file], lakes.CONTRACT.landing_schema(), "at").to_table(
        filter=pc.field("device") == "nobody"
    )
    assert watched.read == [file.key]
    larger = replace(file, bytes=file.bytes + 1)
    with pytest.raises((OSError, pa.ArrowInvalid)):
        far.dataset(bucket, [larger], lakes.CONTRACT.landing_schema(), "at").to_table()
