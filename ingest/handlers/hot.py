"""Lambda function: The workflow's Hot stage: landing object in, hot items out."""

from __future__ import annotations

from typing import Any

from ingest.settings import wiring
from ingest.stages import write_hot


def handler(state: dict[str, Any], context: object) -> dict[str, Any]:  # noqa: ARG001
    """The workflow's state in, the stage's answer out."""
    return write_hot(state, wiring())
