"""A lake of millions of records, beside what Firehose would leave of them, in one run: `make lake`.

    python -m loadtests.lake [--out DIR] [--data DIR]

With LAKE_QUICK=1 it is of 200,000 records. LAKE_SPARK_PYTHON names an interpreter that has pyspark;
without, Spark is left out. DIR of `--data` keeps what is generated for another run. It writes
`lake.md`, `lake.json` and `lake.svg` into DIR of `--out` (`build/lake`), and prints the table and,
as its last line, one JSON object. It exits with 1 where an answer is not exact.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from loadtests.lake import asking, checked, compacting, firehose, folder, landed, timed
from loadtests.lake.checked import Asked, Checked
from loadtests.lake.compacting import Compacting
from loadtests.lake.findings import LANDING, Findings, Size
from loadtests.lake.firehose import Layout
from loadtests.lake.landed import Made
from loadtests.lake.timed import LAKE
from loadtests.lake.traffic import NAME, Extent
from loadtests.machine import ROOT, SERVER_CORE
from sinks.lake import manifest
from sinks.lake.manifest import PREFIX, Manifest

OUT = ROOT / "build" / "lake"


@dataclass(frozen=True)
class Measure:
    """How much is generated and measured. Alone all is compacted at once, while read in tasks."""

    extent: Extent = field(default_factory=Extent)
    task_rows: int = 600_000
    rounds: int = 5


QUICK = Measure(Extent(records=200_000), 25_000, rounds=2)


def run(measure: Measure, root: Path, *, quick: bool) -> Findings:
    """All of it, with what is generated under `root`."""
    began = time.monotonic()

    def say(what: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:6.1f} s  {what}\n")

    say(f"{measure.extent.records:,} records into landing objects")
    made = landed.made(root, measure.extent)
    say("the same rows as Firehose would leave them")
    layouts = _layouts(root, made)
    kinds = list(asking.kinds())
    present = [kind for kind in kinds if not kind.lack]
    questions = checked.asked(made, root)
    found, watched = _watched(measure, root, questions, present, say)
    say("a compaction alone")
    alone = _alone(root, made.landing_rows)
    with asking.engines(present) as engines:
        say("the lake, when all is compacted")
        checked.check(root, questions, engines, "after", found)
        say("questions, in turns")
        lake = manifest.read(folder.bucket(root), NAME)
        cases = list(timed.cases(questions, root, lake, layouts))
        times = timed.measure(engines, cases, measure.rounds)
    say("done")
    return Findings(
        asked=questions,
        compacting=alone,
        watched=watched,
        checked=found,
        timed=times,
        sizes=_sizes(root, made, layouts, lake),
        engines=[kind.name for kind in present],
        absent={kind.name: kind.lack for kind in kinds if kind.lack},
        quick=quick,
    )


def _layouts(root: Path, made: Made) -> list[Layout]:
    out = root / "firehose"
    shutil.rmtree(out, ignore_errors=True)
    return [firehose.small(root, made, out / "small"), firehose.large(root, made, out / "large")]


def _watched(
    measure: Measure,
    root: Path,
    questions: Asked,
    present: list[asking.Kind],
    say: Callable[[str], None],
) -> tuple[Checked, Compacting]:
    """Read before a compaction and all the while; what it came to is taken away again."""
    found = Checked()
    _forget(root)
    with asking.engines(present, SERVER_CORE) as engines:
        say("the lake, before anything is compacted")
        checked.check(root, questions, engines, "before", found)
        say("the lake, while it is compacted")
        watched = checked.during(root, questions, engines, measure.task_rows, found)
    return found, watched


def _alone(root: Path, rows: int) -> Compacting:
    _forget(root)
    with compacting.running(root, rows) as process:
        return compacting.ended(process)


def _forget(root: Path) -> None:
    shutil.rmtree(folder.path(root, PREFIX), ignore_errors=True)


def _sizes(root: Path, made: Made, layouts: list[Layout], lake: Manifest) -> dict[str, Size]:
    held = [folder.path(root, key).stat().st_size for key in made.landing_keys]
    files = list(lake.files)
    return {
        LANDING: Size(len(held), made.landing_rows, sum(held)),
        **{one.name: Size(len(one.files), one.rows, one.bytes) for one in layouts},
        LAKE: Size(len(files), lake.rows, sum(file.bytes for file in files)),
    }


def write(found: Findings, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "lake.md").write_text("\n".join(found.table()) + "\n")
    (out / "lake.json").write_text(json.dumps(found.everything(), indent=1) + "\n")
    (out / "lake.svg").write_text(found.svg())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--data", type=Path)
    asked = parser.parse_args()
    quick = os.environ.get("LAKE_QUICK", "") not in {"", "0"}
    with tempfile.TemporaryDirectory() as scratch:
        root = asked.data or Path(scratch)
        root.mkdir(parents=True, exist_ok=True)
        found = run(QUICK if quick else Measure(), root, quick=quick)
    write(found, asked.out)
    for line in found.table():
        sys.stdout.write(line + "\n")
    sys.stdout.write(json.dumps(found.line()) + "\n")
    return 0 if found.equal else 1


if __name__ == "__main__":
    sys.exit(main())
