"""Lambda function: The workflow's Transform stage: raw object in, landing and quarantine objects out."""

from __future__ import annotations

from typing import Any

from ingest.settings import wiring
from ingest.stages import transform


def handler(state: dict[str, Any], context: object) -> dict[str, Any]:  # noqa: ARG001
    """The workflow's state in, the stage's answer out."""
    return transform(state, wiring())
