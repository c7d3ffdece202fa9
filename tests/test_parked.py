"""What is parked is found in both places, with its bytes, and nothing is lost by looking."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from moto import mock_aws

from infra.esm.events import Place, record
from infra.esm.on_failure import document
from infra.esm.stream import Discard
from infra.parked import parked
from ingest.parked import NOTHING, Lookout, on_failure, peeked
from sinks.bucket import Bucket
from tests.support import NOON, SECOND, client

ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/fleet"
PLACE = Place(ARN, "arn:function", "us-east-1", "arn:role", "shardId-000000000001")
BODIES = {"101": b"{}", "102": b"\xff"}


@pytest.fixture
def aws() -> Iterator[tuple[Bucket, Any, str]]:
    with mock_aws():
        s3, sqs = client("s3"), client("sqs")
        s3.create_bucket(Bucket="millrace")
        url = sqs.create_queue(QueueName="dead")["QueueUrl"]
        yield Bucket(s3, "millrace"), sqs, url


def written(*, payload: bool = True) -> bytes:
    records = tuple(record(n, "key", body, NOON / SECOND) for n, body in BODIES.items())
    discard = Discard(0, records, "RetryAttemptsExhausted", 3, None)
    return json.dumps(document(discard, PLACE, NOON / SECOND, "request", payload=payload)).encode()


def test_an_on_failure_object_holds_its_records():
    found = on_failure("on-failure/a", written())
    rows = found.rows.to_pylist()
    assert [(row["_sequence"], row["_body"]) for row in rows] == list(BODIES.items())
    assert {(row["_stream"], row["_shard"]) for row in rows} == {("fleet", PLACE.shard)}
    assert {row["_where"] for row in rows} == {"on-failure/a"}
    assert found.places() == {("fleet", PLACE.shard, sequence) for sequence in BODIES}


def test_without_a_payload_it_points_into_the_stream():
    found = on_failure("on-failure/a", written(payload=False))
    [pointer] = found.pointers
    assert found.rows.num_rows == 0
    assert (pointer.stream, pointer.first, pointer.last, pointer.records) == ("fleet", 101, 102, 2)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"KinesisBatchInfo":{},"payload":"{}"}'])
def test_what_aws_did_not_write_is_named(data: bytes):
    assert on_failure("on-failure/x", data).unreadable == ("on-failure/x",)


def test_looking_at_dead_letters_loses_none(aws):
    _, sqs, url = aws
    for number in range(23):
        sqs.send_message(QueueUrl=url, MessageBody=str(number))
    for _ in range(2):
        assert sorted(int(one["Body"]) for one in peeked(sqs, url)) == list(range(23))


def test_both_places_together(aws):
    bucket, sqs, url = aws
    bucket.put("on-failure/aws/lambda/1", written())
    sent = sqs.send_message(
        QueueUrl=url,
        MessageBody="body",
        MessageAttributes={"a": {"DataType": "String", "StringValue": "b"}},
    )
    found = parked(bucket, "on-failure/", sqs, {"fleet-queue": url})
    assert found.places() == {
        ("fleet", PLACE.shard, "101"),
        ("fleet", PLACE.shard, "102"),
        ("fleet-queue", "", sent["MessageId"]),
    }
    letter = found.rows.to_pylist()[-1]
    assert (letter["_body"], letter["_source"]) == (b"body", "sqs")
    assert json.loads(letter["_attributes"])["a"]["stringValue"] == "b"


def test_an_on_failure_object_is_read_once(aws):
    bucket, sqs, _ = aws
    bucket.put("on-failure/a", written())
    lookout = Lookout(bucket, "on-failure/", sqs, {})
    first = lookout.look()
    bucket.put("on-failure/a", b"")
    assert lookout.look().places() == first.places()
    assert Lookout(bucket, None, sqs, {}).look().places() == NOTHING.places() == set()
