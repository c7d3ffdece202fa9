"""The path of a record, measured beside what people write today, in one run: `make bench`.

    python -m loadtests.bench [--out DIR] [--path RECORDS...]

With BENCH_QUICK=1 it is done within a minute, with fewer rounds and only the peers whose
environments are there. It writes `bench.md`, `bench.json` and `bench.svg` into DIR (`build/bench`),
and prints the table and, as its last line, one JSON object. With `--path` only the whole path is
measured, at these batch sizes, and its table printed. It exits with 1 where outputs differ.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loadtests.bench import bundled, filejob, paths, rates, starts
from loadtests.bench.findings import Findings
from loadtests.bench.local import endpoint
from loadtests.bench.paths import Paths
from loadtests.machine import ROOT

OUT = ROOT / "build" / "bench"


@dataclass(frozen=True)
class Extent:
    """How much is measured: rounds by batch size, of the other parts, and lines of the file."""

    rounds: Mapping[int, int] = field(default_factory=lambda: {100: 60, 1_000: 25, 7_000: 11})
    rate_rounds: int = 5
    rate_records: int = 7_000
    job_records: int = 50_000
    job_rounds: int = 5
    peer_rounds: int = 3
    cold_rounds: int = 7
    install: bool = True
    large: int = 7_000  # records of an event that is near to the 6 MB that Lambda takes
    shapes: Sequence[str] = (
        "gzip of as many lines as are opened",
        "gzip of as many bad lines as are opened",
        "dense bad members, wide key",
        "tiny good members, all different",
    )


QUICK = Extent(
    rounds={100: 6, 1_000: 3, 7_000: 1},
    rate_rounds=1,
    rate_records=2_000,
    job_records=10_000,
    job_rounds=2,
    peer_rounds=1,
    cold_rounds=1,
    install=False,
    shapes=(),
)


def run(extent: Extent, folder: Path, *, quick: bool) -> Findings:
    began = time.monotonic()

    def say(what: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:6.1f} s  {what}\n")

    with endpoint(folder) as aws:
        say("the whole path, beside the baseline")
        path = paths.measure(aws, folder, extent.rounds)
        say("items to DynamoDB at 5 ms")
        rate = rates.measure(aws, folder, extent.rate_rounds, extent.rate_records)
        say("the file job, beside other engines")
        jobs = filejob.measure(
            folder,
            extent.job_records,
            extent.job_rounds,
            extent.peer_rounds,
            install=extent.install,
        )
        say("cold starts")
        cold = starts.cold(aws, folder, extent.cold_rounds)
        say("peaks of memory")
        peaks = starts.peaks(aws, folder, extent.large, extent.shapes)
        say("bundles")
        bundles = bundled.make(folder / "bundles")
        bundled.through(aws, folder / "bundles")
        say("done")
    return Findings(path, rate, jobs, cold, peaks, bundles, bundled.standard_mb(), quick)


def path(extent: Extent, folder: Path, sizes: Sequence[int]) -> Paths:
    """The whole path alone, at these batch sizes."""
    with endpoint(folder) as aws:
        return paths.measure(aws, folder, {size: extent.rounds[size] for size in sizes})


def write(found: Findings, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "bench.md").write_text("\n".join(found.table()) + "\n")
    (out / "bench.json").write_text(json.dumps(found.everything(), indent=1) + "\n")
    (out / "bench.svg").write_text(found.svg())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT)
    sizes = sorted(QUICK.rounds)
    parser.add_argument("--path", type=int, nargs="+", choices=sizes, metavar="RECORDS")
    asked = parser.parse_args()
    quick = os.environ.get("BENCH_QUICK", "") not in {"", "0"}
    extent = QUICK if quick else Extent()
    with tempfile.TemporaryDirectory() as folder:
        if asked.path:
            return told(path(extent, Path(folder), asked.path))
        found = run(extent, Path(folder), quick=quick)
    write(found, asked.out)
    for line in found.table():
        sys.stdout.write(line + "\n")
    sys.stdout.write(json.dumps(found.line()) + "\n")
    return 0 if found.equal else 1


def told(found: Paths) -> int:
    """Print the whole path's table, and what differs in outputs as the exit code says."""
    for line in (*found.table(), *found.differences):
        sys.stdout.write(line + "\n")
    return 1 if found.differences else 0


if __name__ == "__main__":
    sys.exit(main())
