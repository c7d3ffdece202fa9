"""One contestant in a process of its own, on a core of its own: an event in, CPU seconds out.

    python -m loadtests.bench.worker baseline|millrace CORE

It takes orders on its standard input, a line of JSON each, and answers on its standard output; what
a contestant prints goes nowhere. An event is given by its file, as Lambda gives it: JSON, decoded
by the runtime, whose cost is part of the path.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import orjson


class Contestant(Protocol):
    """A module that takes an event."""

    def run(self, event: bytes) -> dict[str, float]:
        """CPU seconds by stage; they add up to all that the event cost."""

    def told(self) -> dict[str, Any]:
        """What became of the last event's records."""


def main() -> None:
    name, core = sys.argv[1:3]
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.sched_setaffinity(0, {int(core)})
    contestant: Contestant = importlib.import_module(f"loadtests.bench.{name}_path")
    for line in sys.stdin.buffer:
        answers.write(orjson.dumps(obey(contestant, orjson.loads(line))) + b"\n")
        answers.flush()


def obey(contestant: Contestant, order: dict[str, Any]) -> dict[str, Any]:
    with open(order["event"], "rb") as file:  # noqa: PTH123  its reading is not measured
        event = file.read()
    stages = contestant.run(event)
    return {"stages": stages} | (contestant.told() if order.get("tell") else {})


class Clock:
    """CPU seconds of this process, all threads, by stage."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}

    def measure(self, stage: str, work: Callable[[], Any]) -> Any:
        began = time.process_time()
        found = work()
        self.stages[stage] = time.process_time() - began
        return found


class Context:
    """Lambda's context object, the little of it that handlers use."""

    function_name = "bench-ingest-stream"
    memory_limit_in_mb = 1_024
    invoked_function_arn = "arn:aws:lambda:us-east-1:000000000000:function:bench"
    aws_request_id = "00000000-0000-0000-0000-000000000000"

    def get_remaining_time_in_millis(self) -> int:
        return 60_000


if __name__ == "__main__":
    main()
