"""Files of the lake where they lie: what a query does not need of them is not fetched.

An Arrow dataset whose files are read by ranges. Which hour a file is of is said beforehand, so a
query for some hours opens no others; in a file, columns and row groups are chosen by its footer.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from sinks.lake.manifest import File

if TYPE_CHECKING:
    from sinks.bucket import Bucket

FOOTER_BYTES = 65_536  # read at once from a file's end: most footers are smaller
HOUR = timedelta(hours=1)


class Far(io.RawIOBase):
    """An object of known size as a file, read by ranges."""

    def __init__(self, bucket: Bucket, file: File) -> None:
        super().__init__()
        self._bucket, self._file = bucket, file
        self._at = 0
        self._end: bytes | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.bytes}[whence]
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        stop = self._file.bytes if size is None or size < 0 else self._at + size
        data = self._part(self._at, min(stop, self._file.bytes))
        self._at += len(data)
        return data

    def _part(self, start: int, stop: int) -> bytes:
        kept = max(self._file.bytes - FOOTER_BYTES, 0)
        if start < kept:
            return self._bucket.part(self._file.key, start, stop)
        if self._end is None:
            self._end = self._bucket.part(self._file.key, kept, self._file.bytes)
        return self._end[start - kept : stop - kept]


def dataset(
    bucket: Bucket, files: Iterable[File], schema: pa.Schema, event_time: str
) -> ds.Dataset:
    """These files as one table with a schema's columns; what a file has not is null in its rows."""
    form = ds.ParquetFileFormat()
    fragments = [
        form.make_fragment(
            pa.PythonFile(Far(bucket, file), mode="r"),
            partition_expression=_within(file, event_time),
        )
        for file in files
    ]
    return ds.FileSystemDataset(fragments, schema, form)


def _within(file: File, event_time: str) -> pc.Expression:
    """What is true of every row of a file, by where it is: `.../2026-11-24/12/<sha256>.parquet`."""
    day, hour = file.key.split("/")[-3:-1]
    start = datetime.fromisoformat(day).replace(hour=int(hour), tzinfo=UTC)
    first, last = (
        pa.scalar(moment, pa.timestamp("us", tz="UTC")) for moment in (start, start + HOUR)
    )
    field = pc.field(event_time)
    return (field >= first) & (field < last)
