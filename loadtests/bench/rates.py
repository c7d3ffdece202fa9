"""Items a second that reach DynamoDB when each of its answers takes 5 ms.

A client has one core; the endpoint has another and waits without being busy. `wall` is items over
seconds, which is what a function of one core reaches; `cpu` is items over seconds of processor,
which it would reach if it hid all waiting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from loadtests.bench.local import Endpoint, Worker
from loadtests.bench.paths import BASELINE, transports
from loadtests.bench.traffic import traffic
from loadtests.spread import Spread

LATENCY_MS = 5.0


@dataclass
class Rates:
    """Of one contestant, a figure a round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def spread(self) -> tuple[Spread, Spread]:
        return Spread.of(self.wall), Spread.of(self.cpu)


def measure(endpoint: Endpoint, folder: Path, rounds: int, records: int) -> Mapping[str, Rates]:
    """Rounds of every contestant after one to warm."""
    file = folder / "event.json"
    file.write_bytes(traffic(records, kpl=False).event)
    workers = {BASELINE: Worker("baseline_items", endpoint.environment)}
    for name in transports():
        own = endpoint.environment | {"MILLRACE_TRANSPORT": name}
        workers[f"millrace, {name}"] = Worker("hot", own)
    rates = {name: Rates() for name in workers}
    endpoint.set(wait_ms=LATENCY_MS)
    try:
        for number in range(rounds + 1):
            for name, worker in workers.items():
                took = worker.run(file)["stages"]
                if number:
                    rates[name].wall.append(took["items"] / took["wall"])
                    rates[name].cpu.append(took["items"] / took["cpu"])
    finally:
        endpoint.set()
        for worker in workers.values():
            worker.close()
    return rates
