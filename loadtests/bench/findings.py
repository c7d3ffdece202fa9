"""What one run of the benchmark found, and its three shapes: a line, a table, a chart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from loadtests import chart
from loadtests.bench import filejob, rates
from loadtests.bench.filejob import DUCKDB, Job
from loadtests.bench.paths import BASELINE, Paths, transports
from loadtests.bench.rates import Rates
from loadtests.bench.starts import ORDINARY
from loadtests.spread import Spread

OURS = f"millrace, {transports()[0]}"


@dataclass(frozen=True)
class Findings:
    """All of a run; `peaks` are MB by shape and stage, `cold` milliseconds by function."""

    paths: Paths
    rates: Mapping[str, Rates]
    jobs: dict[str, Job]
    cold: Mapping[str, Mapping[str, list[float]]]
    peaks: Mapping[str, Mapping[str, float]]
    bundles: Mapping[str, float]
    standard_mb: float
    quick: bool

    @property
    def equal(self) -> bool:
        return not self.paths.differences and not filejob.told(self.jobs)

    def line(self) -> dict[str, Any]:
        """The last line printed. Ratios are the baseline over Millrace, but where it is said."""
        ordinary = [mb for stage, mb in self.peaks[ORDINARY].items() if stage != BASELINE]
        worst = [max(stages.values()) for shape, stages in self.peaks.items() if shape != ORDINARY]
        return {
            "whole_path_ratio": self._ratios("plain"),
            "whole_path_ratio_kpl": self._ratios("KPL"),
            "equal_output": self.equal,
            "differences": [*self.paths.differences, *filejob.told(self.jobs)],
            "dynamodb_items_per_second": round(Spread.of(self.rates[OURS].wall).median),
            "dynamodb_items_per_cpu_second": round(Spread.of(self.rates[OURS].cpu).median),
            "duckdb_ratio": round(filejob.ratio(self.jobs, DUCKDB).median, 2),
            "cold_import_ratio": self._cold("ready"),
            "cold_first_record_ratio": self._cold("first"),
            "peak_memory_mb": round(max(ordinary)),
            "peak_memory_worst_shape_mb": round(max(worst)) if worst else None,
            "bundle_mb": max(self.bundles.values()),
            "standard_bundle_mb": self.standard_mb,
            "attributed": f"{self.paths.found[OURS]} of {self.paths.planted}",
            "attributed_by_baseline": f"{self.paths.found[BASELINE]} of {self.paths.planted}",
            "transport": transports()[0],
            "quick": self.quick,
        }

    def _ratios(self, form: str) -> dict[str, float]:
        return {str(n): round(self.paths.ratio(OURS, form, n).median, 2) for n in self.paths.sizes}

    def _cold(self, until: str) -> float:
        """The largest function's over the standard stack's, of medians."""
        millis = {name: median(told[until]) for name, told in self.cold.items()}
        return round(max(v for k, v in millis.items() if k != BASELINE) / millis[BASELINE], 2)

    def everything(self) -> dict[str, Any]:
        """For the JSON file: the line, and every figure behind it."""
        return {
            "found": self.line(),
            "cpu_micros_a_record": [
                {"contestant": name, "form": form, "records": size, "rounds": one.rounds}
                for (name, form, size), one in self.paths.measured.items()
            ],
            "items_a_second": {name: vars(one) for name, one in self.rates.items()},
            "file_job": {name: vars(one) for name, one in self.jobs.items()},
            "cold_millis": self.cold,
            "peak_mb": self.peaks,
            "bundle_mb": self.bundles,
        }

    def svg(self) -> str:
        groups = []
        for size in self.paths.sizes:
            bars = []
            for name in self.rates:
                note = ""
                if name != BASELINE:
                    note = f"  (baseline ÷ {self.paths.ratio(name, 'plain', size).median:.1f})"
                stages = self.paths.measured[name, "plain", size].stages
                bars.append(chart.Bar(name, stages, note))
            groups.append((f"{size:,} records a batch", bars))
        return chart.svg("From a Lambda event to items and Parquet", groups, "CPU µs a record")

    def table(self) -> Iterator[str]:
        yield from self.paths.table()
        yield ""
        yield f"| items put, {rates.LATENCY_MS:g} ms a call | a second on one core | a CPU second |"
        yield "|---|---|---|"
        for name, one in self.rates.items():
            wall, cpu = one.spread()
            yield f"| {name} | {wall.shown(',.0f')} | {cpu.shown(',.0f')} |"
        yield ""
        yield "| file job | CPU µs a record | same items | same rows |"
        yield "|---|---|---|---|"
        for name, job in self.jobs.items():
            figure = job.absent or job.spread.shown(".1f")
            yield f"| {name} | {figure} | {_word(job.items)} | {_word(job.rows)} |"
        yield ""
        yield "| cold, CPU ms | imports and clients | and the first record | bundle MB |"
        yield "|---|---|---|---|"
        for name, told in self.cold.items():
            ready, first = (Spread.of(told[key]).shown(".0f") for key in ("ready", "first"))
            size = self.standard_mb if name == BASELINE else self.bundles[_BUNDLES[name]]
            yield f"| {name} | {ready} | {first} | {size:.1f} |"
        yield ""
        yield "| peak MB of a 6 MB event | ingest | transform | hot | baseline |"
        yield "|---|---|---|---|---|"
        for shape, stages in self.peaks.items():
            cells = [f"{stages[n]:.0f}" if n in stages else "" for n in _STAGES]
            yield f"| {shape} | {' | '.join(cells)} |"


_BUNDLES = {"ingest": "ingest-stream", "transform": "transform", "hot": "hot"}
_STAGES = ("ingest", "transform", "hot", BASELINE)


def _word(same: bool | None) -> str:  # noqa: FBT001  a value, not a flag
    return {True: "yes", False: "NO", None: "none written"}[same]
