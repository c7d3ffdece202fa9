"""What a mapping leaves of a discarded batch at its on-failure destination, as AWS writes it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from infra.esm.events import Place, kinesis_event
from infra.esm.stream import Discard


def document(
    discard: Discard, place: Place, now: float, request_id: str, *, payload: bool
) -> dict[str, Any]:
    """The JSON document: metadata, and with `payload` the whole event of the invocation as text.

    S3 gets the payload, SQS and SNS do not [aws.md 1.3, B,A,D; pitfalls 5]: from them a record can
    only be had as long as the stream keeps it. The condition of an age limit is the one that
    people report, AWS's pages show only the other [3].
    """
    first, last = discard.records[0], discard.records[-1]
    response: dict[str, Any] = {"statusCode": 200, "executedVersion": "$LATEST"}
    if discard.last is not None and discard.last.function_error:
        response["functionError"] = discard.last.function_error
    told: dict[str, Any] = {
        "requestContext": {
            "requestId": request_id,
            "functionArn": place.function_arn,
            "condition": discard.condition,
            "approximateInvokeCount": discard.invocations,
        },
        "responseContext": response if discard.invocations else None,
        "version": "1.0",
        "timestamp": _iso(now),
        "KinesisBatchInfo": {
            "shardId": place.shard,
            "startSequenceNumber": first.identifier,
            "endSequenceNumber": last.identifier,
            "approximateArrivalOfFirstRecord": _iso(first.arrival),
            "approximateArrivalOfLastRecord": _iso(last.arrival),
            "batchSize": len(discard.records),
            "streamArn": place.source_arn,
        },
    }
    if payload:
        told["payload"] = kinesis_event(discard.records, place).decode()
    return told


def object_key(mapping: str, shard: str, now: float, unique: str) -> str:
    """The S3 key: aws/lambda/<mapping>/<shard>/YYYY/MM/DD/YYYY-MM-DDTHH.MM.SS-<uuid> [D]."""
    moment = datetime.fromtimestamp(now, UTC)
    return f"aws/lambda/{mapping}/{shard}/{moment:%Y/%m/%d/%Y-%m-%dT%H.%M.%S}-{unique}"


def _iso(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
