"""A device leaves the lake: its rows are in no file, and no manifest names a file that had them.

    files without the device ──▶ commit ──▶ publish ──▶ delete files that have it, their manifests

There is always a commit, even of a lake that has nothing of it: a compaction that began before may
have read what landing had then, and it is that one which must begin again. What was asked of an
older manifest can be asked again only where none of its files had the device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sinks.bucket import Bucket
from sinks.lake import manifest
from sinks.lake.files import Files, place
from sinks.lake.manifest import ABSORBED, PREFIX, Absorbed, File, Manifest, Partition, Raced
from sinks.lake.standing import WORDS_MODULUS, digest_of
from sinks.lake.workspace import Workspace, workspace
from sinks.parquet import File as Parquet
from transform.contract import Contract
from transform.records import ROW_FIELDS

PART_ROWS = 122_880
RACES_MAX = 5  # compactions that were faster
KINDS = ("data", "repeats")
LINEAGE = pa.schema(ROW_FIELDS)


@dataclass(frozen=True)
class Mark:
    """An object of dropped that says which elements of a generation are erased."""

    key: str
    rows: int
    last_arrival: int
    generation: str


@dataclass(frozen=True)
class Erased:
    """Which version is without it, and what was deleted."""

    version: int
    files: list[str]
    manifests: list[str]


def rows_of(bucket: Bucket, contract: Contract, device: str) -> Iterator[tuple[str, pa.Table]]:
    """A device's rows in files of the lake, whoever names these, by their keys (`ROW_FIELDS`)."""
    for kind in KINDS:
        for key in bucket.keys(f"{PREFIX}/{contract.name}/{kind}/"):
            data = bucket.find(key)
            if data is None:  # deleted since, by whoever keeps house
                continue
            file = Parquet(data)
            own = pc.equal(file.read([contract.device]).column(0), device)
            if pc.any(own).as_py():
                yield key, file.read(LINEAGE.names).select(LINEAGE.names).filter(own).cast(LINEAGE)


def erase(  # noqa: PLR0913, PLR0917  whom of what, and what else there is to do
    bucket: Bucket,
    contract: Contract,
    device: str,
    marks: Sequence[Mark],
    now: int,
    publish: Callable[[], None],
) -> Erased:
    """Take a device out of a lake. Raises `Raced`, a `SinkError`; again goes on with it.

    The lake knows the marks from the same commit on. `publish` is called between the commit and the
    deletion: whatever else lists the files must do so no longer. `now` is in microseconds since
    1970.
    """
    for _ in range(RACES_MAX):
        lake = manifest.read(bucket, contract.name)
        with workspace(bucket) as work:
            out = _Out(work, contract, device)
            parts = tuple(part for old in lake.partitions if (part := out.without(old)).files)
        lists = _with_marks(bucket, lake, marks, now)
        try:
            new = replace(lake, made_at=now, partitions=parts, absorbed=lists)
            committed = manifest.commit(bucket, lake, new)
        except Raced:
            continue
        publish()
        files, manifests = _sweep(bucket, contract, device, committed)
        return Erased(committed.version, files, manifests)
    raise Raced(f"{contract.name}: compactions were faster each time; stop them meanwhile")


class _Out:
    """Partitions without a device, their files written."""

    def __init__(self, work: Workspace, contract: Contract, device: str) -> None:
        self._work, self._contract, self._device = work, contract, device

    def without(self, old: Partition) -> Partition:
        """A seal stays: nothing is in the hour that was not when it was sealed."""
        gone: list[pa.Table] = []
        files = self._files("data", old.hour, old.files, gone)
        repeats = self._files("repeats", old.hour, old.repeats, [])
        if not gone:
            return replace(old, repeats=repeats)
        rows = pa.concat_tables(gone)
        by_id = Counter(rows.column("_record_id").to_pylist())
        return replace(
            old,
            rows=old.rows - rows.num_rows,
            ids=old.ids - len(by_id),
            conflicts=old.conflicts - sum(count > 1 for count in by_id.values()),
            digest=f"{(int(old.digest, 16) - digest_of(rows)) % WORDS_MODULUS:016x}",
            files=files,
            repeats=repeats,
        )

    def _files(
        self, kind: str, hour: int, files: Sequence[File], gone: list[pa.Table]
    ) -> tuple[File, ...]:
        return tuple(made for one in files for made in self._file(kind, hour, one, gone))

    def _file(self, kind: str, hour: int, old: File, gone: list[pa.Table]) -> list[File]:
        """A file as it is, or what is left of it."""
        bucket, name = self._work.bucket, self._contract.name
        data = bucket.get(old.key)
        held, schema = Parquet(data), pq.read_schema(pa.BufferReader(data))
        own = pc.equal(held.read([self._contract.device]).column(0), self._device)
        if not pc.any(own).as_py():
            return [old]
        gone.append(held.read(["_record_id", "_digest"]).filter(own))
        left = Files(bucket, self._work.folder, place(name, kind, hour), schema)
        for rows in held.parts(held.names, PART_ROWS):
            others = pc.not_equal(rows.column(self._contract.device), self._device)
            left.write(rows.filter(others))
        left.close()
        return left.made


def _with_marks(
    bucket: Bucket, lake: Manifest, marks: Sequence[Mark], now: int
) -> tuple[Absorbed, ...]:
    """A lake's lists of absorbed objects with the marks in them, each once."""
    known = manifest.taken_in(bucket, lake.absorbed)
    lists = {one.hour: one for one in lake.absorbed}
    for mark in marks:
        if mark.key in known:
            continue
        hour = manifest.arrival_hour(mark.key)
        row = {"key": mark.key, "rows": mark.rows, "absorbed_at": now}
        table = pa.Table.from_pylist([row], schema=ABSORBED)
        more = Absorbed(hour, "", 0, mark.last_arrival, (mark.generation,))
        with_it = replace(lake, absorbed=tuple(lists.values()))
        lists[hour] = manifest.absorb(bucket, with_it, more, table)
    return tuple(lists[hour] for hour in sorted(lists))


def _sweep(
    bucket: Bucket, contract: Contract, device: str, lake: Manifest
) -> tuple[list[str], list[str]]:
    """Delete files that have a device and manifests that name them; which these were.

    Nobody is about to name such a file: who wrote it had begun before the commit.
    """
    files = [key for key, _ in rows_of(bucket, contract, device)]
    history = manifest.history(bucket, contract.name)
    gone = set(files)
    manifests = [
        key
        for key, one in history.items()
        if one != lake
        and any(f.key in gone for p in one.partitions for f in (*p.files, *p.repeats))
    ]
    bucket.delete(manifests)
    bucket.delete(files)
    return files, manifests
