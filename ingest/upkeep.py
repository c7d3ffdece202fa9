"""The lake's upkeep, the half that DuckDB does: take in what landed, then seal what is final.

`infra/workflows/compact.asl.json` has both halves' steps.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ingest import sealing
from ingest.settings import Wiring
from ingest.steps import Step
from sinks.lake import manifest, work
from sinks.lake.compact import compact
from sinks.lake.workspace import Limits

MEMORY_SHARE = 0.5  # of the function's, for DuckDB: the rest is Arrow's, and what is being written


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


def sealed(_: Mapping[str, Any], wiring: Wiring) -> dict[str, Any]:
    """Put markers, wait for them, and seal what is final by then; which source is behind most."""
    sealer = sealing.sealer_of(wiring, limits())
    found = sealer.mark(wiring.settings.seal.marker_seconds)
    return sealing.counts(*sealer.seal()) | sealing.hindmost(found)


COMPACT: Mapping[str, Step] = {"compact": compacted, "seal": sealed}


def limits() -> Limits:
    """What a Lambda function of this size can give."""
    memory = int(os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "2048"))
    return Limits(int(memory * MEMORY_SHARE), threads=max(memory // 1_769, 1))
