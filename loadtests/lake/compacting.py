"""A compaction, alone in a process: how long it takes and how much memory.

    python -m loadtests.lake.compacting FOLDER ROWS

Takes in all attempts, so many rows a task, each task in a commit of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from loadtests.bench.fresh import peak_mb
from loadtests.lake import folder, landed
from loadtests.lake.traffic import NAME, versions
from loadtests.machine import CLIENT_CORE, ROOT
from sinks.bucket import Bucket
from sinks.lake import manifest
from sinks.lake.compact import compact
from sinks.lake.plan import plan


@dataclass(frozen=True)
class Compacting:
    """What it took: CPU seconds of all threads, seconds by the clock, MB at most.

    `rows` are landing rows taken in, `repeats` those among them that stand aside.
    """

    rows: int
    repeats: int
    commits: int
    cpu: float
    wall: float
    peak_mb: float

    @property
    def rows_a_cpu_second(self) -> float:
        return self.rows / self.cpu


@contextmanager
def running(root: Path, rows_max: int) -> Iterator[subprocess.Popen[str]]:
    """The process, on the client's core."""
    command = [sys.executable, "-m", "loadtests.lake.compacting", str(root), str(rows_max)]
    with subprocess.Popen(  # noqa: S603  our own
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {CLIENT_CORE}),  # noqa: PLW1509  no threads
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> Compacting:
    """What the process came to, when it is done."""
    told, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the compaction ended with {process.returncode}")
    return Compacting(**json.loads(told.splitlines()[-1]))


def run(bucket: Bucket, root: Path, rows_max: int) -> Compacting:
    """Compact until nothing is left."""
    attempts, contract = landed.attempts(root), versions()[-1]
    rows = repeats = commits = 0
    cpu, wall = time.process_time(), time.perf_counter()
    while True:
        lake = manifest.read(bucket, NAME)
        known = manifest.absorbed_keys(bucket, lake.absorbed).column("key").to_pylist()
        task = plan(attempts, set(known), rows_max, datetime.now(UTC))
        if not task.objects:
            break
        done = compact(bucket, contract, task)
        rows, repeats, commits = rows + done.rows, repeats + done.repeats, commits + 1
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Compacting(rows, repeats, commits, cpu, wall, peak_mb())


def main() -> None:
    root, rows_max = sys.argv[1:3]
    done = run(folder.bucket(Path(root)), Path(root), int(rows_max))
    sys.stdout.write(json.dumps(asdict(done)) + "\n")


if __name__ == "__main__":
    main()
