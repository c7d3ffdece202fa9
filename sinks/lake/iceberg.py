"""The lake as tables of Apache Iceberg: a manifest's files, as Athena, Spark and others read them.

The manifest is the truth and Iceberg its face: after each commit the table is made to hold exactly
the manifest's files, in one snapshot that says which manifest it is of. Whoever reads a snapshot
reads one manifest, whatever is compacted meanwhile; a publication that was cut short is made up for
by the next. Imports pyiceberg, which takes a second: only what publishes imports this module.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from pyiceberg.exceptions import CommitFailedException, NoSuchTableError

from sinks.errors import Gone, Misconfigured, Unavailable, translated
from sinks.lake import iceberg_files, iceberg_table
from sinks.lake.columns import united
from sinks.lake.iceberg_files import Footer, Wanted
from sinks.lake.manifest import PREFIX, Manifest, key_of
from transform.contract import Contract

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table, Transaction
    from pyiceberg.table.snapshots import Snapshot

NAMESPACE = "millrace"
VERSION = "millrace.version"  # of the manifest that a snapshot is of
MANIFEST = "millrace.manifest"  # ... and where that is kept
SEALED = "millrace.sealed"  # ... and how many of its hours were sealed
HINT = "metadata/version-hint.text"  # for readers without a catalog: DuckDB, StaticTable
RACES_MAX = 5


@dataclass(frozen=True)
class Target:
    """Where a contract's lake is published. `url` is the bucket's: `s3://name`.

    With `sealed_only` it is a table of sealed hours alone, in a namespace of its own.
    """

    catalog: Catalog
    url: str
    contract: Contract
    sealed_only: bool = False
    namespace: str = NAMESPACE

    @property
    def identifier(self) -> str:
        """The table's name: `millrace.environment_sensors`, or `millrace_sealed....`."""
        namespace = f"{self.namespace}_sealed" if self.sealed_only else self.namespace
        return f"{namespace}.{self.contract.name.replace('-', '_')}"

    @property
    def location(self) -> str:
        """Where Iceberg's own files are; what it lists lies elsewhere, under `data/`."""
        kind = "iceberg-sealed" if self.sealed_only else "iceberg"
        return f"{self.url}/{PREFIX}/{self.contract.name}/{kind}"


@dataclass(frozen=True)
class Published:
    """What became of a publication: the version that the table shows, and files that changed."""

    table: str
    version: int
    added: int = 0
    removed: int = 0


def publish(target: Target, manifest: Manifest) -> Published:
    """Make the table show exactly the manifest's files. Nothing to do where it does so already.

    A manifest that is older than what was ever shown changes nothing: its publisher was overtaken.
    Raises `Unavailable`, `Misconfigured`, `Clash`, `iceberg_files.Unlike`.
    """
    for _ in range(RACES_MAX):
        try:
            with _translated(f"publish {target.identifier}"):
                return _publish(target, manifest)
        except CommitFailedException:  # another publisher was faster: look again
            continue
    raise Unavailable(f"publish {target.identifier}: other publishers kept it busy")


def versions(table: Table) -> dict[int, int]:
    """Which snapshot shows which version of the manifest, of those that are kept."""
    shown = ((_version(snapshot), snapshot.snapshot_id) for snapshot in table.snapshots())
    return {version: snapshot_id for version, snapshot_id in shown if version}


def expire(target: Target, before: datetime) -> int:
    """Forget what the table showed before; returns how many snapshots that were.

    What it shows now stays. Iceberg's own files that only those snapshots had are removed, a lake
    file never: which of them may go, the manifest and `needed` say. Raises as `publish` does.
    """
    with _translated(f"expire {target.identifier}"):
        table = _found(target)
        if table is None:
            return 0
        held = table.snapshots()
        try:
            table.maintenance.expire_snapshots().older_than(before).commit()
        except CommitFailedException as error:
            raise Unavailable(f"expire {target.identifier}: {error}") from error
        table.refresh()
        kept = set(_own_files(table, table.snapshots()))
        gone = [one for one in held if table.snapshot_by_id(one.snapshot_id) is None]
        for location in set(_own_files(table, gone)) - kept:
            table.io.delete(location)
        _hint(table)
    return len(gone)


def needed(target: Target) -> frozenset[str]:
    """Keys of the lake files that some snapshot still lists; none of them may be removed."""
    with _translated(f"read {target.identifier}"):
        table = _found(target)
        listed = _listed(table, table.snapshots()) if table else {}
    return frozenset(location.removeprefix(f"{target.url}/") for location in listed)


def _publish(target: Target, manifest: Manifest) -> Published:
    schema = target.contract.landing_schema()
    table = iceberg_table.opened(
        target.catalog, target.identifier, target.location, target.contract, schema
    )
    shown = max(map(_version, table.snapshots()), default=0)
    if manifest.version < shown:
        return Published(target.identifier, shown)
    due = manifest.version > 0 and not _shows(table, manifest)
    change = _change(target, table, manifest) if due else _Change([], [])
    with table.transaction() as transaction:
        schema = united([schema, *(footer.schema for footer in change.fresh)])
        iceberg_table.grow(transaction, target.contract, schema)
        if due:
            _commit(transaction, table, manifest, change)
    _hint(table)
    return Published(target.identifier, manifest.version, len(change.fresh), len(change.stale))


class _Change(NamedTuple):
    """Files that a table does not show and should, and that it shows and should not."""

    fresh: list[Footer]
    stale: list[DataFile]


def _change(target: Target, table: Table, manifest: Manifest) -> _Change:
    current = table.current_snapshot()
    held = _listed(table, [current] if current else [])
    wanted = _wanted(target, manifest)
    return _Change(
        iceberg_files.footers(table.io, [wanted[name] for name in wanted if name not in held]),
        [held[name] for name in held if name not in wanted],
    )


def _commit(transaction: Transaction, table: Table, manifest: Manifest, change: _Change) -> None:
    """One snapshot: what comes and goes, and of which manifest it is."""
    update = partial(transaction.update_snapshot, _said(manifest))
    with update().overwrite() if change.stale else update().merge_append() as snapshot:
        for footer in change.fresh:
            snapshot.append_data_file(iceberg_files.listed(transaction.table_metadata, footer))
        for file in change.stale:
            snapshot.delete_data_file(file)
    if change.stale and _lists(transaction, table) > iceberg_table.LISTS_MAX:
        update().merge_append().commit()  # of nothing: overwriting never merges Iceberg's lists


def _lists(transaction: Transaction, table: Table) -> int:
    snapshot = transaction.table_metadata.current_snapshot()
    return len(snapshot.manifests(table.io)) if snapshot else 0


def _wanted(target: Target, manifest: Manifest) -> dict[str, Wanted]:
    """What the table is to show, by location."""
    visible = manifest.sealed() if target.sealed_only else manifest
    return {
        f"{target.url}/{file.key}": Wanted(f"{target.url}/{file.key}", partition.hour, file)
        for partition in visible.partitions
        for file in partition.files
    }


def _said(manifest: Manifest) -> dict[str, str]:
    sealed = sum(1 for partition in manifest.partitions if partition.seal)
    return {
        VERSION: str(manifest.version),
        MANIFEST: key_of(manifest),
        SEALED: f"{sealed}/{len(manifest.partitions)}",
    }


def _shows(table: Table, manifest: Manifest) -> bool:
    """Whether nobody, not even another writer, has shown anything else since."""
    snapshot = table.current_snapshot()
    return snapshot is not None and _noted(snapshot, MANIFEST) == key_of(manifest)


def _version(snapshot: Snapshot) -> int:
    return int(_noted(snapshot, VERSION) or 0)


def _noted(snapshot: Snapshot, name: str) -> str | None:
    return snapshot.summary.additional_properties.get(name) if snapshot.summary else None


def _hint(table: Table) -> None:
    """Say which metadata file counts, to readers that have the bucket and no catalog."""
    name = table.metadata_location.rpartition("/")[2].removesuffix(".metadata.json").encode()
    location = f"{table.location()}/{HINT}"
    held = table.io.new_input(location)
    if held.exists():
        with held.open() as stream:
            if stream.read() == name:
                return
    with table.io.new_output(location).create(overwrite=True) as stream:
        stream.write(name)


def _listed(table: Table, snapshots: Sequence[Snapshot]) -> dict[str, DataFile]:
    """The files that any of these snapshots shows, by location."""
    lists = {m.manifest_path: m for one in snapshots for m in one.manifests(table.io)}
    entries = (entry for one in lists.values() for entry in one.fetch_manifest_entry(table.io))
    return {entry.data_file.file_path: entry.data_file for entry in entries}


def _own_files(table: Table, snapshots: Sequence[Snapshot]) -> Iterator[str]:
    """Iceberg's lists that snapshots are read by."""
    for snapshot in snapshots:
        yield snapshot.manifest_list
        yield from (manifest.manifest_path for manifest in snapshot.manifests(table.io))


def _found(target: Target) -> Table | None:
    try:
        return target.catalog.load_table(target.identifier)
    except NoSuchTableError:
        return None


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Turn pyarrow's errors of S3 into ours, and boto3's of Glue."""
    try:
        with translated(what):
            yield
    except FileNotFoundError as error:
        raise Gone(f"{what}: {error}") from error
    except PermissionError as error:
        raise Misconfigured(f"{what}: {error}") from error
    except OSError as error:
        raise Unavailable(f"{what}: {error}") from error
