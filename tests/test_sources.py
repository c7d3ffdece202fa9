"""What the sources still hold: the stream up to its checkpoints, the queue by its count."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from moto import mock_aws

from infra.parked import digest
from infra.sources import held, together
from tests.support import TOPOLOGY, client

STREAM, QUEUE = TOPOLOGY.stream.name, TOPOLOGY.queue.name
Client = Callable[[str], Any]


@pytest.fixture
def clients() -> Iterator[Client]:
    with mock_aws():
        found = cache(client)
        found("kinesis").create_stream(StreamName=STREAM, ShardCount=1)
        found("sqs").create_queue(QueueName=QUEUE)
        yield found


def put(clients: Client, *bodies: bytes) -> list[dict[str, Any]]:
    return [
        clients("kinesis").put_record(StreamName=STREAM, PartitionKey="k", Data=body)
        for body in bodies
    ]


def test_a_stream_is_read_up_to_its_checkpoint(clients: Client, tmp_path: Path):
    first, second, _ = put(clients, b"a", b"b", b"c")
    shard = first["ShardId"]
    (tmp_path / f"{STREAM}.{shard}").write_text(second["SequenceNumber"])
    found = held(TOPOLOGY, clients, tmp_path)
    assert found.records.to_pylist() == [
        {"_stream": STREAM, "_shard": shard, "_sequence": each["SequenceNumber"], "_sha": sha}
        for each, sha in ((first, digest(b"a")), (second, digest(b"b")))
    ]
    assert found.passed == {(STREAM, shard): int(second["SequenceNumber"])}
    assert "2 records in 1 shards" in found.scope[0]


def test_without_a_checkpoint_nothing_was_passed(clients: Client, tmp_path: Path):
    put(clients, b"a")
    found = held(TOPOLOGY, clients, tmp_path)
    assert (found.records.num_rows, found.passed) == (0, {})


def test_a_queue_is_counted_with_what_is_under_way(clients: Client, tmp_path: Path):
    sqs = clients("sqs")
    url = sqs.get_queue_url(QueueName=QUEUE)["QueueUrl"]
    for body in ("a", "b"):
        sqs.send_message(QueueUrl=url, MessageBody=body)
    sqs.receive_message(QueueUrl=url)
    found = held(TOPOLOGY, clients, tmp_path)
    assert found.waiting == {QUEUE: 2}
    assert "sequence numbers of the devices" in found.unchecked[0]
    assert together([found, found]).waiting == {QUEUE: 2}
