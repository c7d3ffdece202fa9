"""Lambda function: the workflow's Transform stage, from raw object to landing and quarantine."""

from __future__ import annotations

from typing import Any

from ingest.settings import Context, wiring
from ingest.stages import transform


def handler(state: dict[str, Any], context: Context) -> dict[str, Any]:
    """The workflow's state in, the stage's answer out."""
    return transform(state, wiring(), context)
