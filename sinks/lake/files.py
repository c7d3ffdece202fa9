"""Files of the lake: sorted rows as Parquet that engines can skip through.

Beside what `sinks.parquet` says of columns: rows lie in groups of some hundred thousand, each with
statistics of its columns and a page index, so that a reader of one device, or of some minutes, of
an hour reads what it needs. Ids and sequence numbers of sorted rows are mostly those of the row
before, and are written as what differs. Here zstd pays everywhere: a file is written once, kept
long, and read often.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sinks.bucket import Bucket
from sinks.lake.manifest import PREFIX, File
from sinks.lake.standing import digest_of
from sinks.parquet import counted
from transform.records import ConservationError

GROUP_ROWS = 122_880
BYTES_MAX = 256 * 2**20  # of a file, about: between 128 and 512 MB engines read best
ZSTD_LEVEL = 3
PREFIXED = ("_record_id", "_sequence")  # texts that begin as those of the row before


@dataclass
class Begun:
    """A file that is being written, and what is known of its rows."""

    path: Path
    writer: pq.ParquetWriter
    rows: int = 0
    digest: int = 0
    first_arrival: int = 2**63 - 1
    last_arrival: int = -(2**63)
    generations: frozenset[str] = frozenset()


class Files:
    """Rows of one hour, given in order, as files in a bucket. `kind` is `data` or `repeats`.

    Use it as a context: at its end `made` has the files, each verified by what was read back.
    """

    def __init__(self, bucket: Bucket, folder: Path, where: str, schema: pa.Schema) -> None:
        self._bucket, self._folder, self._where = bucket, folder, where
        self._schema = schema
        self._begun: Begun | None = None
        self.made: list[File] = []

    def write(self, rows: pa.Table) -> None:
        if not rows.num_rows:
            return
        begun = self._begun = self._begun or self._begin()
        begun.writer.write_table(rows, row_group_size=GROUP_ROWS)
        ends = pc.min_max(rows.column("_arrival"))
        begun.rows += rows.num_rows
        begun.digest += digest_of(rows)
        begun.first_arrival = min(begun.first_arrival, ends["min"].value)
        begun.last_arrival = max(begun.last_arrival, ends["max"].value)
        begun.generations |= set(pc.unique(rows.column("_generation")).to_pylist())
        if begun.path.stat().st_size >= BYTES_MAX:
            self.close()

    def close(self) -> None:
        """End the file that is being written, if one is, and put it. Raises a `SinkError`."""
        begun, self._begun = self._begun, None
        if begun is None:
            return
        begun.writer.close()
        _verify(begun)
        data = begun.path.read_bytes()
        begun.path.unlink()
        key = f"{self._where}/{hashlib.sha256(data).hexdigest()}.parquet"
        self._bucket.put_absent(key, data)
        self.made.append(
            File(
                key,
                begun.rows,
                len(data),
                begun.first_arrival,
                begun.last_arrival,
                tuple(sorted(begun.generations)),
            )
        )

    def _begin(self) -> Begun:
        path = self._folder / f"writing-{len(self.made)}-{self._where.replace('/', '_')}"
        return Begun(path, pq.ParquetWriter(path, self._schema, **_settings(self._schema)))


def place(contract: str, kind: str, hour: int) -> str:
    """Where files of an hour are, by what they hold: `data` or `repeats`."""
    day, of_day = divmod(hour, 24)
    date = pa.scalar(day, pa.int32()).cast(pa.date32()).as_py()
    return f"{PREFIX}/{contract}/{kind}/{date}/{of_day:02}"


def _verify(begun: Begun) -> None:
    """Read back which rows a file holds. Raises `ConservationError` where they are others."""
    file = pq.ParquetFile(begun.path)
    rows, digest = 0, 0
    for part in _parts(file):
        rows += part.num_rows
        digest += digest_of(part)
    if (rows, digest % 2**64) != (begun.rows, begun.digest % 2**64):
        raise ConservationError(f"a file of the lake holds {rows} of {begun.rows} rows")


def _parts(file: pq.ParquetFile) -> Iterator[pa.Table]:
    for batch in file.iter_batches(GROUP_ROWS, columns=["_digest"], use_threads=False):
        yield pa.Table.from_batches([batch])


def _settings(schema: pa.Schema) -> dict[str, object]:
    packed = [f.name for f in schema if not (counted(f.type) or f.name == "_digest")]
    encodings = {f.name: "DELTA_BINARY_PACKED" for f in schema if counted(f.type)}
    encodings |= dict.fromkeys(PREFIXED, "DELTA_BYTE_ARRAY")
    return {
        "compression": {f.name: "zstd" if f.name in packed else "none" for f in schema},
        "compression_level": dict.fromkeys(packed, ZSTD_LEVEL),
        "use_dictionary": [n for n in packed if n not in PREFIXED],
        "column_encoding": encodings,
        "write_page_index": True,
    }
