"""Millrace as a contestant: its functions one after the other, as the state machine calls them.

The production handlers run as Lambda calls them. The execution that ingest starts is answered by
the endpoint and runs nothing, so the stages are called here, with the state as the ASL file makes
it; Settle is the state machine's own and costs no Lambda time.
"""

from __future__ import annotations

import json
import os
from typing import Any

from ingest.handlers import hot, kinesis, transform
from ingest.settings import wiring
from loadtests.bench.local import endpoint_of
from loadtests.bench.worker import Clock, Context
from sinks import landing

last: dict[str, Any] = {}


def run(event: bytes) -> dict[str, float]:
    clock = Clock()
    decoded = clock.measure("runtime decodes the event", lambda: json.loads(event))
    clock.measure("ingest", lambda: kinesis.handler(decoded, Context()))
    state = endpoint_of(os.environ).told()["state"]
    done = clock.measure("transform", lambda: transform.handler(state, Context()))
    state |= {"transform": done, "account": done["account"]}
    if done["hot_rows"]:
        state["hot"] = clock.measure("hot", lambda: hot.handler(state, Context()))
    last.clear()
    last.update(state)
    return clock.stages


def told() -> dict[str, Any]:
    """The bad records of the last event as quarantine has them, and its account."""
    bad: list[Any] = []
    if key := last["transform"]["quarantine_key"]:
        columns = ["_sequence", "_sub", "_reason"]
        rows = landing.read(wiring().bucket, key, columns)
        bad = [list(row.values()) for row in rows.to_pylist()]
    return {"bad": bad, "account": last["hot"]["account"], "written": last["hot"]["written"]}
