"""Lambda function: the workflow's Hot stage, from landing object to hot items."""

from __future__ import annotations

from typing import Any

from ingest.settings import Context, wiring
from ingest.stages import write_hot


def handler(state: dict[str, Any], context: Context) -> dict[str, Any]:
    """The workflow's state in, the stage's answer out."""
    return write_hot(state, wiring(), context)
