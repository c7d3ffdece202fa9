"""The records of a contract at one moment: exact before, while and after a compaction runs.

    snapshot = hours that nothing fresh changes, as files ─┬─▶ every record once
               all other rows, resolved, as a table ───────┘

The manifest is read first, then landing is listed: what is listed and not absorbed is fresh. So an
object is taken in by the manifest, or seen in the listing, and never both. Files hold one row per
identity, as the table does, and no row of the one is in the other: any engine that reads both has
exactly the records, with no rule to apply.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from sinks.bucket import Bucket
from sinks.lake import manifest
from sinks.lake.manifest import File, Manifest
from sinks.lake.plan import UNKNOWN, Object
from sinks.lake.resolve import Resolution
from sinks.lake.standing import Told, parted
from sinks.lake.workspace import Workspace
from transform.contract import Contract


@dataclass(frozen=True)
class Snapshot:
    """Files and rows that together are the records; `changed` hours are not as in `lake`.

    `schema` has every column that any of them has: what a file has not is null in its rows. `tail`
    lies in a file that goes with its last reader, so it takes no memory of its own.
    """

    lake: Manifest
    files: tuple[File, ...]
    tail: pa.Table
    schema: pa.Schema
    changed: tuple[int, ...]

    def local(self, work: Workspace) -> list[str]:
        """Copies of its files, and one of its rows, that last as long as the workspace.

        Together they are the records, for any engine that reads a list of Parquet files by the
        names of their columns.
        """
        tail = work.folder / "tail.parquet"
        pq.write_table(self.tail, tail)
        return [*work.fetch(file.key for file in self.files), str(tail)]


def snapshot(
    work: Workspace, contract: Contract, within: Collection[int] | None = None
) -> Snapshot:
    """What the records are now; with `within`, those of these hours. Raises `Clash`, a `SinkError`.

    Hours are of event time, since 1970.
    """
    lake = manifest.read(work.bucket, contract.name)
    return of(work, contract, lake, fresh(work.bucket, lake), within)


def of(
    work: Workspace,
    contract: Contract,
    lake: Manifest,
    fresh: Sequence[Object],
    within: Collection[int] | None = None,
) -> Snapshot:
    """The records of a lake and of objects that it has not taken in, or those of some hours."""
    found = Resolution(work, contract, lake, fresh, within)
    anew = found.anew(found.hours)
    grown = set(found.hours) - anew
    path = str(work.folder / "tail.arrow")
    with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, found.schema) as tail:
        for hours, rows in ((anew, found.everything), (grown, found.added)):
            for part in parted(rows(hours), found.schema, Told()) if hours else ():
                tail.write_table(part.standing)
    wanted = lake if within is None else lake.within(within)
    files = tuple(f for part in wanted.partitions if part.hour not in anew for f in part.files)
    standing = pa.ipc.open_file(pa.memory_map(path)).read_all()
    return Snapshot(lake, files, standing, found.schema, tuple(found.hours))


def sealed(work: Workspace, contract: Contract) -> Snapshot:
    """Sealed hours alone: what was final as of their seals, whatever came since."""
    lake = manifest.read(work.bucket, contract.name).sealed()
    return of(work, contract, lake, ())


def fresh(bucket: Bucket, lake: Manifest) -> list[Object]:
    """Objects that lie in the bucket and that a lake has not taken in; their rows are not known.

    Landing is listed first: an attempt writes it last, so its marks are there by then.
    """
    known = manifest.taken_in(bucket, lake.absorbed)
    return [
        Object(key, UNKNOWN)
        for prefix in manifest.sources(lake.contract)
        for key in bucket.keys(prefix)
        if key not in known
    ]
