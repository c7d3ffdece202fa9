"""The hours of a lake, as people ask for them: what is in each, how late it came, what is missing.

What a manifest says costs nothing; lateness and completeness are read from the files, a few columns
of one hour at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sinks.lake import reader
from sinks.lake.manifest import Manifest, Partition
from sinks.lake.resolve import HOUR_MICROS, Resolution
from sinks.lake.seal import open_because
from sinks.lake.watermark import Watermark
from sinks.lake.workspace import Workspace
from transform.contract import Contract
from transform.tables import MICROS

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Lateness:
    """How long after event time rows arrived, in seconds; negative where the device was ahead."""

    p50: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True)
class Complete:
    """Of the messages that devices counted, per device and boot: seen, and from first to last."""

    seen: int
    counted: int

    @property
    def share(self) -> float:
        return self.seen / self.counted


@dataclass(frozen=True)
class Shown:
    """An hour of the lake. `waiting` are fresh rows that are not compacted; `open` says why."""

    partition: Partition
    waiting: int
    lateness: Lateness | None
    complete: Complete | None
    open: tuple[str, ...]

    @property
    def hour(self) -> datetime:
        return EPOCH + timedelta(hours=self.partition.hour)

    def to_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        part, seal = self.partition, self.partition.seal
        return {
            "hour": text(part.hour * HOUR_MICROS),
            "rows": part.rows,
            "ids": part.ids,
            "conflicts": part.conflicts,
            "waiting": self.waiting,
            "files": len(part.files),
            "bytes": sum(file.bytes for file in part.files),
            "digest": part.digest,
            "completeness": self.complete and asdict(self.complete),
            "lateness_seconds": self.lateness and asdict(self.lateness),
            "sealed": seal
            and {
                "as_of": text(seal.as_of),
                "sealed_at": text(seal.sealed_at),
                "exact": seal.exact,
                "missing": seal.missing,
            },
            "open": list(self.open),
        }


def shown(  # noqa: PLR0913, PLR0917  a lake, how far its sources are, and which hours are asked for
    work: Workspace,
    contract: Contract,
    lake: Manifest,
    watermarks: Sequence[Watermark],
    lateness: int,
    hours: range,
) -> Iterator[Shown]:
    """The hours of a lake, and those that only fresh objects have rows of."""
    fresh = Resolution(work, contract, lake, reader.fresh(work.bucket, lake))
    known = {**dict.fromkeys(fresh.hours), **lake.by_hour}
    for hour in sorted(one for one in known if one in hours):
        partition = known[hour] or Partition(hour, 0, 0, 0, "0" * 16, ())
        why = open_because(partition, watermarks, lateness, fresh.hours)
        keys = [file.key for file in partition.files]
        yield Shown(
            partition,
            fresh.fresh_rows(hour),
            _lateness(work, keys),
            _complete(work, contract, keys),
            () if partition.seal else tuple(why or ["it was not sealed yet"]),
        )
        work.forget(keys)


def text(micros: int) -> str:
    """A moment, as JSON has it."""
    return (EPOCH + timedelta(microseconds=micros)).isoformat().replace("+00:00", "Z")


def _lateness(work: Workspace, keys: Sequence[str]) -> Lateness | None:
    rows = work.read(keys, "_skew", "_skew IS NOT NULL")
    if not rows:
        return None
    asked = "quantile_disc(_skew, [0.5, 0.95, 0.99]), max(_skew)"
    [(quantiles, most)] = work.rows(f"SELECT {asked} FROM ({rows})")
    return None if most is None else Lateness(*(one / MICROS for one in (*quantiles, most)))


def _complete(work: Workspace, contract: Contract, keys: Sequence[str]) -> Complete | None:
    if not contract.sequence:
        return None
    of = [f'"{name}"' for name in (contract.device, contract.boot) if name]
    count = f'"{contract.sequence}"'
    rows = work.read(keys, ", ".join((*of, count)), f"{count} IS NOT NULL")
    if not rows:
        return None
    [(seen, counted)] = work.rows(f"""
        SELECT sum(seen)::HUGEINT, sum(counted)::HUGEINT FROM (
            SELECT count(DISTINCT {count}) AS seen,
                max({count})::HUGEINT - min({count}) + 1 AS counted
            FROM ({rows}) GROUP BY {", ".join(of)}
        )
    """)
    return None if seen is None else Complete(int(seen), int(counted))
