"""Lambda function: an SQS event source mapping's batches."""

from __future__ import annotations

from typing import Any

from ingest.process import process
from ingest.settings import Context, wiring
from ingest.sqs import read, respond
from ingest.visibility import hasten
from transform.records import Outcome


def handler(event: dict[str, Any], context: Context) -> dict[str, Any]:
    """SQS event in, `batchItemFailures` out."""
    delivery = read(event)
    if not len(delivery):
        return {"batchItemFailures": []}
    answer = respond(delivery, Outcome.all_retry(len(delivery)))  # if nothing better comes
    try:
        answer = respond(delivery, process(delivery, wiring(), context))
    finally:
        hasten(delivery, answer, wiring(), context)
    return answer
