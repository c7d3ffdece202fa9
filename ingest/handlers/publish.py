"""Lambda function: the lake shown to engines, and cleared, as steps of its scheduled workflow."""

from __future__ import annotations

from typing import Any

from ingest.publishing import PUBLISH
from ingest.settings import Context, wiring
from ingest.upkeep import step


def handler(state: dict[str, Any], _: Context) -> dict[str, Any]:
    """Which step in, counts out."""
    return step(PUBLISH, state, wiring())
