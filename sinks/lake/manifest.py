"""The manifest: which files are the lake of a contract, and which objects they have taken in.

    lake/<contract>/manifest.json                which manifest counts; replaced only by who read it
    lake/<contract>/manifests/<sha256>.json      a manifest, never replaced
    lake/<contract>/absorbed/<sha256>.parquet    keys of objects that the lake has taken in

A reader reads the manifest first, then lists landing: an object that is listed and not absorbed is
fresh. A commit replaces one small object on the condition that nobody else did, so readers see the
lake as it was or as it is, and of two committers one begins again. Older manifests stay as long as
their files: what a query answered then can be asked again.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import msgspec
import pyarrow as pa

from sinks import parquet
from sinks.bucket import Bucket
from sinks.landing import DROPPED, LANDING, QUARANTINE

PREFIX = "lake"
ABSORBED = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("absorbed_at", pa.int64(), nullable=False),  # microseconds since 1970
    ]
)


class Raced(RuntimeError):
    """Another committer was faster; what was written is nobody's, and to be made again."""


@dataclass(frozen=True)
class File:
    """A Parquet file of one event hour; arrivals are its rows', in microseconds since 1970."""

    key: str
    rows: int
    bytes: int
    first_arrival: int
    last_arrival: int
    generations: tuple[str, ...]


@dataclass(frozen=True)
class Seal:
    """That a partition was final as of a moment; `missing` records were known not to be in it.

    Times are microseconds since 1970: `as_of` of arrival, `sealed_at` of the sealer's clock. An
    `exact` one knew of every source how far it was; else some sources tell it only by their age.
    """

    as_of: int
    sealed_at: int
    exact: bool
    missing: int


@dataclass(frozen=True)
class Partition:
    """One hour of event time, since 1970 UTC, and the files that are it.

    `digest` is the sum, modulo 2**64, of the little-endian 8-byte words of its rows' `_digest`: the
    same for the same rows in any order. `conflicts` are ids that stand for rows of different bytes.
    """

    hour: int
    rows: int
    ids: int
    conflicts: int
    digest: str
    files: tuple[File, ...]
    repeats: tuple[File, ...] = ()
    seal: Seal | None = None

    @property
    def last_arrival(self) -> int:
        return max((file.last_arrival for file in self.files), default=0)


@dataclass(frozen=True)
class Absorbed:
    """Objects of one arrival hour (`2026-11-24/12`) that the lake has taken in, in a list.

    `marks_until` is the newest arrival in those of quarantine and dropped, 0 where there are none,
    and `marked_by` are the generations that made them.
    """

    hour: str
    key: str
    objects: int
    marks_until: int = 0
    marked_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """The lake of a contract at one moment. Version 0 is that of nothing."""

    contract: str
    version: int = 0
    made_at: int = 0
    settled_until: int = 0  # attempts that settled before are absorbed; microseconds since 1970
    partitions: tuple[Partition, ...] = ()  # by hour
    absorbed: tuple[Absorbed, ...] = ()  # by hour
    columns: str = ""  # every file's, as Arrow writes a schema, in base64
    contracts: dict[str, str] = field(default_factory=dict, hash=False)
    """Digests of the contracts behind rows, by their generations."""

    @cached_property
    def schema(self) -> pa.Schema | None:
        """Every column that a file has, as its version declared it. None of an empty lake."""
        return pa.ipc.read_schema(pa.py_buffer(b64decode(self.columns))) if self.columns else None

    def with_schema(self, schema: pa.Schema) -> Manifest:
        """The same, with these columns."""
        return replace(self, columns=b64encode(schema.serialize()).decode())

    @cached_property
    def by_hour(self) -> dict[int, Partition]:
        return {partition.hour: partition for partition in self.partitions}

    @property
    def files(self) -> Iterator[File]:
        """The files that are read as records."""
        for partition in self.partitions:
            yield from partition.files

    @property
    def rows(self) -> int:
        return sum(partition.rows for partition in self.partitions)

    def sealed(self) -> Manifest:
        """The same, of sealed partitions alone."""
        return replace(self, partitions=tuple(p for p in self.partitions if p.seal))

    def within(self, hours: Collection[int]) -> Manifest:
        """The same, of some hours alone."""
        return replace(self, partitions=tuple(p for p in self.partitions if p.hour in hours))


def read(bucket: Bucket, contract: str) -> Manifest:
    """The manifest that counts; an empty one where there is none."""
    root = bucket.find(_root_key(contract))
    return Manifest(contract) if root is None else at(bucket, _Root.of(root).manifest)


def at(bucket: Bucket, key: str) -> Manifest:
    """A manifest by its key. Raises `Gone`."""
    return msgspec.json.decode(bucket.get(key), type=Manifest)


def commit(bucket: Bucket, old: Manifest, new: Manifest) -> Manifest:
    """Make `new` count instead of `old`, in one step; returns it with its version.

    Raises `Raced` where `old` counts no longer.
    """
    new = replace(new, version=old.version + 1)
    key = key_of(new)
    bucket.put_absent(key, _encoded(new))
    fresh = _Root(new.version, key)

    def change(held: bytes | None) -> bytes:
        counts = _Root.of(held) if held is not None else _Root(0, "")
        if counts.version != old.version and counts != fresh:  # ours, and the answer was lost
            raise Raced(f"{new.contract}: version {counts.version} was committed meanwhile")
        return msgspec.json.encode(fresh)

    bucket.change(_root_key(new.contract), change)
    return new


def key_of(manifest: Manifest) -> str:
    """Where a committed manifest is kept."""
    digest = hashlib.sha256(_encoded(manifest)).hexdigest()
    return f"{PREFIX}/{manifest.contract}/manifests/{digest}.json"


def history(bucket: Bucket, contract: str) -> dict[str, Manifest]:
    """Every manifest that is kept, by key and in order; one that lost a race may be among them."""
    found = {key: at(bucket, key) for key in bucket.keys(f"{PREFIX}/{contract}/manifests/")}
    return dict(sorted(found.items(), key=lambda one: (one[1].version, one[1].made_at)))


def taken_in(bucket: Bucket, lists: Iterable[Absorbed]) -> set[str]:
    """The keys that lists name."""
    return set(absorbed_keys(bucket, lists).column("key").to_pylist())


def absorbed_keys(bucket: Bucket, lists: Iterable[Absorbed]) -> pa.Table:
    """What lists name (`ABSORBED`)."""
    tables = [parquet.decode(bucket.get(one.key)) for one in lists]
    return pa.concat_tables([ABSORBED.empty_table(), *tables])


def absorb(bucket: Bucket, manifest: Manifest, more: Absorbed, objects: pa.Table) -> Absorbed:
    """Write the list of an arrival hour with some more objects (`ABSORBED`) in it.

    `more` says what these add to the list that there is; its key and count do not matter.
    """
    held = [one for one in manifest.absorbed if one.hour == more.hour]
    table = pa.concat_tables([absorbed_keys(bucket, held), objects])
    data = parquet.encode(table.sort_by("key").combine_chunks())
    key = f"{PREFIX}/{manifest.contract}/absorbed/{hashlib.sha256(data).hexdigest()}.parquet"
    bucket.put_absent(key, data)
    return Absorbed(
        more.hour,
        key,
        table.num_rows,
        max(one.marks_until for one in (more, *held)),
        tuple(sorted({name for one in (more, *held) for name in one.marked_by})),
    )


def arrival_hour(key: str) -> str:
    """The arrival hour that an object is under: `2026-11-24/12`."""
    return "/".join(key.split("/")[-3:-1])


def sources(contract: str) -> tuple[str, str, str]:
    """Where the objects are that a lake is made of: landing, quarantine, dropped."""
    return tuple(f"{kind}/{contract}/" for kind in (LANDING, QUARANTINE, DROPPED))  # type: ignore[return-value]


@dataclass(frozen=True)
class _Root:
    version: int
    manifest: str

    @classmethod
    def of(cls, data: bytes) -> _Root:
        return msgspec.json.decode(data, type=cls)


def _encoded(manifest: Manifest) -> bytes:
    return msgspec.json.encode(manifest)


def _root_key(contract: str) -> str:
    return f"{PREFIX}/{contract}/manifest.json"
