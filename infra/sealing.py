"""Sealing a contract's lake: markers, how far its sources are, what is parked, one commit.

    markers ──▶ watermarks ──▶ parked ──▶ manifest ──▶ fresh objects ──▶ seals

In this order: what was settled by the watermarks is in the manifest or among the fresh objects, and
what was parked by then is found parked.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from infra.parked import Parked
from ingest import markers, watermarks
from ingest.watermarks import MICROS, Sources
from sinks.bucket import Bucket
from sinks.lake import manifest, reader, seal
from sinks.lake.manifest import Manifest, Raced
from sinks.lake.resolve import HOUR_MICROS, Resolution
from sinks.lake.watermark import Place, Watermark, least
from sinks.lake.workspace import DEFAULT, Limits, Workspace, workspace
from transform.contract import Contract
from transform.pipeline import Transform
from transform.records import POSITION, RAW_SCHEMA

LOOK_SECONDS = 0.5
TRIES_MAX = 5  # commits that were raced: a compaction takes longer than a seal

Look = Callable[[], Parked]
"""What is parked now."""


@dataclass(frozen=True)
class Sealer:
    """A contract's lake, the sources that it is made from, and where their records are parked.

    `lateness` is how long after its end an hour stays open, in microseconds.
    """

    bucket: Bucket
    contract: Contract
    rules: Transform
    sources: Sources
    parked: Look
    lateness: int
    limits: Limits = DEFAULT

    def mark(self, timeout_seconds: float) -> None:
        """Put markers into the stream and wait until they are settled, at most so long."""
        started = int(self.sources.clock()) * MICROS  # some clocks count whole seconds
        shards = markers.shards_of(self.sources.kinesis, self.sources.stream)
        markers.put(self.sources.kinesis, self.sources.stream, shards, started)
        until = time.monotonic() + timeout_seconds
        while not all(one.ended or (one.until or 0) >= started for one in self.look()):
            if time.monotonic() + LOOK_SECONDS >= until:
                return
            time.sleep(LOOK_SECONDS)

    def look(self) -> list[Watermark]:
        """How far the sources are."""
        lanes = self.sources.lanes.factor > 1
        gone: Iterable[Place] = self.parked().places() if lanes else ()
        return watermarks.look(self.sources, gone)

    def seal(self) -> tuple[Manifest, Manifest]:
        """Seal what is final; the lake before and after. Raises `Raced`, a `SinkError`."""
        for _ in range(TRIES_MAX):
            found = self.look()
            parked = self.parked()
            lake = manifest.read(self.bucket, self.contract.name)
            now = int(self.sources.clock() * MICROS)
            with workspace(self.bucket, self.limits) as work:
                fresh = fresh_hours(work, self.contract, lake)
                missing = self._missing(work, lake, parked, least(found)[0])
            sealed = seal.seal(lake, found, self.lateness, fresh, now, missing)
            if sealed == lake:
                return lake, lake
            try:
                return lake, manifest.commit(self.bucket, lake, replace(sealed, made_at=now))
            except Raced:
                continue
        raise Raced(f"{self.contract.name}: {TRIES_MAX} times another committer was faster")

    def _missing(
        self, work: Workspace, lake: Manifest, parked: Parked, until: int | None
    ) -> Mapping[int, int]:
        """By hour, the records that are parked and would be in it.

        Those that only a pointer tells of may be of any hour, and count in each.
        """
        if until is None:
            return {}
        own = {self.sources.stream, *self.sources.queues}
        rows = parked.rows.filter(pc.is_in(parked.rows.column("_stream"), pa.array(list(own))))
        came = rows.filter(pc.less_equal(rows.column("_arrival").cast(pa.int64()), until))
        anywhere = sum(pointer.records for pointer in parked.pointers if pointer.stream in own)
        wanted = self._wanted(came)
        found: Counter[int] = Counter()
        for hour, places in wanted.items():
            held = _held(work, lake, hour)
            found[hour] = sum(place not in held for place in places)
        if anywhere:
            found.update({part.hour: anywhere for part in lake.partitions})
        return found

    def _wanted(self, parked: pa.Table) -> dict[int, list[Place]]:
        """The positions of rows that parked records would be, by hour: one for each row."""
        rows = self.rules.apply(parked.select(RAW_SCHEMA.names), "parked").rows
        moments = rows.column(self.contract.event_time).cast(pa.int64()).to_pylist()
        columns = [rows.column(name).to_pylist() for name in POSITION]
        wanted: dict[int, list[Place]] = {}
        for moment, *place in zip(moments, *columns, strict=True):
            wanted.setdefault(moment // HOUR_MICROS, []).append(tuple(place))
        return wanted


def fresh_hours(work: Workspace, contract: Contract, lake: Manifest) -> Collection[int]:
    """Hours that objects would change which the lake has not taken in."""
    return Resolution(work, contract, lake, reader.fresh(work.bucket, lake)).hours


def _held(work: Workspace, lake: Manifest, hour: int) -> set[Place]:
    """The positions that the lake has rows of in an hour."""
    part = lake.by_hour.get(hour)
    files: Sequence[manifest.File] = () if part is None else (*part.files, *part.repeats)
    sql = work.read((file.key for file in files), ", ".join(POSITION))
    return {tuple(row) for row in work.rows(sql)} if sql else set()
