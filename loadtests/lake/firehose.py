"""The same rows as Data Firehose would leave them: snappy, unsorted, under arrival prefixes.

Format conversion as it is set up by default, written by pyarrow with its own defaults: dictionaries
and statistics of every column, a row group of all rows. Each source record is in it once, as is not
promised: what a producer repeats, it repeats. What differs is when a buffer is full.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from loadtests.lake import folder
from loadtests.lake.landed import Made
from loadtests.lake.oracle import SECONDS_AN_HOUR
from transform.devices import MICROS

BUFFER_BYTES = 128 * 2**20  # of JSON: the default of the console; its interval is left out


@dataclass(frozen=True)
class Layout:
    """Files of the same rows, each with the arrival hour (since 1970) of its last row."""

    name: str
    files: Sequence[tuple[int, Path]]
    rows: int

    @property
    def paths(self) -> list[str]:
        return [str(path) for _, path in self.files]

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for _, path in self.files)

    def since(self, hour: int) -> list[str]:
        """Files that may have rows of an event hour: nothing arrives before it happens.

        Prefixes say when a file was begun; that its end is known is in Firehose's favour.
        """
        return [str(path) for at, path in self.files if at >= hour]


def small(root: Path, made: Made, out: Path) -> Layout:
    """A file for each Delivery: a buffer that is emptied by its interval."""
    return _layout("Firehose, a file a Delivery", (_read(root, [key]) for key in made.firsts), out)


def large(root: Path, made: Made, out: Path) -> Layout:
    """A file for each 128 MB of JSON: the best that Firehose's defaults can come to."""
    sent = sum(tally.rows for tally in made.oracle.totals(repeated=True).values())
    full = math.floor(BUFFER_BYTES / (made.oracle.body_bytes / sent))
    return _layout("Firehose, 128 MB buffers", _buffers(root, made, full), out)


def _buffers(root: Path, made: Made, full: int) -> Iterator[pa.Table]:
    rows = {attempt.landing_key: attempt.landing_rows for attempt in made.attempts}
    held: list[str] = []
    for key in made.firsts:
        held.append(key)
        if sum(rows[one] for one in held) >= full:
            yield _read(root, held)
            held = []
    if held:
        yield _read(root, held)


def _layout(name: str, tables: Iterator[pa.Table], out: Path) -> Layout:
    files, rows = [], 0
    for number, table in enumerate(tables):
        first, last = _seconds(pc.min_max(table["_arrival"]))
        at = datetime.fromtimestamp(first, UTC)
        file = out / f"{at:%Y/%m/%d/%H}/readings-1-{at:%Y-%m-%d-%H-%M-%S}-{number:08d}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, file, compression="snappy", store_schema=False)
        files.append((last // SECONDS_AN_HOUR, file))
        rows += table.num_rows
    return Layout(name, files, rows)


def _seconds(span: pa.StructScalar) -> tuple[int, int]:
    first, last = (span[end].cast(pa.int64()).as_py() // MICROS for end in ("min", "max"))
    return first, last


def _read(root: Path, keys: Sequence[str]) -> pa.Table:
    tables = [pq.ParquetFile(folder.path(root, key)).read() for key in keys]
    table = pa.concat_tables(tables, promote_options="default")
    return table.replace_schema_metadata(None)
