"""Upkeep of a lake, as steps of a scheduled workflow (`infra/workflows/compact.asl.json`).

Each step is one commit or none, so that an execution may end anywhere. What the world refuses is
raised: the workflow tries again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from ingest import log
from ingest.settings import Wiring
from sinks.lake import manifest, work
from sinks.lake.compact import compact
from sinks.lake.workspace import Limits

MEMORY_SHARE = 0.5  # of the function's, for DuckDB: the rest is Arrow's, and what is being written


Step = Callable[[Mapping[str, Any], Wiring], dict[str, Any]]
"""What the workflow's state says in, counts out."""


def step(steps: Mapping[str, Step], state: Mapping[str, Any], wiring: Wiring) -> dict[str, Any]:
    """Do what `state["step"]` names; returns counts. Raises `Raced`, `Clash`, a `SinkError`."""
    name = state.get("step", "")
    if name not in steps:
        there = ", ".join(sorted(steps))
        raise ValueError(f"step is {name!r}; the steps of this function are: {there}")
    told = steps[name](state, wiring)
    log.info("lake upkeep", step=name, contract=wiring.contract.name, **told)
    return told


def compacted(state: Mapping[str, Any], wiring: Wiring) -> dict[str, Any]:
    """Take in at most `rows_max` rows; `left` are for the next step."""
    choice = work.Choice(
        int(state.get("rows_max", work.ROWS_MAX)), bool(state.get("orphans")), limits()
    )
    bucket, contract = wiring.bucket, wiring.contract
    lake = manifest.read(bucket, contract.name)
    plan = work.find(bucket, wiring.ledger_table, lake, choice, wiring.clock)
    done = compact(bucket, contract, plan, choice.limits, wiring.clock)
    return {
        "objects": done.objects,
        "rows": done.rows,
        "repeats": done.repeats,
        "hours": len(done.hours),
        "made_anew": done.anew,
        "left": done.left,
        "version": done.lake.version,
        "lake_rows": done.lake.rows,
        "seconds": round(done.seconds, 3),
    }


COMPACT: Mapping[str, Step] = {"compact": compacted}


def limits() -> Limits:
    """What a Lambda function of this size can give."""
    memory = int(os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "2048"))
    return Limits(int(memory * MEMORY_SHARE), threads=max(memory // 1_769, 1))
