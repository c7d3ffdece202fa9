"""AWS's own sample events, and events shaped like them, through the whole pipeline.

`golden/*.json` are what the Lambda guide documents for Kinesis and SQS mappings, with readings as
bodies. Each goes through the real handlers, the real state machine and real clients.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from ingest import kinesis, settings, sqs
from ingest.handlers import hot as hot_handler
from ingest.handlers import kinesis as kinesis_handler
from ingest.handlers import sqs as sqs_handler
from ingest.handlers import transform as transform_handler
from sinks import landing, ledger, raw
from tests.support import SESSION, TOPOLOGY, Clock, Cloud, Context, InProcessWorkflow, cloud
from transform.kpl import aggregate
from transform.records import RAW_SCHEMA

GOLDEN = Path(__file__).parent / "golden"
MILLI = 1_000  # microseconds
INGEST = Context(180_000)

SEQUENCES = [
    "49590338271490256608559692538361571095921575989136588898",
    "49590338271490256608559692540925702759324208523137515618",
    "49590338271490256608559692540925702759324208523137515619",
    "49590338271490256608559692540925702759324208523137515620",
]
MESSAGES = [
    "059f36b4-87a3-44ab-83d2-661975830a7d",
    "2e1424d4-f796-459a-8184-9c92662be6da",
    "b5c0f6fe-6a5f-4f3c-93ee-6e43b5a5a8ee",
]
FIFO_MESSAGES = [
    "11d6ee51-4cc7-4302-9e22-7cd8afdaadf5",
    "4a1ef2e5-3c4f-4d13-b9a4-0a5a3d3a9a4e",
    "7c2d9c1e-7d0b-4b0e-8f7c-6a0f5f4f2f11",
    "c0ffee00-4cc7-4302-9e22-7cd8afdaadf5",
]
PUMP_7_FIRST = b'{"device_id":"pump-7","ts":1545084650987,"seq":1,"readings":{"temperature":21.5}}'


def golden(name: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((GOLDEN / name).read_text())
    return event


class Pipeline:
    """The functions of a deployed pipeline, wired by their environment to a mocked account."""

    def __init__(self, account: Cloud) -> None:
        self.cloud = account
        self.clock = Clock()
        self.wiring = settings.wiring()
        self.wiring.clock = self.clock
        self.wiring.waiting = self.clock.waiting()
        self.workflow = InProcessWorkflow(
            TOPOLOGY,
            {
                TOPOLOGY.transform.name: transform_handler.handler,
                TOPOLOGY.hot.name: hot_handler.handler,
            },
            account.dynamodb,
        )
        self.wiring.workflow = self.workflow

    def attempt(self) -> ledger.Attempt:
        (attempt,) = ledger.attempts(self.cloud.ledger)
        return attempt

    def landed(self) -> list[tuple[Any, ...]]:
        """Sequence, sub-sequence, device and counter of each landing row."""
        (key,) = self.cloud.keys("landing/")
        rows = landing.read(self.cloud.bucket, key)
        columns = ("_sequence", "_sub", "device_id", "sequence")
        return list(zip(*(rows.column(name).to_pylist() for name in columns), strict=True))

    def set_aside(self) -> list[tuple[Any, ...]]:
        """Sequence, sub-sequence, reason and bytes of each quarantine row."""
        (key,) = self.cloud.keys("quarantine/")
        rows = landing.read(self.cloud.bucket, key)
        columns = ("_sequence", "_sub", "_reason", "_body")
        return list(zip(*(rows.column(name).to_pylist() for name in columns), strict=True))

    def hot_keys(self) -> list[tuple[str, str]]:
        """Partition key and time of each hot item."""
        return sorted((pk, sk.partition("#")[0]) for pk, sk in self.cloud.items())


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    for name, value in TOPOLOGY.ingest_stream.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MILLRACE_TRANSPORT", "boto3")  # behind which moto stands
    settings.wiring.cache_clear()
    with cloud() as account:
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", SESSION)
        yield Pipeline(account)
    settings.wiring.cache_clear()


def refuse(pipeline: Pipeline, *devices: str) -> None:
    """Let the hot table leave these devices' items unprocessed for ever."""

    class Refusing:
        def batch_write_item(self, RequestItems: dict[str, Any]) -> Any:  # noqa: N803
            ((name, puts),) = RequestItems.items()
            kept = [
                put for put in puts if put["PutRequest"]["Item"]["device_id"]["S"] not in devices
            ]
            if kept:
                pipeline.cloud.dynamodb.batch_write_item(RequestItems={name: kept})
            return {"UnprocessedItems": {name: [put for put in puts if put not in kept]}}

    table = pipeline.wiring.hot_table
    pipeline.wiring.hot_table = type(table)(Refusing(), table.name)


# Reading


def test_kinesis_event_field_by_field():
    delivery = kinesis.read(golden("kinesis.json"))
    assert (delivery.source, delivery.stream) == ("kinesis", "lambda-stream")
    assert delivery.shards == ["shardId-000000000006"] * 4
    assert delivery.sequences == SEQUENCES
    assert delivery.groups == ["1", "pump-7", "pump-8", "pump-9"]
    assert delivery.arrivals == [
        1_545_084_650_987 * MILLI,
        1_545_084_711_166 * MILLI,
        1_545_084_711_172 * MILLI,
        1_545_084_711_200 * MILLI,
    ]
    assert delivery.attributes == [None] * 4
    assert delivery.bodies[0] == b"Hello, this is a test."
    assert delivery.bodies[1] == (
        b'{"device_id":"pump-7","ts":1545084650987,"seq":17,"readings":{"temperature":21.5}}'
    )


def test_kpl_event_stays_closed():
    delivery = kinesis.read(golden("kinesis_kpl.json"))
    members = [("pump-7", PUMP_7_FIRST), ("pump-9", b"{}")]
    assert delivery.bodies[1] == aggregate(members)
    assert delivery.sequences == SEQUENCES
    assert delivery.groups == ["a", "a", "a", "pump-9"]


def test_sqs_event_field_by_field():
    delivery = sqs.read(golden("sqs.json"))
    assert (delivery.source, delivery.stream) == ("sqs", "my-queue")
    assert delivery.shards == [""] * 3
    assert delivery.sequences == MESSAGES
    assert delivery.groups == [None] * 3
    assert delivery.arrivals == [
        1_545_082_649_183 * MILLI,
        1_545_082_649_650 * MILLI,
        1_545_082_649_683 * MILLI,
    ]
    assert delivery.bodies[0] == b"Test message."
    first, second, third = delivery.attributes
    assert json.loads(first or "") == {
        "myAttribute": {
            "stringValue": "myValue",
            "stringListValues": [],
            "binaryListValues": [],
            "dataType": "String",
        }
    }
    assert second is None
    assert json.loads(third or "")["unit"]["stringValue"] == "°C"
    assert json.loads(third or "")["raw"]["binaryValue"] == "3q2+7w=="


def test_fifo_event_field_by_field():
    delivery = sqs.read(golden("sqs_fifo.json"))
    assert (delivery.source, delivery.stream) == ("sqs", "fifo.fifo")
    assert delivery.sequences == FIFO_MESSAGES
    assert delivery.groups == ["pump-7", "pump-8", "pump-7", "pump-8"]
    assert delivery.arrivals == [(1_573_251_510_774 + n) * MILLI for n in range(4)]


# From event to answer


def test_kinesis_event_comes_to_rest(pipeline: Pipeline):
    assert kinesis_handler.handler(golden("kinesis.json"), INGEST) == {"batchItemFailures": []}
    walk = ["Transform", "Any hot rows?", "Hot", "Settle", "Any rejects?", "Tell producers"]
    assert pipeline.workflow.entered == [*walk, "Settled"]
    told = [entry["Detail"] for entry in pipeline.workflow.told]
    assert [(one["reason"], one["count"]) for one in told] == [
        ("malformed_json", 1),
        ("future_time", 1),
    ]
    assert {one["settled_at"] for one in told} == {"2026-11-24T12:00:07.123Z"}
    assert {one["quarantine_key"] for one in told} == {*pipeline.cloud.keys("quarantine/")}

    (raw_key,) = pipeline.cloud.keys("raw/")
    archived = raw.read(pipeline.cloud.bucket, raw_key)
    assert raw_key.startswith("raw/2018-12-17/22/")
    assert archived.schema == RAW_SCHEMA
    assert archived.column("_sequence").to_pylist() == SEQUENCES
    assert archived.column("_body")[0].as_py() == b"Hello, this is a test."

    assert pipeline.landed() == [
        (SEQUENCES[1], 0, "pump-7", 17),
        (SEQUENCES[2], 0, "pump-8", 18),
    ]
    assert [row[:3] for row in pipeline.set_aside()] == [
        (SEQUENCES[0], 0, "malformed_json"),
        (SEQUENCES[3], 0, "future_time"),
    ]
    # pump-8's reading was past the table's TTL when it arrived: it is landed, and not hot.
    assert pipeline.hot_keys() == [("pump-7#2018-12-17", "2018-12-17T22:10:50.987000Z")]

    attempt = pipeline.attempt()
    assert (attempt.received, attempt.delivered, attempt.quarantined) == (4, 2, 2)
    assert (attempt.landing_rows, attempt.quarantine_rows) == (2, 2)
    assert (attempt.hot_rows, attempt.hot_written) == (1, 1)
    assert (attempt.outcome, attempt.reason, attempt.retry) == ("done", "", ())
    assert attempt.raw_key == raw_key
    assert attempt.settled_at == "2026-11-24T12:00:07.123Z"


def test_aggregates_come_to_rest_record_by_record(pipeline: Pipeline):
    answer = kinesis_handler.handler(golden("kinesis_kpl.json"), INGEST)
    assert answer == {"batchItemFailures": []}
    assert pipeline.landed() == [
        (SEQUENCES[0], 0, "pump-7", 1),
        (SEQUENCES[0], 1, "pump-7", 2),
        (SEQUENCES[0], 2, "pump-8", 1),
        (SEQUENCES[1], 0, "pump-7", 1),
        (SEQUENCES[3], 0, "pump-9", 3),
    ]
    malformed = kinesis.read(golden("kinesis_kpl.json")).bodies[2]
    assert sorted(pipeline.set_aside()) == [
        (SEQUENCES[1], 1, "missing_field", b"{}"),
        (SEQUENCES[2], 0, "malformed_aggregate", malformed),
    ]
    # The second aggregate repeats the first's reading: one item, though two rows.
    assert pipeline.hot_keys() == [
        ("pump-7#2018-12-17", "2018-12-17T22:10:50.987000Z"),
        ("pump-7#2018-12-17", "2018-12-17T22:10:51.987000Z"),
        ("pump-8#2018-12-17", "2018-12-17T22:10:50.987000Z"),
        ("pump-9#2018-12-17", "2018-12-17T22:10:50.987000Z"),
    ]
    attempt = pipeline.attempt()
    assert (attempt.received, attempt.delivered, attempt.quarantined) == (4, 2, 2)
    assert (attempt.landing_rows, attempt.hot_rows, attempt.hot_written) == (5, 5, 5)


def test_sqs_event_comes_to_rest(pipeline: Pipeline):
    assert sqs_handler.handler(golden("sqs.json"), INGEST) == {"batchItemFailures": []}
    assert pipeline.landed() == [(MESSAGES[1], 0, "pump-7", 17), (MESSAGES[2], 0, "pump-8", 18)]
    assert pipeline.set_aside() == [(MESSAGES[0], 0, "malformed_json", b"Test message.")]
    assert pipeline.hot_keys() == [
        ("pump-7#2018-12-17", "2018-12-17T21:37:29.183000Z"),
        ("pump-8#2018-12-17", "2018-12-17T21:37:29.183000Z"),
    ]


def test_fifo_event_comes_to_rest(pipeline: Pipeline):
    assert sqs_handler.handler(golden("sqs_fifo.json"), INGEST) == {"batchItemFailures": []}
    assert [row[0] for row in pipeline.landed()] == FIFO_MESSAGES
    assert pipeline.cloud.keys("quarantine/") == []
    assert len(pipeline.hot_keys()) == 4


@pytest.mark.parametrize("name", ["kinesis.json", "kinesis_kpl.json", "sqs.json", "sqs_fifo.json"])
def test_a_second_delivery_changes_nothing(pipeline: Pipeline, name: str):
    handler = kinesis_handler.handler if "kinesis" in name else sqs_handler.handler
    handler(golden(name), INGEST)
    before = pipeline.cloud.keys(), pipeline.cloud.items()
    pipeline.clock.now += 1
    assert handler(golden(name), INGEST) == {"batchItemFailures": []}
    assert (pipeline.cloud.keys(), pipeline.cloud.items()) == before
    assert len(list(ledger.attempts(pipeline.cloud.ledger))) == 2


# What the hot table refuses


def test_kinesis_answers_with_the_lowest_refused(pipeline: Pipeline):
    refuse(pipeline, "pump-8", "pump-9")  # in the first aggregate, and in the fourth record
    answer = kinesis_handler.handler(golden("kinesis_kpl.json"), INGEST)
    assert answer == {"batchItemFailures": [{"itemIdentifier": SEQUENCES[0]}]}
    attempt = pipeline.attempt()
    assert attempt.retry == ((0, 1), (3, 4))
    assert (attempt.delivered, attempt.quarantined) == (0, 2)
    assert (attempt.outcome, attempt.reason, attempt.hot_written) == ("retry", "hot_refused", 3)


def test_an_aggregate_with_a_reject_and_a_refused_member_goes_back(pipeline: Pipeline):
    refuse(pipeline, "pump-7")
    answer = kinesis_handler.handler(golden("kinesis_kpl.json"), INGEST)
    assert answer == {"batchItemFailures": [{"itemIdentifier": SEQUENCES[0]}]}
    attempt = pipeline.attempt()
    assert attempt.retry == ((0, 2),)
    assert (attempt.delivered, attempt.quarantined) == (1, 1)


def test_sqs_answers_with_the_refused_message_and_no_other(pipeline: Pipeline):
    refuse(pipeline, "pump-8")
    answer = sqs_handler.handler(golden("sqs.json"), INGEST)
    assert answer == {"batchItemFailures": [{"itemIdentifier": MESSAGES[2]}]}


def test_fifo_answers_with_the_refused_message_and_what_is_behind_it(pipeline: Pipeline):
    event = golden("sqs_fifo.json")
    first = json.loads(event["Records"][0]["body"])
    event["Records"][0]["body"] = json.dumps(first | {"device_id": "pump-0"})
    refuse(pipeline, "pump-0")
    assert sqs_handler.handler(event, INGEST) == {
        "batchItemFailures": [
            {"itemIdentifier": FIFO_MESSAGES[0]},
            {"itemIdentifier": FIFO_MESSAGES[2]},
        ]
    }


# When the workflow cannot do its part


def test_a_stage_that_raises_hands_everything_back(pipeline: Pipeline):
    def dead(_state: dict[str, Any], _context: Any) -> dict[str, Any]:
        raise MemoryError

    pipeline.workflow.stages = {**pipeline.workflow.stages, TOPOLOGY.hot.name: dead}
    answer = sqs_handler.handler(golden("sqs.json"), INGEST)
    assert answer == {"batchItemFailures": [{"itemIdentifier": name} for name in MESSAGES]}
    assert pipeline.workflow.entered[-1] == "Hot"


def test_a_ledger_that_cannot_be_written_hands_everything_back(pipeline: Pipeline):
    pipeline.cloud.dynamodb.delete_table(TableName=TOPOLOGY.ledger_table.name)
    answer = kinesis_handler.handler(golden("kinesis.json"), INGEST)
    assert answer == {"batchItemFailures": [{"itemIdentifier": SEQUENCES[0]}]}


def test_without_hot_rows_the_hot_stage_is_not_entered(pipeline: Pipeline):
    event = golden("kinesis.json")
    event["Records"] = event["Records"][:1]
    assert kinesis_handler.handler(event, INGEST) == {"batchItemFailures": []}
    walk = ["Transform", "Any hot rows?", "Settle", "Any rejects?", "Tell producers", "Settled"]
    assert pipeline.workflow.entered == walk
    assert (pipeline.attempt().hot_written, pipeline.attempt().landing_key) == (0, "")


def test_the_state_carries_pointers_and_never_records(pipeline: Pipeline):
    kinesis_handler.handler(golden("kinesis.json"), INGEST)
    (state,) = pipeline.workflow.inputs
    assert state == {
        "pipeline": "millrace-telemetry",
        "stream": "lambda-stream",
        "shard": "shardId-000000000006",
        "first_arrival": "1545084650987000",
        "last_arrival": "1545084711200000",
        "raw_key": pipeline.attempt().raw_key,
        "archived": 4,
        "first": 0,
        "received": 4,
        "ledger_bucket": ledger.bucket_of(pipeline.attempt().raw_key),
        "epoch": 0,
        "deadline_ms": round((pipeline.clock.now + 177) * 1000),
    }


@pytest.mark.parametrize("handler", [kinesis_handler.handler, sqs_handler.handler])
def test_an_empty_event_is_answered_without_touching_anything(handler: Any):
    assert handler({"Records": []}, Context(0)) == {"batchItemFailures": []}
