"""Lambda function: a Kinesis event source mapping's batches."""

from __future__ import annotations

from typing import Any

from ingest.kinesis import read, respond
from ingest.process import process
from ingest.settings import Context, wiring


def handler(event: dict[str, Any], context: Context) -> dict[str, Any]:
    """Kinesis event in, `batchItemFailures` out."""
    delivery = read(event)
    if not len(delivery):
        return {"batchItemFailures": []}
    outcome = process(delivery, wiring(), context)
    return respond(delivery, outcome)
