"""What a question costs engines, layout by layout, in turns on one core.

Seconds are of CPU, all threads; Spark's, whose work is another process's, are by the clock. Files
lie in the page cache: in S3 each would cost two or three requests of some milliseconds more, which
is in favour of many small files here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loadtests.lake import folder
from loadtests.lake.asking import Engine, differences
from loadtests.lake.checked import Asked
from loadtests.lake.engines.question import Question
from loadtests.lake.firehose import Layout
from loadtests.lake.oracle import Tallies
from loadtests.spread import Spread
from sinks.lake.manifest import Manifest

LAKE = "Millrace lake"
DISTINCT_BY = "DuckDB"  # is asked, too, to remove repeats from what Firehose left
SLOW, SLOW_ROUNDS_MAX = "Spark", 2

Key = tuple[str, str, str]
"""Engine, layout, question."""


@dataclass(frozen=True)
class Case:
    """A layout as it is asked: its questions, and what the answers must be."""

    layout: str
    questions: Mapping[str, Question]
    answers: Mapping[str, Tallies]
    only: str = ""  # by this engine


@dataclass
class Timed:
    """Seconds by round, and answers that are wrong."""

    rounds: dict[Key, list[float]] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)

    def millis(self, key: Key) -> Spread:
        return Spread.of([seconds * 1_000 for seconds in self.rounds[key]])

    def ratio(self, engine: str, layout: str, question: str) -> Spread:
        """A layout's time over the lake's, round by round."""
        theirs, ours = (self.rounds[engine, one, question] for one in (layout, LAKE))
        return Spread.of([a / b for a, b in zip(theirs, ours, strict=True)])


def cases(asked: Asked, root: Path, lake: Manifest, layouts: Sequence[Layout]) -> Iterator[Case]:
    """The lake, which holds each record once; the others as they are, and made distinct."""
    files = [str(folder.path(root, file.key)) for file in lake.files]
    of_hour = [str(folder.path(root, file.key)) for file in lake.by_hour[asked.hour].files]
    yield Case(LAKE, asked.questions(files, of_hour), asked.answers())
    for one in layouts:
        own = one.paths, one.since(asked.hour)
        yield Case(one.name, asked.questions(*own), asked.answers(repeated=True))
        distinct = asked.questions(*own, distinct=True)
        yield Case(f"{one.name}, made distinct", distinct, asked.answers(), DISTINCT_BY)


def measure(engines: Sequence[Engine], cases: Sequence[Case], rounds: int) -> Timed:
    """So many rounds after one to warm, whose answers are compared."""
    timed = Timed()
    for number in range(rounds + 1):
        for engine in engines:
            if engine.kind.name == SLOW and number > SLOW_ROUNDS_MAX:
                continue
            for name in cases[0].questions:
                for case in cases:
                    if case.only in {"", engine.kind.name}:
                        _ask(engine, case, name, timed, warm=number > 0)
    return timed


def _ask(engine: Engine, case: Case, name: str, timed: Timed, *, warm: bool) -> None:
    answer = engine.ask(case.questions[name])
    if warm:
        key = engine.kind.name, case.layout, name
        timed.rounds.setdefault(key, []).append(answer.seconds)
        return
    wrong = differences(answer.tallies, case.answers[name])
    place = f"{case.layout}, {engine.kind.name}, {name}"
    timed.differences += [f"{place}: {what}" for what in wrong]
