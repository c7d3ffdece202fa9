"""The Hot stage alone: one landing object's items to DynamoDB, again and again."""

from __future__ import annotations

import time
from typing import Any

from ingest.handlers import hot
from loadtests.bench import millrace_path
from loadtests.bench.worker import Context

landed: dict[str, Any] = {}


def run(event: bytes) -> dict[str, float]:
    """The stage's CPU and wall seconds, and how many items it put."""
    if not landed:
        millrace_path.run(event)
        landed.update(millrace_path.last)
    began, cpu = time.perf_counter(), time.process_time()
    done = hot.handler(landed, Context())
    cpu, wall = time.process_time() - cpu, time.perf_counter() - began
    return {"cpu": cpu, "wall": wall, "items": done["items"]}
