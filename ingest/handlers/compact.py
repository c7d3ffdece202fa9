"""Lambda function: the lake's compaction, a step of its scheduled workflow."""

from __future__ import annotations

from typing import Any

from ingest.settings import Context, wiring
from ingest.upkeep import COMPACT, step


def handler(state: dict[str, Any], _: Context) -> dict[str, Any]:
    """Which step in, counts out."""
    return step(COMPACT, state, wiring())
