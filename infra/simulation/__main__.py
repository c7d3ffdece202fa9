"""`python -m infra.simulation --seeds n [--first s] [--jobs k]`: run seeds, and say what was found.

A failing seed is told with its violations and a shrunk schedule. The last line has the totals; the
exit code is 1 if there was a violation.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from infra.simulation.many import Found, many, told

CHUNK_SEEDS = 50


@dataclass
class Total:
    """What all seeds came to."""

    seeds: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    violations: int = 0

    def line(self) -> str:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        return f"{self.seeds} seeds; faults: {kinds}; violations: {self.violations}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    asked = parser.parse_args(arguments)
    total = Total()
    for found in _all(asked.first, asked.seeds, asked.jobs):
        total.seeds += found.seeds
        total.faults.update(found.faults)
        total.violations += sum(len(report.violations) for report in found.failing)
        for report in found.failing:
            print(told(report), flush=True)  # noqa: T201  a command's output
    print(total.line())  # noqa: T201  a command's output
    return 1 if total.violations else 0


def _all(first: int, seeds: int, jobs: int) -> Iterator[Found]:
    chunks = [
        range(at, min(at + CHUNK_SEEDS, first + seeds))
        for at in range(first, first + seeds, CHUNK_SEEDS)
    ]
    if jobs == 1:
        yield from map(partial(many, shrink=True), chunks)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(partial(many, shrink=True), chunks)


if __name__ == "__main__":
    sys.exit(main())
