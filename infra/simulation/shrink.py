"""A failing scenario made smaller while it fails in the same way: fewer faults, events, records."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from infra.simulation.run import Report
from infra.simulation.scenario import Scenario

T = TypeVar("T")

SECONDS_MAX = 20.0  # of the machine's time: a schedule that is half as long is help enough


def shrunk(
    report: Report, run: Callable[[Scenario], Report], seconds: float = SECONDS_MAX
) -> Report:
    """The smallest failing report found in the time; the one given if none is smaller."""
    until = time.monotonic() + seconds
    kinds = {violation.kind for violation in report.violations}
    best = report

    def fails(scenario: Scenario) -> bool:
        nonlocal best
        if time.monotonic() > until:
            return False
        tried = run(scenario)
        if kinds.isdisjoint(v.kind for v in tried.violations):
            return False
        best = tried
        return True

    fails(replace(report.scenario, allowed=frozenset(report.happened)))
    size = None
    while size != (size := _size(best)) and time.monotonic() < until:
        _fewer(
            lambda: best.happened,
            lambda kept: fails(replace(best.scenario, allowed=frozenset(kept))),
        )
        _fewer(
            lambda: best.scenario.events,
            lambda kept: fails(replace(best.scenario, events=tuple(kept))),
        )
        _fewer(
            lambda: best.scenario.records,
            lambda kept: fails(replace(best.scenario, records=tuple(kept))),
        )
    return best


def _size(report: Report) -> tuple[int, int, int]:
    scenario = report.scenario
    return len(report.happened), len(scenario.events), len(scenario.records)


def _fewer(current: Callable[[], Sequence[T]], fails: Callable[[list[T]], bool]) -> None:
    """Take out ever smaller pieces, as long as it still fails without them."""
    piece = len(current())
    while piece:
        at = 0
        while at < len(current()):
            items = list(current())
            if not fails(items[:at] + items[at + piece :]):
                at += piece
        piece //= 2
