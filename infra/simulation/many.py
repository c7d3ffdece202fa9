"""Many seeds, one after the other, and what is told of one that fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from infra.simulation.drawn import Made
from infra.simulation.run import Report, Simulation
from infra.simulation.scenario import Scenario, scenario
from infra.simulation.shrink import shrunk
from infra.simulation.views import Views
from sinks import parquet

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN_VIOLATIONS = 5
READ_MAX = 256  # objects that are remembered


@dataclass
class Found:
    """What some seeds came to: how many, which faults, and the reports of those that failed."""

    seeds: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    failing: list[Report] = field(default_factory=list)
    reports: dict[int, Report] = field(default_factory=dict)


@contextmanager
def read_once() -> Iterator[None]:
    """The same bytes are the same table: attempts at a Delivery, and the oracle, read it again."""
    kept = parquet.File
    parquet.File = lru_cache(READ_MAX)(_Remembered)  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        parquet.File = kept  # type: ignore[misc]


class _Remembered(parquet.File):
    """A file that reads its columns once."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._read: dict[tuple[str, ...] | None, pa.Table] = {}

    def read(self, columns: list[str] | None = None) -> pa.Table:
        asked = None if columns is None else tuple(columns)
        if asked not in self._read:
            self._read[asked] = super().read(columns)
        return self._read[asked]


def many(seeds: Iterable[int], *, shrink: bool = False) -> Found:
    """Run every seed; readers' views are compared for all of them at once."""
    found = Found()
    views = Views()
    for seed in seeds:
        simulation = Simulation(scenario(seed))
        with read_once():
            report = simulation.run()
        found.seeds += 1
        found.faults.update(report.faults())
        found.reports[seed] = report
        if simulation.oracle is not None:
            views.add(seed, simulation.oracle)
    for seed, violations in views.compare().items():
        report = found.reports[seed]
        found.reports[seed] = replace(report, violations=(*report.violations, *violations))
    for report in found.reports.values():
        if report.violations:
            found.failing.append(shrunk(report, alone) if shrink else report)
    return found


def alone(tried: Scenario) -> Report:
    """One run with everything compared."""
    simulation = Simulation(tried)
    report = simulation.run()
    if simulation.oracle is None:
        return report
    views = Views({tried.seed: simulation.oracle})
    return replace(report, violations=(*report.violations, *views.compare()[tried.seed]))


def _shown(made: Made) -> list[list[str]]:
    return [[message.body.decode() for message in member] for member in made.members]


def told(report: Report) -> str:
    """A failing run for people: the seed, what is wrong, and what is left of its schedule."""
    made = report.scenario
    lines = [f"seed {made.seed} ({made.profile}):"]
    lines += [f"  {violation}" for violation in report.violations[:SHOWN_VIOLATIONS]]
    if len(report.violations) > SHOWN_VIOLATIONS:
        lines.append(f"  and {len(report.violations) - SHOWN_VIOLATIONS} more")
    lines.append(f"  verbs: {', '.join(sorted(made.verbs)) or 'none'}")
    mapping = "regrouping at will" if made.regroup else f"bisect {made.bisect}"
    lines.append(
        f"  mapping: {made.shards} shards, batches of {made.batch}, {made.lanes} lanes, {mapping}"
    )
    lines += [
        f"  record at {r.at:.2f} s to {r.source} under {r.key}: {_shown(r)}" for r in made.records
    ]
    lines += [f"  event at {e.at:.2f} s: {e.kind} {e.value} {e.seconds or ''}" for e in made.events]
    lines += [f"  fault {name}" for name in report.happened]
    return "\n".join(lines)
