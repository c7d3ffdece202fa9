"""Whether every engine says of the lake what its oracle does: before, during, after a compaction.

Engines are given what `sinks.lake.reader` says is to be read: files of the lake, and all rows that
are not in them as one file more. They apply no rule of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from loadtests.lake import compacting, folder
from loadtests.lake.asking import Engine, differences
from loadtests.lake.compacting import Compacting
from loadtests.lake.engines.question import Question
from loadtests.lake.landed import Made
from loadtests.lake.oracle import SECONDS_AN_HOUR, Tallies
from loadtests.lake.traffic import START_HOUR, Shard, versions
from sinks.lake import reader
from sinks.lake.workspace import workspace
from transform.tables import landing_schema

DEVICE = 100  # neither among the busiest, which send a sixth of all, nor among the silent
HOUR = 2  # of those generated: late rows of it came in all that followed
TOTALS, HISTORY, SPAN = "all rows", "one device", "one hour"


@dataclass(frozen=True)
class Asked:
    """The questions, and what the answers must be."""

    made: Made
    schema: Path  # an empty file

    @property
    def device(self) -> str:
        return Shard(self.made.extent, 0).device(min(DEVICE, self.made.extent.devices // 2))

    @property
    def hour(self) -> int:
        return START_HOUR + min(HOUR, self.made.extent.hours - 1)

    def questions(
        self, files: Sequence[str], of_hour: Sequence[str], *, distinct: bool = False
    ) -> Mapping[str, Question]:
        """Of all these files; `of_hour` are those that the hour's rows are in."""
        schema = str(self.schema)
        since = self.hour * SECONDS_AN_HOUR
        until = since + SECONDS_AN_HOUR
        return {
            TOTALS: Question([*files], schema, distinct=distinct),
            HISTORY: Question([*files], schema, device=self.device, distinct=distinct),
            SPAN: Question([*of_hour], schema, since=since, until=until, distinct=distinct),
        }

    def answers(self, *, repeated: bool = False) -> Mapping[str, Tallies]:
        oracle = self.made.oracle
        return {
            TOTALS: oracle.totals(repeated=repeated),
            HISTORY: {self.device: oracle.history(self.device, repeated=repeated)},
            SPAN: oracle.totals(self.hour, repeated=repeated),
        }


def asked(made: Made, scratch: Path) -> Asked:
    """The questions of what was made; the empty file is written to `scratch`."""
    schema = scratch / "schema.parquet"
    first, second = versions()
    empty = landing_schema(second, (first,)).remove_metadata().empty_table()
    pq.write_table(empty, schema, store_schema=False)
    return Asked(made, schema)


@dataclass
class Checked:
    """What was read at which version of the lake, and what was wrong with it."""

    reads: list[tuple[str, int]] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    def versions(self, when: str) -> list[int]:
        return [version for moment, version in self.reads if moment == when]


def check(root: Path, asked: Asked, engines: Sequence[Engine], when: str, checked: Checked) -> None:
    """Read the lake as it is now, by every engine."""
    with workspace(folder.bucket(root)) as work:
        found = reader.snapshot(work, versions()[-1])
        files = found.local(work)
        questions = asked.questions(files, files)
        for name, expected in asked.answers().items():
            for engine in engines:
                wrong = differences(engine.ask(questions[name]).tallies, expected)
                place = f"{when}, version {found.lake.version}, {engine.kind.name}, {name}"
                checked.differences += [f"{place}: {what}" for what in wrong]
    checked.reads.append((when, found.lake.version))


def during(
    root: Path, asked: Asked, engines: Sequence[Engine], rows_max: int, checked: Checked
) -> Compacting:
    """Compact in another process, and read all the while."""
    with compacting.running(root, rows_max) as process:
        while process.poll() is None:
            check(root, asked, engines, "during", checked)
        return compacting.ended(process)
