"""Seals: which hours of event time are final, as of when, and what is known to be missing.

An hour is sealed when every source is past its end and the allowed lateness, and past the newest of
its rows, and no object that the lake has not taken in has rows of it. Then it holds all that had
arrived by its seal's `as_of`, and no more. A seal stays until a compaction changes what its hour
holds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from sinks.lake.manifest import Manifest, Partition, Seal
from sinks.lake.resolve import HOUR_MICROS
from sinks.lake.watermark import Watermark, least

NOTHING: Mapping[int, int] = {}


def seal(  # noqa: PLR0913, PLR0917  a lake, how far it is, and when that was found
    lake: Manifest,
    watermarks: Sequence[Watermark],
    lateness: int,
    fresh_hours: Collection[int],
    now: int,
    missing: Mapping[int, int] = NOTHING,
) -> Manifest:
    """The lake with a seal on each hour that is final. Times are microseconds.

    `missing` counts by hour the records that are known and not in it: parked ones. The watermarks
    must be older than the manifest, and that older than the look for fresh objects.
    """
    until, exact = least(watermarks)
    if until is None:
        return lake
    made = Seal(as_of=until, sealed_at=now, exact=exact, missing=0)
    partitions = []
    for partition in lake.partitions:
        own = replace(made, missing=missing.get(partition.hour, 0))
        final = not open_because(partition, watermarks, lateness, fresh_hours)
        held = partition.seal
        changed = held is None or held.missing != own.missing
        partitions.append(replace(partition, seal=own) if final and changed else partition)
    return replace(lake, partitions=tuple(partitions))


def open_because(
    partition: Partition,
    watermarks: Sequence[Watermark],
    lateness: int,
    fresh_hours: Collection[int],
) -> list[str]:
    """Why an hour cannot be sealed now, for people; nothing where it can."""
    ends = max((partition.hour + 1) * HOUR_MICROS + lateness, partition.last_arrival)
    why = [
        f"{one.source}: {one.why}" if one.until is None else f"{one.source} is not past it"
        for one in watermarks
        if not one.ended and (one.until is None or one.until < ends)
    ]
    if not watermarks:
        why.append("no source says how far it is")
    if partition.hour in fresh_hours:
        why.append("objects with rows of it are not compacted yet")
    return why
