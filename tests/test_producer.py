"""The producer as a gateway uses it: a real thread, on doubles and on moto."""

from __future__ import annotations

import logging
import re
import textwrap
import threading
import time
from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError
from moto import mock_aws

import ingest.producer
from infra.doubles.kinesis import Kinesis
from infra.doubles.world import Calm
from infra.esm.simulated_stream import SimulatedStream
from ingest.producer import (
    Full,
    Producer,
    ProducerError,
    Queue,
    Spill,
    Stamp,
    Stream,
    Unsendable,
    Unsent,
)
from ingest.producer.stream import HASH_KEYS, hash_key
from tests.support import client
from transform.kpl import is_aggregate
from transform.kpl_reader import deaggregate


def opened(data):
    return [body for _, body in deaggregate(data)] if is_aggregate(data) else [data]


class Away(Calm):
    """A world whose network can be away; a call that waits in it can be let go."""

    def __init__(self):
        super().__init__()
        self.away = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def effect(self, call, act):
        self.gate.wait(30)
        if self.away.is_set():
            raise EndpointConnectionError(endpoint_url="https://away")
        return super().effect(call, act)


class Site:
    """A stream `s` of one shard in a world of its own."""

    def __init__(self):
        self.world = Away()
        self.stream = SimulatedStream()
        self.client = Kinesis(self.world, {"s": self.stream})

    def received(self):
        (shard,) = self.stream.shards.values()
        return [body for record in shard.records for body in opened(record.data)]


@pytest.fixture
def site():
    made = Site()
    yield made
    made.world.gate.set()


# Sent


def examples():
    """The producer as the documentation shows it."""
    (own,) = re.findall(r"\n\n((?:    .*\n|\n)+)It runs", ingest.producer.__doc__)
    yield textwrap.dedent(own)
    readme = Path(__file__).parent.parent / "README.md"
    for block in re.findall(r"```python\n(.*?)```", readme.read_text(), re.DOTALL):
        if "ingest.producer" in block:
            yield block


@pytest.mark.parametrize("example", list(examples()))
def test_the_example_of_the_documentation(example, site, tmp_path, monkeypatch):
    monkeypatch.setattr("boto3.client", lambda _: Kinesis(Calm(), {"fleet": site.stream}))
    example = example.replace("/var/lib/gateway", str(tmp_path))
    readings = [{"sensor": f"s-{n % 3}", "celsius": n} for n in range(100)]
    exec(example, {"readings": readings})  # noqa: S102  our own words
    received = site.received()
    assert len(received) == 100
    assert re.fullmatch(
        rb'{"sensor":"s-1","celsius":1,"origin":"gateway-7","boot":"[0-9a-f]{16}","seq":1}',
        received[1],
    )
    assert list(Path(tmp_path).glob("*.segment")) == []


@mock_aws
def test_a_stream_takes_all_and_says_where(tmp_path):
    kinesis = client("kinesis")
    kinesis.create_stream(StreamName="s", ShardCount=4)
    told = []
    with Producer(
        Stream(kinesis, "s", lanes=4), Spill(tmp_path), on_acknowledged=told.extend
    ) as producer:
        numbers = [producer.put(f"k{n % 10}", b"%d" % n + b"." * 100) for n in range(2_000)]
    assert sorted(ack.message.number for ack in told) == numbers
    found = {}
    for shard in kinesis.list_shards(StreamName="s")["Shards"]:
        name = shard["ShardId"]
        iterator = kinesis.get_shard_iterator(
            StreamName="s", ShardId=name, ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        for record in kinesis.get_records(ShardIterator=iterator)["Records"]:
            for sub, body in enumerate(opened(record["Data"])):
                found[name, record["SequenceNumber"], sub] = body
    assert len(found) == 2_000
    for ack in told:
        at = ack.position
        assert found[at.shard, at.sequence, ack.sub] == ack.message.data
    # Each lies in the shard where Kinesis itself would put its key.
    for ack in told:
        assert int(ack.position.shard[-1]) == hash_key(ack.message.key) * 4 // HASH_KEYS


@mock_aws
@pytest.mark.parametrize("fifo", [False, True])
def test_a_queue_takes_all_and_says_where(fifo):
    sqs = client("sqs")
    attributes = {"FifoQueue": "true"} if fifo else {}
    name = "q.fifo" if fifo else "q"
    url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    told = []
    with Producer(Queue(sqs, url), on_acknowledged=told.extend) as producer:
        for number in range(30):
            producer.put(f"k{number % 3}", f"{number}")
    by_id = {ack.position.sequence: ack.message.data.decode() for ack in told}
    got = []
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        got += messages
        for one in messages:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])
    assert {m["MessageId"]: m["Body"] for m in got} == by_id
    assert sorted(map(int, by_id.values())) == list(range(30))


def test_text_and_mappings_are_encoded(site):
    with Producer(Stream(site.client, "s", aggregate=False)) as producer:
        producer.put("k", b"\x00")
        producer.put("k", "\N{SNOWMAN}")
        producer.put("k", {"a": "\N{SNOWMAN}", "b": [1.5, None]})
    assert site.received() == [
        b"\x00",
        "\N{SNOWMAN}".encode(),
        '{"a":"\N{SNOWMAN}","b":[1.5,null]}'.encode(),
    ]


def test_many_threads_may_put(site):
    with Producer(Stream(site.client, "s"), buffer_bytes=100_000) as producer:

        def work(name):
            for number in range(500):
                producer.put(name, b"%d" % number)

        threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert producer.flush(30)
        assert producer.counters().acknowledged == 2_000
    assert len(site.received()) == 2_000


# Never sent


@pytest.mark.parametrize(
    ("key", "data", "says"),
    [
        ("k", bytes(2**20), "a stream takes 1048576: split it, compress it, or put it into S3"),
        ("", b"", "Kinesis takes 1 to 256: use the device's name"),
        ("k" * 257, b"", "a key has at most 256"),
        ("k", {"a": float("nan")}, "a record that is not JSON or UTF-8: Out of range float"),
        ("k", {"a": {1, 2}}, "not JSON or UTF-8: .*set is not JSON serializable"),
        ("k", "\ud800", "not JSON or UTF-8: .*surrogates not allowed"),
    ],
)
def test_what_can_never_be_sent_to_a_stream_is_refused_at_once(site, key, data, says):
    with Producer(Stream(site.client, "s")) as producer:
        with pytest.raises(Unsendable, match=says):
            producer.put(key, data)
        assert producer.counters().accepted == 0


@pytest.mark.parametrize(
    ("name", "key", "data", "says"),
    [
        ("q", "k", b"x" * (2**20 + 1), "a queue takes 1048576: split it, or put it into S3"),
        ("q", "k", b"\xff", r"not UTF-8 \(invalid start byte at byte 0\); SQS takes text only"),
        ("q", "k", b"a\x00", "control characters, which SQS does not take"),
        ("q", "k", b"", "empty"),
    ],
)
def test_what_can_never_be_sent_to_a_queue_is_refused_at_once(name, key, data, says):
    with (
        Producer(Queue(None, f"https://sqs/1/{name}")) as producer,
        pytest.raises(Unsendable, match=says),
    ):
        producer.put(key, data)


def test_a_request_smaller_than_a_record():
    with pytest.raises(ValueError, match="call_bytes is under record_bytes_max"):
        Stream(None, "s", record_bytes_max=10 * 2**20)
    with pytest.raises(ValueError, match="at least one lane"):
        Stream(None, "s", lanes=0)


def test_a_message_that_the_service_refuses_is_told():
    class Choosy:
        """Takes no message that says so."""

        def send_message_batch(self, **asked):
            answer = {"Successful": [], "Failed": []}
            for entry in asked["Entries"]:
                if "bad" in entry["MessageBody"]:
                    fault = {"Code": "InvalidMessageContents", "SenderFault": True, "Message": "no"}
                    answer["Failed"].append({"Id": entry["Id"], **fault})
                else:
                    answer["Successful"].append({"Id": entry["Id"], "MessageId": "id"})
            return answer

    gone = []
    queue = Queue(Choosy(), "https://sqs/1/q")
    with Producer(queue, on_refused=lambda *told: gone.append(told)) as producer:
        for body in ("1", "bad", "2"):
            producer.put("k", body)
    told = producer.counters()
    assert (told.acknowledged, told.failed) == (2, {"InvalidMessageContents": 1})
    assert [(message.data, refusal.detail) for message, refusal in gone] == [(b"bad", "no")]


# The network is away


def test_put_blocks_or_raises_as_the_caller_says(site):
    site.world.away.set()
    producer = Producer(Stream(site.client, "s"), buffer_bytes=10_000)
    for _ in range(7):
        producer.put("k", bytes(1_000))
    with pytest.raises(Full, match="7 messages"):
        producer.put("k", bytes(1_000), block=False)
    began = time.monotonic()
    with pytest.raises(Full, match="nothing can be sent"):
        producer.put("k", bytes(1_000), timeout=0.2)
    assert time.monotonic() - began >= 0.2
    threading.Timer(0.2, site.world.away.clear).start()
    assert producer.put("k", bytes(1_000)) == 7
    producer.close()
    assert len(site.received()) == 8


def test_what_is_spilled_goes_out_when_the_network_is_back(site, tmp_path, caplog):
    caplog.set_level(logging.INFO, "ingest.producer")
    site.world.away.set()
    spill = Spill(tmp_path)
    producer = Producer(Stream(site.client, "s", together="g"), spill, buffer_bytes=10_000)
    for number in range(1_000):
        producer.put("k", b"%d" % number, block=False)
    assert not producer.flush(0.2)
    told = producer.counters()
    assert (told.accepted, told.spilled, told.acknowledged) == (1_000, 1_000, 0)
    assert told.spill_bytes > 10_000
    assert "Could not connect" in told.last_error
    site.world.away.clear()
    assert producer.flush(30)
    assert producer.close() == 0
    assert site.received() == [b"%d" % number for number in range(1_000)]
    said = [record.message for record in caplog.records]
    assert said == ["producer: nothing can be sent", "producer: messages can be sent again"]


@pytest.mark.parametrize("when", ["always", "away"])
def test_what_was_not_sent_is_resumed_by_the_next_run(site, tmp_path, when):
    site.world.away.set()
    spill = Spill(tmp_path, when=when)
    producer = Producer(Stream(site.client, "s", together="g"), spill)
    for number in range(100):
        producer.put("k", b"%d" % number)
    assert producer.close(timeout=0.1) == 100
    site.world.away.clear()
    with Producer(Stream(site.client, "s", together="g"), spill) as again:
        again.put("k", b"100")
    told = again.counters()
    assert (told.resumed, told.accepted, told.acknowledged) == (100, 1, 101)
    assert site.received() == [b"%d" % number for number in range(101)]


def test_without_a_spill_close_says_what_was_not_sent(site):
    site.world.away.set()
    producer = Producer(Stream(site.client, "s"))
    producer.put("k", b"1")
    with pytest.raises(Unsent, match=r"1 messages were not sent to s \(.*\): give close more time"):
        producer.close(timeout=0.1)


def test_close_does_not_wait_for_a_call_that_hangs(site, tmp_path):
    site.world.gate.clear()
    producer = Producer(Stream(site.client, "s"), Spill(tmp_path, when="away"))
    producer.put("k", b"1")
    assert producer.close(timeout=0.2) == 1
    site.world.gate.set()  # it comes back to nobody, and is sent again by the next run
    with Producer(Stream(site.client, "s"), Spill(tmp_path)):
        pass
    assert set(site.received()) == {b"1"}


def test_a_closed_producer(site):
    producer = Producer(Stream(site.client, "s"))
    producer.close()
    assert producer.close() == 0
    with pytest.raises(ProducerError, match="the producer is closed"):
        producer.put("k", b"1")


def test_the_spill_is_synced_in_time(site, tmp_path, monkeypatch):
    synced = threading.Event()
    monkeypatch.setattr("ingest.producer.spill.Log.sync", lambda _: synced.set())
    site.world.gate.clear()
    spill = Spill(tmp_path, fsync_seconds=0.05)
    producer = Producer(Stream(site.client, "s"), spill, linger_seconds=60)
    producer.put("k", b"1")
    assert synced.wait(10)
    site.world.gate.set()
    producer.close()


def test_a_callback_that_raises_stops_nothing(site, caplog):
    def raising(_acknowledged):
        raise RuntimeError("mine")

    with Producer(Stream(site.client, "s"), on_acknowledged=raising) as producer:
        producer.put("k", b"1")
        assert producer.flush(30)
        producer.put("k", b"2")
    assert site.received() == [b"1", b"2"]
    assert "producer: a callback raised" in [record.message for record in caplog.records]


# Stamps


def test_a_stamp_is_another_for_each_record_and_each_boot():
    boots = iter(["b1", "b2"])
    first, second = (Stamp("gw", boot=lambda: next(boots)) for _ in range(2))
    assert first({"a": 1}) == {"a": 1, "origin": "gw", "boot": "b1", "seq": 0}
    assert first({"a": 1}) == {"a": 1, "origin": "gw", "boot": "b1", "seq": 1}
    assert second({"a": 1}) == {"a": 1, "origin": "gw", "boot": "b2", "seq": 0}
    assert len({Stamp("gw").boot for _ in range(100)}) == 100


def test_a_stamp_covers_nothing_up():
    with pytest.raises(ValueError, match="the record has seq already: give Stamp other fields"):
        Stamp("gw")({"seq": 5})
    stamp = Stamp("gw", fields=("gateway", "gateway_boot", "gateway_seq"), boot=lambda: "b")
    assert stamp({"seq": 5})["seq"] == 5
