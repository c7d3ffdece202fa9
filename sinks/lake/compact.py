"""Compaction: fresh objects become part of the lake, in one commit.

    plan (which objects) ──▶ resolve (hours, rows) ──▶ write and verify ──▶ commit ──▶ retire

Until the commit nothing that a reader looks at has changed, and what was written is found again by
the next run, as files are named by their bytes. After it everything is done: the objects taken in
are absorbed. They stay for as long as an attempt that was under way could still write or read them.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from sinks.bucket import Bucket
from sinks.lake import manifest
from sinks.lake.files import Files, place
from sinks.lake.manifest import ABSORBED, Absorbed, Manifest, Partition, arrival_hour
from sinks.lake.plan import UNKNOWN, Object, Plan
from sinks.lake.resolve import Resolution
from sinks.lake.standing import WORDS_MODULUS, Told, parted
from sinks.lake.workspace import DEFAULT, Limits, Workspace, workspace
from transform.contract import Contract
from transform.records import ConservationError
from transform.tables import MICROS

GROWN_TIMES = 8  # an hour that grows by more than a part of so many is made anew, and
ADDED_MAX = 8  # so is one to which so many files were added
QUIET_MICROS = 3_600 * MICROS  # of ledger without anything new, after which a manifest says so


@dataclass(frozen=True)
class Compacted:
    """What a compaction did. `rows` are landing rows taken in, `left` are for the next one.

    By `repeats` the rows kept aside have grown; it is negative where law 5 took more away.
    """

    lake: Manifest
    objects: int = 0
    rows: int = 0
    repeats: int = 0
    hours: tuple[int, ...] = ()
    anew: int = 0
    left: int = 0
    seconds: float = 0.0


def compact(
    bucket: Bucket,
    contract: Contract,
    plan: Plan,
    limits: Limits = DEFAULT,
    clock: Callable[[], float] = time.time,
) -> Compacted:
    """Take a plan's objects into the lake. Raises `Raced`, `Clash`, a `SinkError`.

    `clock` is in seconds since 1970. The manifest is read before anything else, so a plan made of
    an older one takes in nothing twice: what is absorbed by now is left out.
    """
    started = time.perf_counter()
    lake = manifest.read(bucket, contract.name)
    known = absorbed_of(bucket, lake, plan.objects)
    fresh = [one for one in plan.objects if one.key not in known]
    now = int(clock() * MICROS)
    if not fresh:
        return Compacted(_seen_until(bucket, lake, plan.settled_until, now), left=plan.left)
    with workspace(bucket, limits) as work:
        made = _Compaction(work, contract, lake, fresh)
        hours, contracts = made.hours(), made.resolution.contracts
    new = replace(
        lake,
        made_at=now,
        settled_until=max(lake.settled_until, plan.settled_until),
        partitions=_with(lake, hours),
        absorbed=_absorbed(bucket, lake, made.objects, made.resolution.marks, now),
        contracts=lake.contracts | contracts,
    )
    committed = manifest.commit(bucket, lake, new.with_schema(made.resolution.schema))
    return Compacted(
        committed,
        objects=len(fresh),
        rows=made.rows,
        repeats=made.repeats,
        hours=tuple(hours),
        anew=made.anew,
        left=plan.left,
        seconds=time.perf_counter() - started,
    )


def _seen_until(bucket: Bucket, lake: Manifest, settled_until: int, now: int) -> Manifest:
    """The lake, which says from time to time how far the ledger was seen to hold nothing new.

    Else whoever looks after a quiet week reads a week's ledger, each time.
    """
    if not lake.version or settled_until - lake.settled_until < QUIET_MICROS:
        return lake
    return manifest.commit(bucket, lake, replace(lake, settled_until=settled_until, made_at=now))


def absorbed_of(bucket: Bucket, lake: Manifest, objects: Iterable[Object]) -> set[str]:
    """Which of some objects, or of their arrival hours, a lake has taken in."""
    hours = {arrival_hour(one.key) for one in objects}
    lists = [one for one in lake.absorbed if one.hour in hours]
    return manifest.taken_in(bucket, lists)


class _Compaction:
    """The hours that some fresh objects change, written."""

    def __init__(
        self, work: Workspace, contract: Contract, lake: Manifest, fresh: Sequence[Object]
    ) -> None:
        self._work, self._contract, self._lake = work, contract, lake
        self.resolution = Resolution(work, contract, lake, fresh)
        self._schema = self.resolution.schema
        rows = self.resolution.rows_of
        self.rows = sum(rows.values())
        told = [one.rows for one in fresh if one.landed]
        if UNKNOWN not in told and self.rows != sum(told):
            raise ConservationError(f"objects of {sum(told)} rows hold {self.rows}")
        self.objects = [replace(one, rows=rows.get(one.key, max(one.rows, 0))) for one in fresh]
        self.repeats = 0
        self.anew = 0

    def hours(self) -> dict[int, Partition]:
        return {hour: self._hour(hour) for hour in self.resolution.hours}

    def _hour(self, hour: int) -> Partition:
        old = self._lake.by_hour.get(hour)
        if old is None or self._outgrown(old) or self.resolution.anew({hour}):
            self.anew += 1
            return self._made_anew(hour, old)
        return self._added_to(hour, old)

    def _outgrown(self, old: Partition) -> bool:
        fresh = self.resolution.fresh_rows(old.hour)
        return fresh * GROWN_TIMES > old.rows or len(old.files) >= ADDED_MAX

    def _made_anew(self, hour: int, old: Partition | None) -> Partition:
        told = Told()
        standing, repeats = self._files("data", hour), self._files("repeats", hour)
        for part in parted(self.resolution.everything({hour}), self._schema, told):
            standing.write(part.standing)
            repeats.write(part.repeats)
        standing.close()
        repeats.close()
        self._check(hour, old, told)
        self.repeats += told.repeats - sum(file.rows for file in (old.repeats if old else ()))
        made = Partition(
            hour,
            told.rows,
            told.ids,
            told.conflicts,
            f"{told.digest:016x}",
            tuple(standing.made),
            tuple(repeats.made),
        )
        return _sealed_as(old, made)

    def _check(self, hour: int, old: Partition | None, told: Told) -> None:
        """Where law 5 takes nothing away, every row there was has come by."""
        held = (*old.files, *old.repeats) if old else ()
        rows = self.resolution.fresh_rows(hour) + sum(file.rows for file in held)
        if told.seen > rows or (not self.resolution.loses and told.seen < rows):
            raise ConservationError(f"hour {hour} came to {told.seen} of {rows} rows")

    def _added_to(self, hour: int, old: Partition) -> Partition:
        told, again = Told(), Told()
        standing, repeats = self._files("data", hour), self._files("repeats", hour)
        new_ids: dict[str, int] = defaultdict(int)
        for part in parted(self.resolution.added({hour}), self._schema, told):
            standing.write(part.standing)
            repeats.write(part.repeats)
            for name in part.standing.column("_record_id").to_pylist():
                new_ids[name] += 1
        for part in parted(self.resolution.repeated({hour}), self._schema, again):
            repeats.write(part.standing)
            repeats.write(part.repeats)
        standing.close()
        repeats.close()
        self.repeats += told.repeats + again.rows + again.repeats
        known = self.resolution.known({hour}) if new_ids else {}
        ids = sum(name not in known for name in new_ids)
        conflicts = sum(
            known.get(name, 0) < 2 and known.get(name, 0) + count > 1  # noqa: PLR2004  two of one id
            for name, count in new_ids.items()
        )
        made = Partition(
            hour,
            old.rows + told.rows,
            old.ids + ids,
            old.conflicts + conflicts,
            f"{(int(old.digest, 16) + told.digest) % WORDS_MODULUS:016x}",
            (*old.files, *standing.made),
            (*old.repeats, *repeats.made),
        )
        return _sealed_as(old, made)

    def _files(self, kind: str, hour: int) -> Files:
        where = place(self._contract.name, kind, hour)
        return Files(self._work.bucket, self._work.folder, where, self._schema)


def _sealed_as(old: Partition | None, new: Partition) -> Partition:
    """Rows of other identity reopen an hour; repeats alone do not."""
    if old is None or (old.rows, old.digest) != (new.rows, new.digest):
        return new
    return replace(new, seal=old.seal)


def _with(lake: Manifest, hours: dict[int, Partition]) -> tuple[Partition, ...]:
    """A lake's partitions, some of them replaced; those that came to nothing are gone."""
    every = {**lake.by_hour, **hours}
    return tuple(every[hour] for hour in sorted(every) if every[hour].files)


def _absorbed(
    bucket: Bucket, lake: Manifest, fresh: Sequence[Object], marks: dict[str, Absorbed], now: int
) -> tuple[Absorbed, ...]:
    """A lake's lists of absorbed objects, with these in them."""
    by_hour: dict[str, list[Object]] = defaultdict(list)
    for one in fresh:
        by_hour[arrival_hour(one.key)].append(one)
    lists = {one.hour: one for one in lake.absorbed}
    for hour, objects in by_hour.items():
        rows = [{"key": one.key, "rows": one.rows, "absorbed_at": now} for one in objects]
        table = pa.Table.from_pylist(rows, schema=ABSORBED)
        more = marks.get(hour, Absorbed(hour, "", 0))
        lists[hour] = manifest.absorb(bucket, lake, more, table)
    return tuple(lists[hour] for hour in sorted(lists))
