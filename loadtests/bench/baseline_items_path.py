"""The baseline's items alone: one event's rows to DynamoDB, again and again."""

from __future__ import annotations

import json
import time

from aws_lambda_powertools.utilities.data_classes.kinesis_stream_event import KinesisStreamRecord

from loadtests.bench import baseline


def run(event: bytes) -> dict[str, float]:
    """CPU and wall seconds from rows to items that are put, and how many."""
    rows = [baseline.row_of(KinesisStreamRecord(one)) for one in json.loads(event)["Records"]]
    began, cpu = time.perf_counter(), time.process_time()
    baseline.write_items([baseline.item_of(row) for row in rows])
    cpu, wall = time.process_time() - cpu, time.perf_counter() - began
    return {"cpu": cpu, "wall": wall, "items": float(len(rows))}
