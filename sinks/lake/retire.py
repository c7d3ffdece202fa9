"""What nobody can need any more is deleted: replaced files, old manifests, landing taken in.

A reader holds a manifest for as long as its query takes, and whoever travels in time for as long as
`history`; a compaction under way has written files that no manifest names yet. An object of landing
is needed for as long as its source could bring its records again: an attempt may find it taken, and
a reader without it would see that attempt's rows as fresh.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow.compute as pc

from sinks.bucket import Bucket
from sinks.lake import manifest
from sinks.lake.manifest import PREFIX, Manifest
from sinks.lake.plan import micros
from sinks.landing import LANDING

HISTORY = timedelta(days=7)
LANDED = timedelta(days=21)  # a week over SQS's longest retention, for sweeps and debts
UNDER_WAY = timedelta(hours=6)  # no compaction takes as long


@dataclass(frozen=True)
class Keep:
    """For how long: what a manifest named, and what landed; None keeps all that did.

    Files that are `needed`, as by a snapshot of Iceberg, are kept whatever their time.
    """

    history: timedelta = HISTORY
    landed: timedelta | None = LANDED
    needed: frozenset[str] = frozenset()


DEFAULT = Keep()


@dataclass(frozen=True)
class Retired:
    """How many objects were deleted, or would be."""

    files: int
    manifests: int
    landing: int


def retire(
    bucket: Bucket,
    contract: str,
    now: datetime,
    keep: Keep = DEFAULT,
    *,
    dry_run: bool = False,
) -> Retired:
    """Delete what is past its time. Raises a `SinkError`.

    Files go before the manifests that name them, so a run that was cut short is found again.
    """
    current = manifest.read(bucket, contract)
    old = micros(now - keep.history)
    history = manifest.history(bucket, contract)
    every = list(history.values())
    kept = [one for one in every if one == current or _counted_at(one, every) >= old]
    files = [key for key in _files(bucket, contract, kept, now) if key not in keep.needed]
    gone = [key for key, one in history.items() if one not in kept]
    taken = list(_landing(bucket, current, now - keep.landed)) if keep.landed is not None else []
    if not dry_run:
        bucket.delete(files)
        bucket.delete(gone)
        bucket.delete(taken)
    return Retired(len(files), len(gone), len(taken))


def _counted_at(one: Manifest, every: list[Manifest]) -> int:
    """The last moment at which a manifest counted: when the next one was made."""
    later = (other.made_at for other in every if other.version > one.version)
    return min(later, default=one.made_at)


def _files(bucket: Bucket, contract: str, kept: list[Manifest], now: datetime) -> Iterator[str]:
    """Files and lists that no kept manifest names, and that no compaction is about to name."""
    named = {file.key for one in kept for part in one.partitions for file in part.files}
    named |= {file.key for one in kept for part in one.partitions for file in part.repeats}
    named |= {known.key for one in kept for known in one.absorbed}
    before = (now - UNDER_WAY).timestamp()
    for kind in ("data", "repeats", "absorbed"):
        for key, written_at in bucket.written(f"{PREFIX}/{contract}/{kind}/"):
            if key not in named and written_at < before:
                yield key


def _landing(bucket: Bucket, lake: Manifest, before: datetime) -> Iterator[str]:
    """Landing objects that were taken in before a moment and are still there."""
    taken = manifest.absorbed_keys(bucket, lake.absorbed)
    taken = taken.filter(pc.less(taken.column("absorbed_at"), micros(before)))
    keys = {key for key in taken.column("key").to_pylist() if key.startswith(f"{LANDING}/")}
    yield from (key for key in bucket.keys(f"{LANDING}/{lake.contract}/") if key in keys)
