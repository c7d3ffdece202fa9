"""What the benchmark sends: a seeded fleet's readings as Kinesis events, and what was planted.

A record is a station's reading (`station.toml`): about 230 bytes of JSON, 860 of a Lambda event, an
item of 19 attributes. KPL events hold the same readings in aggregates of the producer library's
default size.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from transform.contract import Contract
from transform.contract_file import load_contract
from transform.devices import Fleet, Message
from transform.kpl import aggregate

CONTRACT = Path(__file__).parent / "station.toml"
SEED = 20_261_125
NOON = 1_795_521_600_000_000  # 2026-11-24T12:00:00Z, in microseconds
SPAN_MICROS = 10 * 60 * 1_000_000  # of event times, before their arrival
AGGREGATE_BYTES_MAX = 51_200  # the producer library's AggregationMaxSize, as it comes
ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/bench"
SHARD = "shardId-000000000003"
FIRST_SEQUENCE = 49_590_338_271_490_256_608_559_692_538_361_571_095_921_575_989_136_588_898


@dataclass(frozen=True)
class Planted:
    """A bad record: its source record, its place in it where aggregated, and the reason."""

    sequence: str
    sub: int
    reason: str


@dataclass(frozen=True)
class Traffic:
    """A Lambda event as it comes, how many readings it holds, and which of them are bad."""

    event: bytes
    records: int
    planted: tuple[Planted, ...]


def contract() -> Contract:
    return load_contract(str(CONTRACT))


def messages(count: int, malformed: float = 0.0) -> list[Message]:
    fleet = Fleet(
        contract(), SEED, NOON - SPAN_MICROS, NOON, devices=200, malformed=malformed, repeats=0
    )
    return list(fleet.messages(count))


def traffic(count: int, *, kpl: bool, malformed: float = 0.0) -> Traffic:
    """An event of `count` readings."""
    made = messages(count, malformed)
    groups = _aggregates(made) if kpl else [[message] for message in made]
    bodies = [
        aggregate([(m.device, m.body) for m in group]) if kpl else group[0].body for group in groups
    ]
    records = [
        _record(n, group[0].device, body)
        for n, (group, body) in enumerate(zip(groups, bodies, strict=True))
    ]
    planted = tuple(
        Planted(_sequence(n), sub, message.planted)
        for n, group in enumerate(groups)
        for sub, message in enumerate(group)
        if message.planted
    )
    return Traffic(orjson.dumps({"Records": records}), count, planted)


def _aggregates(made: Sequence[Message]) -> list[list[Message]]:
    groups: list[list[Message]] = []
    size = AGGREGATE_BYTES_MAX
    for message in made:
        if size + len(message.body) > AGGREGATE_BYTES_MAX:
            groups.append([])
            size = 0
        groups[-1].append(message)
        size += len(message.body)
    return groups


def _sequence(number: int) -> str:
    return str(FIRST_SEQUENCE + number)


def _record(number: int, key: str, body: bytes) -> dict[str, object]:
    """One record as Lambda's Kinesis event has it."""
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": key,
            "sequenceNumber": _sequence(number),
            "data": base64.b64encode(body).decode(),
            "approximateArrivalTimestamp": (NOON // 1_000 + number % 1_000) / 1_000,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"{SHARD}:{_sequence(number)}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::000000000000:role/bench-ingest-stream",
        "awsRegion": "us-east-1",
        "eventSourceARN": ARN,
    }
