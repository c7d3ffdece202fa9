"""What one run found, and its three shapes: a line, a table, a chart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loadtests import chart
from loadtests.lake.checked import HISTORY, SPAN, TOTALS, Asked, Checked
from loadtests.lake.compacting import Compacting
from loadtests.lake.timed import DISTINCT_BY, LAKE, Timed

QUESTIONS = (TOTALS, HISTORY, SPAN)
WHEN = ("before", "during", "after")
LANDING = "landing"


@dataclass(frozen=True)
class Size:
    """Of a layout: files, rows in them, bytes."""

    files: int
    rows: int
    bytes: int

    @property
    def bytes_a_row(self) -> float:
        return self.bytes / self.rows


@dataclass(frozen=True)
class Findings:
    """All of a run. `sizes` are by layout, the Firehose-like ones between landing and the lake."""

    asked: Asked
    compacting: Compacting
    watched: Compacting
    checked: Checked
    timed: Timed
    sizes: Mapping[str, Size]
    engines: Sequence[str]
    absent: Mapping[str, str]
    quick: bool

    @property
    def differences(self) -> list[str]:
        found = [*self.checked.differences, *self.timed.differences]
        if self.compacting.rows != self.watched.rows:
            found.append(f"{self.compacting.rows} and {self.watched.rows} rows were compacted")
        return found

    @property
    def equal(self) -> bool:
        return not self.differences

    @property
    def layouts(self) -> list[str]:
        """Those that are beside the lake, as they are."""
        return [name for name in self.sizes if name not in {LANDING, LAKE}]

    def line(self) -> dict[str, Any]:
        """The last line printed. Ratios are the other layout's over the lake's."""
        return {
            "equal": self.equal,
            "differences": self.differences,
            "records": self.asked.made.extent.records,
            "rows": self.compacting.rows,
            "rows_per_second_per_core": round(self.compacting.rows_a_cpu_second),
            "rows_per_second": round(self.compacting.rows / self.compacting.wall),
            "peak_memory_mb": round(self.compacting.peak_mb),
            "files": {name: size.files for name, size in self.sizes.items()},
            "bytes_per_row": {name: round(s.bytes_a_row, 1) for name, s in self.sizes.items()},
            "bytes_ratio": {
                name: round(self.sizes[name].bytes_a_row / self.sizes[LAKE].bytes_a_row, 2)
                for name in self.layouts
            },
            "query_ratio": {
                engine: {
                    name: {q: round(self._ratio(engine, name, q), 1) for q in QUESTIONS}
                    for name in self.layouts
                }
                for engine in self.engines
            },
            "reads": {when: len(self.checked.versions(when)) for when in WHEN},
            "versions_read_during": sorted(set(self.checked.versions("during"))),
            "engines": list(self.engines),
            "absent": dict(self.absent),
            "quick": self.quick,
        }

    def _ratio(self, engine: str, layout: str, question: str) -> float:
        return self.timed.ratio(engine, layout, question).median

    def everything(self) -> dict[str, Any]:
        """For the JSON file: the line, and every figure behind it."""
        return {
            "found": self.line(),
            "compaction": asdict(self.compacting),
            "compaction_while_read": asdict(self.watched),
            "sizes": {name: asdict(size) for name, size in self.sizes.items()},
            "query_seconds": [
                {"engine": engine, "layout": layout, "question": question, "rounds": rounds}
                for (engine, layout, question), rounds in self.timed.rounds.items()
            ],
        }

    def table(self) -> Iterator[str]:
        yield "| compaction | rows | rows/s/core | seconds | peak MB | commits | repeats |"
        yield "|---|---|---|---|---|---|---|"
        for name, one in ("alone", self.compacting), ("while it is read", self.watched):
            figures = f"{one.rows:,} | {one.rows_a_cpu_second:,.0f} | {one.wall:.1f}"
            yield f"| {name} | {figures} | {one.peak_mb:,.0f} | {one.commits} | {one.repeats:,} |"
        yield ""
        yield "| layout | files | rows | bytes a row |"
        yield "|---|---|---|---|"
        for name, size in self.sizes.items():
            yield f"| {name} | {size.files:,} | {size.rows:,} | {size.bytes_a_row:.1f} |"
        yield ""
        yield f"| CPU ms | layout | {' | '.join(QUESTIONS)} |"
        yield f"|---|---|{'---|' * len(QUESTIONS)}"
        for engine in self.engines:
            for layout in self._asked_of(engine):
                cells = " | ".join(self._cell(engine, layout, one) for one in QUESTIONS)
                yield f"| {engine} | {layout} | {cells} |"
        for engine, why in self.absent.items():
            yield f"| {engine} | {why} | {' | '.join('' for _ in QUESTIONS)} |"
        yield ""
        yield "| exact | reads | versions of the lake | wrong answers |"
        yield "|---|---|---|---|"
        for when in WHEN:
            seen = self.checked.versions(when)
            wrong = sum(what.startswith(f"{when},") for what in self.checked.differences)
            yield f"| {when} | {len(seen)} | {_span(seen)} | {wrong} |"

    def _asked_of(self, engine: str) -> list[str]:
        found = [LAKE, *self.layouts]
        if engine == DISTINCT_BY:
            found += [f"{name}, made distinct" for name in self.layouts]
        return found

    def _cell(self, engine: str, layout: str, question: str) -> str:
        millis = self.timed.millis((engine, layout, question)).shown(",.1f")
        if layout == LAKE:
            return millis
        return f"{millis}, ratio {self._ratio(engine, layout, question):.1f}"

    def svg(self) -> str:
        groups = []
        for engine in self.engines:
            bars = []
            for layout in (LAKE, *self.layouts):
                keys = {question: (engine, layout, question) for question in QUESTIONS}
                parts = {name: self.timed.millis(key).median for name, key in keys.items()}
                bars.append(chart.Bar(layout, parts))
            groups.append((engine, bars))
        records = self.asked.made.extent.records
        return chart.svg(f"Three questions of {records:,} records", groups, "CPU ms")


def _span(versions: Sequence[int]) -> str:
    return f"{min(versions)} to {max(versions)}" if versions else ""
