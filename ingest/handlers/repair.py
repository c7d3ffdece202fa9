"""Lambda function: the repair queue's event source mapping, from debts to hot items."""

from __future__ import annotations

from typing import Any

from ingest.repair import pay, read, respond
from ingest.settings import Context, wiring


def handler(event: dict[str, Any], context: Context) -> dict[str, Any]:
    """SQS event of debts in, `batchItemFailures` out."""
    return respond(pay(read(event), wiring(), context))
