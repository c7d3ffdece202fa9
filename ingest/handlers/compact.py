"""Lambda function: a step of the lake's upkeep, called by its scheduled workflow."""

from __future__ import annotations

from typing import Any

from ingest.settings import Context, wiring
from ingest.upkeep import step


def handler(state: dict[str, Any], _: Context) -> dict[str, Any]:
    """Which step in, counts out."""
    return step(state, wiring())
