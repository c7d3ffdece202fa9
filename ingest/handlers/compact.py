"""Lambda function: the lake's compaction and its seals, steps of its scheduled workflow."""

from __future__ import annotations

from typing import Any

from ingest.settings import Context, wiring
from ingest.steps import step
from ingest.upkeep import COMPACT


def handler(state: dict[str, Any], _: Context) -> dict[str, Any]:
    """Which step in, counts out."""
    return step(COMPACT, state, wiring())
