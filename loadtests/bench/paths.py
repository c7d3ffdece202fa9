"""The whole path, contestant by contestant, batch by batch: interleaved on one core."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from ingest.settings import Settings
from loadtests.bench import equality
from loadtests.bench.local import Endpoint, Worker
from loadtests.bench.traffic import Traffic, traffic
from loadtests.spread import Spread

FORMS = ("plain", "KPL")
BASELINE = "baseline"
PLANTED_SHARE = 0.03  # of the records of the events that are compared; none in those measured
COMPARED_RECORDS = 1_000


def transports() -> tuple[str, ...]:
    """Millrace's transports, the default first."""
    known = "transport" in Settings.__dataclass_fields__
    return ("wire", "boto3") if known else ("boto3",)


@dataclass
class Measured:
    """Of one contestant, form and batch size: CPU microseconds a record by stage, a round each."""

    rounds: list[dict[str, float]] = field(default_factory=list)

    @property
    def totals(self) -> list[float]:
        return [sum(stages.values()) for stages in self.rounds]

    @property
    def spread(self) -> Spread:
        return Spread.of(self.totals)

    @property
    def stages(self) -> dict[str, float]:
        """Medians."""
        return {name: median(one[name] for one in self.rounds) for name in self.rounds[0]}


Key = tuple[str, str, int]
"""Contestant, form, batch size."""


@dataclass(frozen=True)
class Paths:
    """All figures, what was compared and what was found."""

    measured: Mapping[Key, Measured]
    differences: Sequence[str]
    planted: int
    found: Mapping[str, int]

    def ratio(self, contestant: str, form: str, size: int) -> Spread:
        """The baseline's CPU over the contestant's, round by round."""
        theirs = self.measured[BASELINE, form, size].totals
        ours = self.measured[contestant, form, size].totals
        return Spread.of([a / b for a, b in zip(theirs, ours, strict=True)])

    @property
    def sizes(self) -> list[int]:
        return sorted({size for _, _, size in self.measured})

    def table(self) -> Iterator[str]:
        yield "| whole path | records | CPU µs a record | ratio | stages |"
        yield "|---|---|---|---|---|"
        for (name, form, size), one in self.measured.items():
            stages = ", ".join(f"{part} {v:.1f}" for part, v in one.stages.items())
            figures = f"{one.spread.shown('.1f')} | {self.ratio(name, form, size).shown('.1f')}"
            yield f"| {name}, {form} | {size:,} | {figures} | {stages} |"


def contestants(endpoint: Endpoint) -> dict[str, Worker]:
    environment = endpoint.environment
    found = {BASELINE: Worker("baseline", environment)}
    for name in transports():
        own = environment | {"MILLRACE_TRANSPORT": name}
        found[f"millrace, {name}"] = Worker("millrace", own)
    return found


def measure(endpoint: Endpoint, folder: Path, rounds: Mapping[int, int]) -> Paths:
    """Compare outputs first, then measure: so many rounds of each batch size after one to warm."""
    workers = contestants(endpoint)
    try:
        differences, planted, found = _compared(endpoint, workers, folder)
        measured: dict[Key, Measured] = {}
        for form in FORMS:
            for size, times in rounds.items():
                file = folder / "event.json"
                file.write_bytes(traffic(size, kpl=form == "KPL").event)
                for number in range(times + 1):
                    for name, worker in workers.items():
                        stages = worker.run(file)["stages"]
                        if number:
                            micros = {k: v / size * 1e6 for k, v in stages.items()}
                            measured.setdefault((name, form, size), Measured()).rounds.append(
                                micros
                            )
        return Paths(measured, differences, planted, found)
    finally:
        for worker in workers.values():
            worker.close()


def _compared(
    endpoint: Endpoint, workers: Mapping[str, Worker], folder: Path
) -> tuple[list[str], int, dict[str, int]]:
    """What differs between contestants, what was planted, and what each found of it."""
    differences: list[str] = []
    planted, found = 0, dict.fromkeys(workers, 0)
    for form, event in _events():
        planted += len(event.planted)
        outputs = {
            name: equality.output_of(endpoint, worker, event, folder / "event.json")
            for name, worker in workers.items()
        }
        for name, output in outputs.items():
            found[name] += output.found(event.planted)
            told = equality.differences(output, outputs[BASELINE], event)
            differences += [f"{name}, {form}: {one}" for one in told]
    return differences, planted, found


def _events() -> Iterator[tuple[str, Traffic]]:
    for form in FORMS:
        yield form, traffic(COMPARED_RECORDS, kpl=form == "KPL", malformed=PLANTED_SHARE)
