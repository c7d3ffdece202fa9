"""Engines as processes of one core each, that are asked in turns."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, NamedTuple

from loadtests.lake.engines.question import Question
from loadtests.lake.oracle import Tallies, Tally
from loadtests.machine import CLIENT_CORE

SPARK = "LAKE_SPARK_PYTHON"
ENGINES = Path(__file__).parent / "engines"


class EngineFailed(RuntimeError):
    """An engine that gave no answer, and its last words."""


class Answer(NamedTuple):
    """Sums by status, or by the device that was asked for; seconds of CPU, Spark's by the clock."""

    tallies: Tallies
    seconds: float


@dataclass(frozen=True)
class Kind:
    """An engine: its script, its interpreter, and why it cannot be had (nothing where it can)."""

    name: str
    script: str
    python: Path
    lack: str = ""


def kinds() -> Iterator[Kind]:
    """Every engine, had or not."""
    own = Path(sys.executable)
    yield Kind("DuckDB", "duckdb_sql", own)
    yield Kind("pyarrow", "pyarrow_dataset", own)
    yield Kind("polars", "polars_lazy", own)
    yield Kind("Spark", "spark_sql", Path(os.environ.get(SPARK) or own), _spark_lack())


def _spark_lack() -> str:
    if not os.environ.get(SPARK):
        return f"{SPARK} names no interpreter that has pyspark"
    return "" if shutil.which("java") else "there is no Java on the path"


@dataclass(frozen=True)
class Engine:
    """A process that answers questions."""

    kind: Kind
    process: subprocess.Popen[str]
    errors: IO[str]

    def ask(self, question: Question) -> Answer:
        """The answer. Raises `EngineFailed`."""
        line = json.dumps(asdict(question)) + "\n"
        try:
            self.process.stdin.write(line)  # type: ignore[union-attr]
            self.process.stdin.flush()  # type: ignore[union-attr]
        except BrokenPipeError:
            raise self._failed() from None
        told = self.process.stdout.readline()  # type: ignore[union-attr]
        if not told:
            raise self._failed()
        found = json.loads(told)
        tallies = {name: Tally(*sums) for name, sums in found["answer"].items()}
        return Answer(tallies, found["seconds"])

    def _failed(self) -> EngineFailed:
        self.errors.seek(0)
        return EngineFailed(f"{self.kind.name}: {self.errors.read().strip()[-500:]}")


@contextmanager
def engines(wanted: Sequence[Kind], core: int = CLIENT_CORE) -> Iterator[list[Engine]]:
    """A process of each, all on one core."""
    with ExitStack() as open_:
        yield [open_.enter_context(_started(kind, core)) for kind in wanted]


@contextmanager
def _started(kind: Kind, core: int) -> Iterator[Engine]:
    foreign = ("PYTHON", "SPARK_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    environment |= {"POLARS_MAX_THREADS": "1", "PYSPARK_PYTHON": str(kind.python)}
    command = [str(kind.python), str(ENGINES / f"{kind.script}.py")]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(  # noqa: S603  our own scripts
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            preexec_fn=_on(core),  # noqa: PLW1509  no threads yet
        ) as process,
    ):
        try:
            yield Engine(kind, process, errors)
        finally:
            process.kill()


def _on(core: int) -> Callable[[], None]:
    return lambda: os.sched_setaffinity(0, {core})


def differences(found: Tallies, expected: Tallies) -> list[str]:
    """Where an answer is not what it must be, in words."""
    names = sorted({*found, *expected})
    pairs = ((name, found.get(name, Tally()), expected.get(name, Tally())) for name in names)
    return [f"{name}: {asdict(a)} for {asdict(b)}" for name, a, b in pairs if a != b]
