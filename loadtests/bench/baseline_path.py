"""The baseline as a contestant: one function, one handler."""

from __future__ import annotations

import json
from typing import Any

from loadtests.bench import baseline
from loadtests.bench.worker import Clock, Context


def run(event: bytes) -> dict[str, float]:
    clock = Clock()
    decoded = clock.measure("runtime decodes the event", lambda: json.loads(event))
    baseline.handler(decoded, Context())
    return clock.stages | baseline.last.parts


def told() -> dict[str, Any]:
    """The bad records of the last event, as the processor names them."""
    failed = (message["kinesis"] for message in baseline.processor.fail_messages)
    return {
        "bad": [[one["sequenceNumber"], one.get("subSequenceNumber", 0), ""] for one in failed],
    }
