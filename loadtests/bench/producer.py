"""What the producer costs, beside the loops that people write, in one run.

    python -m loadtests.bench.producer [--records 50000] [--rounds 5]

Each way sends the same telemetry messages with boto3 to an endpoint on loopback that takes all and
keeps nothing. Ways take turns; the figures are medians over the rounds. CPU is that of this process
alone, all threads, without the endpoint's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import boto3

from ingest.producer import Producer, Spill, Stream
from transform.contract_file import load_contract
from transform.devices import Fleet

STREAM = "bench"
SEED = 20_261_124
SPAN_MICROS = 30 * 60 * 1_000_000
START = 1_795_521_600_000_000  # 2026-11-24T12:00:00Z
SINGLE_SHARE = 25  # one record a call is so slow that it gets only this part of them
ROOT = Path(__file__).parents[2]

Keyed = tuple[str, bytes]
Way = Callable[[Any, Sequence[Keyed]], None]


def one_by_one(kinesis: Any, messages: Sequence[Keyed]) -> None:
    """The loop of the first example that one finds."""
    for key, data in messages:
        kinesis.put_record(StreamName=STREAM, PartitionKey=key, Data=data)


def by_500(kinesis: Any, messages: Sequence[Keyed]) -> None:
    """The loop of the second example: batches, and again what failed of them."""
    for start in range(0, len(messages), 500):
        records = [
            {"PartitionKey": key, "Data": data} for key, data in messages[start : start + 500]
        ]
        while records:
            answer = kinesis.put_records(StreamName=STREAM, Records=records)
            told = zip(records, answer["Records"], strict=True)
            records = [record for record, result in told if "ErrorCode" in result]


def produced(
    kinesis: Any, messages: Sequence[Keyed], *, aggregate: bool, spill: Any = None
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        kept = None if spill is None else Spill(directory, when=spill)
        stream = Stream(kinesis, STREAM, aggregate=aggregate)
        with Producer(stream, kept, buffer_bytes=64 * 2**20) as producer:
            for key, data in messages:
                producer.put(key, data)


WAYS: dict[str, Way] = {
    "boto3, put_record": one_by_one,
    "boto3, put_records of 500": by_500,
    "Producer, plain": partial(produced, aggregate=False),
    "Producer, plain, Spill": partial(produced, aggregate=False, spill="always"),
    "Producer, KPL": partial(produced, aggregate=True),
    "Producer, KPL, Spill(when='away')": partial(produced, aggregate=True, spill="away"),
    "Producer, KPL, Spill": partial(produced, aggregate=True, spill="always"),
}


@dataclass
class Figures:
    """Of one way, a figure a round."""

    per_second: list[float] = field(default_factory=list)
    cpu_micros: list[float] = field(default_factory=list)

    def take(self, way: Way, kinesis: Any, messages: Sequence[Keyed]) -> None:
        began, cpu = time.perf_counter(), time.process_time()
        way(kinesis, messages)
        self.per_second.append(len(messages) / (time.perf_counter() - began))
        self.cpu_micros.append((time.process_time() - cpu) / len(messages) * 1e6)


@contextmanager
def endpoint() -> Iterator[str]:
    command = [sys.executable, "-m", "loadtests.bench.answering"]
    with subprocess.Popen(  # noqa: S603  our own
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"  # type: ignore[union-attr]
        finally:
            server.kill()


def client(url: str) -> Any:
    return boto3.client(
        "kinesis",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",  # noqa: S106  nobody checks it
    )


def import_millis(statement: str, before: str = "pass") -> float:
    """What a statement adds to the start of an interpreter that has run another."""

    def started(program: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)  # noqa: S603
        return time.perf_counter() - began

    return 1_000 * median(started(f"{before}; {statement}") - started(before) for _ in range(9))


def measure(records: int, rounds: int) -> dict[str, Figures]:
    fleet = Fleet(load_contract("telemetry"), SEED, START, START + SPAN_MICROS, malformed=0)
    messages = [(message.device, message.body) for message in fleet.messages(records)]
    figures = {name: Figures() for name in WAYS}
    with endpoint() as url:
        kinesis = client(url)
        for _ in range(rounds):
            for name, way in WAYS.items():
                few = messages[: max(records // SINGLE_SHARE, 1)]
                figures[name].take(way, kinesis, few if way is one_by_one else messages)
    return figures


def report(figures: dict[str, Figures]) -> Iterator[str]:
    base = median(figures["boto3, put_records of 500"].cpu_micros)
    yield f"{'':36}{'records/s':>10}{'CPU µs/record':>16}{'of the loop':>14}"
    for name, told in figures.items():
        cpu = median(told.cpu_micros)
        yield f"{name:36}{median(told.per_second):>10,.0f}{cpu:>16.1f}{cpu / base:>13.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    for line in report(measure(asked.records, asked.rounds)):
        sys.stdout.write(line + "\n")
    boto, own = (
        import_millis("import boto3"),
        import_millis("import ingest.producer", "import boto3"),
    )
    sys.stdout.write(f"import boto3 {boto:.0f} ms, and ingest.producer {own:.0f} ms more\n")


if __name__ == "__main__":
    main()
