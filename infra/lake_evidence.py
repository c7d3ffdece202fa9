"""What a lake's own objects say: its files row by row, and what its manifest says of them.

Everything is counted from the files as they lie there; the manifest is what they are held against.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sinks import parquet
from sinks.bucket import Bucket
from sinks.errors import Gone
from sinks.lake import manifest
from sinks.lake.manifest import File, Manifest, Partition
from sinks.lake.standing import WORDS_MODULUS, digest_of
from sinks.landing import LANDING

ORIGIN = ["_generation", "_raw", "_index", "_sub", "_child"]
"""What tells a landed row from all others; attempts that overlap write the same row again."""
FILES = pa.schema(
    [
        ("contract", pa.string()),
        ("hour", pa.int64()),
        ("key", pa.string()),
        ("is_repeat", pa.bool_()),
        ("rows", pa.int64()),
        ("bytes", pa.int64()),
        ("held_rows", pa.int64()),  # what it holds; null where there is no such object
        ("held_bytes", pa.int64()),
        ("sound", pa.bool_()),
    ]
)
PARTITIONS = pa.schema(
    [
        ("contract", pa.string()),
        ("hour", pa.int64()),
        ("rows", pa.int64()),
        ("ids", pa.int64()),
        ("conflicts", pa.int64()),
        ("digest", pa.string()),
        ("held_digest", pa.string()),
    ]
)
TAKEN = pa.schema([("contract", pa.string()), ("key", pa.string()), ("rows", pa.int64())])

Reader = Callable[[Manifest, str, parquet.File], pa.Table]
"""Rows of a lake's file, by its key and its bytes."""


@dataclass(frozen=True)
class Lakes:
    """The lakes of a bucket: rows (as the reader gives them), files, partitions, objects taken in.

    `broken` are manifests and lists that a lake needs and that are not there.
    """

    rows: Sequence[pa.Table]
    files: pa.Table
    partitions: pa.Table
    taken: pa.Table
    broken: tuple[str, ...]

    def instead(self, landed: pa.Table, there: set[str]) -> list[pa.Table]:
        """Rows of landing objects that were taken in and are not there any more.

        An object is not read again where it is: what the lake has of it is held against it.
        """
        names = zip(*(self.taken.column(n).to_pylist() for n in ("contract", "key")), strict=True)
        lost = {name for name, key in names if key.startswith(f"{LANDING}/") and key not in there}
        known, of_lost = landed.select(ORIGIN), pa.array(sorted(lost), pa.string())
        every = (rows.filter(pc.is_in(rows["_contract"], of_lost)) for rows in self.rows)
        return [rows.join(known, ORIGIN, join_type="left anti") for rows in every if rows.num_rows]


def lakes(bucket: Bucket, reader: Reader) -> Lakes:
    """Read every lake there is."""
    found = _Reading(bucket, reader)
    prefix, root = f"{manifest.PREFIX}/", "/manifest.json"
    for key in bucket.keys(prefix):
        name = key.removeprefix(prefix).removesuffix(root)
        if key.endswith(root) and "/" not in name:
            found.lake(name)
    return found.lakes()


class _Reading:
    """What was read so far."""

    def __init__(self, bucket: Bucket, reader: Reader) -> None:
        self._bucket, self._reader = bucket, reader
        self._rows: list[pa.Table] = []
        self._files: list[dict[str, Any]] = []
        self._partitions: list[dict[str, Any]] = []
        self._taken: list[dict[str, Any]] = []
        self._broken: list[str] = []

    def lake(self, name: str) -> None:
        try:
            lake = manifest.read(self._bucket, name)
        except Gone:
            self._broken.append(f"{manifest.PREFIX}/{name}/manifest.json")
            return
        for known in lake.absorbed:
            self._list(lake, known.key)
        for part in lake.partitions:
            self._partition(lake, part)

    def lakes(self) -> Lakes:
        return Lakes(
            self._rows,
            pa.Table.from_pylist(self._files, FILES),
            pa.Table.from_pylist(self._partitions, PARTITIONS),
            pa.Table.from_pylist(self._taken, TAKEN),
            tuple(self._broken),
        )

    def _list(self, lake: Manifest, key: str) -> None:
        try:
            rows = parquet.decode(self._bucket.get(key)).select(["key", "rows"]).to_pylist()
        except Gone:
            self._broken.append(key)
            return
        self._taken += [{"contract": lake.contract, **row} for row in rows]

    def _partition(self, lake: Manifest, part: Partition) -> None:
        digest = sum(self._file(lake, part, file, is_repeat=False) for file in part.files)
        for file in part.repeats:
            self._file(lake, part, file, is_repeat=True)
        told = {name: getattr(part, name) for name in PARTITIONS.names[1:-1]}
        held = f"{digest % WORDS_MODULUS:016x}"
        self._partitions.append({"contract": lake.contract, **told, "held_digest": held})

    def _file(self, lake: Manifest, part: Partition, file: File, *, is_repeat: bool) -> int:
        """Read a file; the digest of its rows."""
        told = {name: getattr(file, name) for name in ("key", "rows", "bytes")}
        told |= {"contract": lake.contract, "hour": part.hour, "is_repeat": is_repeat}
        self._files.append(told)
        data = self._bucket.find(file.key)
        if data is None:
            return 0
        sound = hashlib.sha256(data).hexdigest() == file.key.rpartition("/")[2].partition(".")[0]
        told |= {"held_bytes": len(data), "sound": sound}
        try:
            rows = self._reader(lake, file.key, parquet.File(data))
        except (pa.ArrowException, OSError):
            return 0
        told["held_rows"] = rows.num_rows
        self._rows.append(rows)
        return digest_of(rows)
