"""The baseline: the same job as its users write it, as well as they write it.

Powertools' BatchProcessor with partial answers, one pydantic model that parses and judges,
TypeSerializer and boto3's client for DynamoDB, `Table.from_pylist` and zstd for Parquet,
aws-kinesis-agg for the producer library's aggregates. Rules, items and rows are those of
`station.toml`; what only Millrace writes (the archive, quarantine, the ledger) it does not write.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
from aws_kinesis_agg.deaggregator import deaggregate_records
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.batch import (
    BatchProcessor,
    EventType,
    process_partial_response,
)
from boto3.dynamodb.types import TypeSerializer
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.data_classes.kinesis_stream_event import (
        KinesisStreamRecord,
    )

BUCKET = os.environ["MILLRACE_BUCKET"]
TABLE = os.environ["MILLRACE_HOT_TABLE"]
BODY_MAX_BYTES = 8_192
DEVICE_MAX_BYTES = 1_024
FUTURE_MAX = timedelta(seconds=300)
TTL_SECONDS = 30 * 86_400
ITEMS_A_CALL = 25
AGGREGATED = "84mawg"  # how an aggregate begins, in base64
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

logger = Logger()
processor = BatchProcessor(event_type=EventType.KinesisDataStreams)
serializer = TypeSerializer()
dynamodb = boto3.client("dynamodb")
s3 = boto3.client("s3")

Float = Annotated[float, Field(allow_inf_nan=False)]


class Wind(BaseModel):
    """The reading's one nested object."""

    model_config = ConfigDict(strict=True, extra="allow")

    speed: Annotated[Float, Field(ge=0, le=120)] | None = None
    dir: Annotated[Float, Field(ge=0, le=360)] | None = None


class Reading(BaseModel):
    """A station's reading as it is sent."""

    model_config = ConfigDict(strict=True, extra="allow")

    id: Annotated[str, StringConstraints(max_length=DEVICE_MAX_BYTES)]
    ts: int
    seq: Annotated[int, Field(ge=0)]
    fw: str | None = None
    temp: Annotated[Float, Field(ge=-60, le=125)]
    hum: Annotated[Float, Field(ge=0, le=100)] | None = None
    press: Annotated[Float, Field(ge=300, le=1200)] | None = None
    wind: Wind | None = None
    rain: Annotated[Float, Field(ge=0, le=500)] | None = None
    bat: Annotated[Float, Field(ge=0, le=5)] | None = None
    rssi: Annotated[int, Field(ge=-150, le=0)] | None = None
    lat: Annotated[Float, Field(ge=-90, le=90)] | None = None
    lon: Annotated[Float, Field(ge=-180, le=180)] | None = None
    charging: bool | None = None
    status: Literal["ok", "low_battery", "degraded"] | None = "ok"


SCHEMA = pa.schema(
    [
        ("device_id", pa.string()),
        ("event_time", pa.timestamp("us", tz="UTC")),
        ("sequence", pa.int64()),
        ("firmware", pa.string()),
        ("temperature", pa.float64()),
        ("humidity", pa.float64()),
        ("pressure", pa.float64()),
        ("wind_speed", pa.float64()),
        ("wind_direction", pa.float64()),
        ("rain", pa.float64()),
        ("battery", pa.float64()),
        ("signal", pa.int64()),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
        ("charging", pa.bool_()),
        ("status", pa.string()),
        ("_rescued", pa.string()),
        ("_record_id", pa.string()),
        ("_digest", pa.binary(16)),
        ("_stream", pa.string()),
        ("_shard", pa.string()),
        ("_sequence", pa.string()),
        ("_sub", pa.int32()),
        ("_arrival", pa.timestamp("us", tz="UTC")),
    ]
)


@dataclass
class Timing:
    """CPU seconds of the parts of one invocation, for the benchmark's table."""

    began: float = field(default_factory=time.process_time)
    parts: dict[str, float] = field(default_factory=dict)

    def mark(self, name: str) -> None:
        now = time.process_time()
        self.parts[name] = now - self.began
        self.began = now


last = Timing()


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Kinesis event in, `batchItemFailures` out."""
    global last  # noqa: PLW0603  read by the benchmark after each invocation
    last = Timing()
    rows: list[dict[str, Any]] = []
    if event["Records"][0]["kinesis"]["data"].startswith(AGGREGATED):
        event = {"Records": deaggregate_records(event["Records"])}
    answer = process_partial_response(
        event=event,
        record_handler=lambda record: rows.append(row_of(record)),
        processor=processor,
        context=context,
    )
    last.mark("parse and judge")
    write_items([item_of(row) for row in rows])
    last.mark("items to DynamoDB")
    write_rows(rows)
    last.mark("rows to Parquet and S3")
    logger.info("batch written", rows=len(rows), failed=len(answer["batchItemFailures"]))
    return answer


def row_of(record: KinesisStreamRecord) -> dict[str, Any]:
    """A record's row. Raises where it is bad: then the processor hands it back."""
    kinesis = record.kinesis
    body = kinesis.data_as_bytes()
    if len(body) > BODY_MAX_BYTES:
        raise ValueError("the body is too large")
    reading = Reading.model_validate_json(body)
    event_time = EPOCH + timedelta(milliseconds=reading.ts)
    arrival = EPOCH + timedelta(milliseconds=round(kinesis.approximate_arrival_timestamp * 1_000))
    if event_time > arrival + FUTURE_MAX:
        raise ValueError("the event time is in the future")
    rescued = rest_of(reading)
    wind = reading.wind or Wind()
    return {
        "device_id": reading.id,
        "event_time": event_time,
        "sequence": reading.seq,
        "firmware": reading.fw,
        "temperature": reading.temp,
        "humidity": reading.hum,
        "pressure": reading.press,
        "wind_speed": wind.speed,
        "wind_direction": wind.dir,
        "rain": reading.rain,
        "battery": reading.bat,
        "signal": reading.rssi,
        "latitude": reading.lat,
        "longitude": reading.lon,
        "charging": reading.charging,
        "status": reading.status or "ok",
        "_rescued": rescued,
        "_record_id": f"{reading.id}/{utc_text(event_time)}/{reading.seq}",
        "_digest": hashlib.blake2b(body, digest_size=16).digest(),
        "_stream": record["eventSourceARN"].rpartition("/")[2],
        "_shard": record["eventID"].partition(":")[0],
        "_sequence": kinesis.sequence_number,
        "_sub": kinesis.get("subSequenceNumber", 0),
        "_arrival": arrival,
    }


def rest_of(reading: Reading) -> str | None:
    """What the model does not name, as JSON. Raises for NaN, which JSON has not."""
    rest = dict(reading.model_extra or {})
    if reading.wind is not None and reading.wind.model_extra:
        rest["wind"] = reading.wind.model_extra
    if not rest:
        return None
    return json.dumps(rest, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def utc_text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def item_of(row: dict[str, Any]) -> dict[str, Any]:
    """A row's hot item, as the TypeSerializer takes it."""
    moment = utc_text(row["event_time"])
    item = {
        "pk": f"{row['device_id']}#{moment[:10]}",
        "sk": f"{moment}#{row['_digest'].hex()}",
        "expires_at": int(row["event_time"].timestamp()) + TTL_SECONDS,
        "event_time": moment,
    }
    for name in ITEM_FIELDS:
        value = row[name]
        if value is not None:
            item[name] = Decimal(repr(value)) if isinstance(value, float) else value
    return item


ITEM_FIELDS = [f.name for f in SCHEMA if f.name == "_rescued" or f.name[0] != "_"]
ITEM_FIELDS.remove("event_time")


def write_items(items: list[dict[str, Any]]) -> None:
    """BatchWriteItem, 25 a call; what is not taken goes again after a pause."""
    distinct = {(item["pk"], item["sk"]): item for item in items}
    puts: list[Any] = [
        {
            "PutRequest": {
                "Item": {name: serializer.serialize(value) for name, value in item.items()}
            }
        }
        for item in distinct.values()
    ]
    pause = 0.05
    while puts:
        chunk, puts = puts[:ITEMS_A_CALL], puts[ITEMS_A_CALL:]
        answer = dynamodb.batch_write_item(RequestItems={TABLE: chunk})
        unprocessed = answer["UnprocessedItems"].get(TABLE, [])
        if unprocessed:
            puts.extend(unprocessed)
            time.sleep(random.uniform(0, pause))
            pause = min(2 * pause, 5.0)


def write_rows(rows: list[dict[str, Any]]) -> None:
    """One Parquet object, named by its digest."""
    if not rows:
        return
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), sink, compression="zstd")
    data = sink.getvalue()
    key = f"landing/station/{rows[0]['_arrival']:%Y-%m-%d/%H}/{hashlib.sha256(data).hexdigest()}"
    s3.put_object(Bucket=BUCKET, Key=f"{key}.parquet", Body=data)
