"""Pushing sends again what failed and nothing else, within the services' limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import push
from infra.push import PushError, Sent, to_queue, to_stream
from ingest.producer import Unsendable, courier
from tests.support import SOME
from transform.kpl import is_aggregate
from transform.kpl_reader import deaggregate

KEY_LETTERS = st.characters(exclude_categories=["Cs"])
REFUSED = {
    "ErrorCode": "ProvisionedThroughputExceededException",
    "ErrorMessage": "Rate exceeded for shard shardId-000000000000",
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Pauses that a test does not have to sit out."""
    monkeypatch.setattr(courier, "BACKOFF_FIRST_SECONDS", 0.0)


class Stream:
    """PutRecords that refuses the entries it is told to, by call and by place in the call."""

    def __init__(self, refused: Callable[[int, int], bool] = lambda _call, _place: False) -> None:
        self.refused = refused
        self.calls: list[list[tuple[str, bytes]]] = []
        self.taken: list[tuple[str, bytes]] = []
        self.hash_keys: list[str | None] = []

    def put_records(self, **asked: Any) -> Any:
        records = [(entry["PartitionKey"], entry["Data"]) for entry in asked["Records"]]
        self.hash_keys += [entry.get("ExplicitHashKey") for entry in asked["Records"]]
        assert 1 <= len(records) <= 500
        assert sum(len(key.encode()) + len(data) for key, data in records) <= 10 * 2**20
        self.calls.append(records)
        answers = []
        for place, record in enumerate(records):
            if self.refused(len(self.calls) - 1, place):
                answers.append(REFUSED)
            else:
                answers.append(
                    {"ShardId": f"shard-{record[0]}", "SequenceNumber": str(len(self.taken))}
                )
                self.taken.append(record)
        return {"FailedRecordCount": answers.count(REFUSED), "Records": answers}


class Queue:
    """SendMessageBatch that refuses the entries it is told to, by call and by place in it."""

    def __init__(
        self,
        refused: Callable[[int, int], bool] = lambda _call, _place: False,
        *,
        sender_fault: bool = False,
    ) -> None:
        self.refused = refused
        self.sender_fault = sender_fault
        self.calls: list[list[dict[str, Any]]] = []
        self.taken: list[str] = []

    def send_message_batch(self, **asked: Any) -> Any:
        entries = asked["Entries"]
        assert 1 <= len(entries) <= 10
        assert len({entry["Id"] for entry in entries}) == len(entries)
        assert sum(len(entry["MessageBody"].encode()) for entry in entries) <= 2**20
        self.calls.append(entries)
        answer: dict[str, list[Any]] = {"Successful": [], "Failed": []}
        for place, entry in enumerate(entries):
            if self.refused(len(self.calls) - 1, place):
                fault = {"SenderFault": self.sender_fault, "Code": "X", "Message": "why not"}
                answer["Failed"].append({"Id": entry["Id"], **fault})
            else:
                message_id = f"id-{len(self.taken)}"
                answer["Successful"].append({"Id": entry["Id"], "MessageId": message_id})
                self.taken.append(entry["MessageBody"])
        return {kind: entries for kind, entries in answer.items() if entries}


def messages(count: int) -> list[push.Keyed]:
    return [(f"k{number % 3}", b'{"n":%d}' % number) for number in range(count)]


def sent_to(stream: Stream, keyed: Sequence[push.Keyed], *, aggregated: bool = False) -> Sent:
    sent = Sent()
    to_stream(stream, "fleet", keyed, sent, aggregated=aggregated)
    return sent


def queued(queue: Queue, keyed: Sequence[push.Keyed], name: str = "fleet") -> Sent:
    sent = Sent()
    to_queue(queue, f"https://sqs/1/{name}", keyed, sent)
    return sent


# ---- Kinesis ----


def test_only_failed_records_are_sent_again():
    stream = Stream(lambda call, place: (call, place) in {(0, 1), (0, 4), (1, 1)})
    sent = sent_to(stream, messages(6))
    wanted = messages(6)
    assert stream.calls == [wanted, [wanted[1], wanted[4]], [wanted[4]]]
    assert Counter(stream.taken) == Counter(wanted)
    assert sent.total() == 6


def test_positions_are_kept_as_the_stream_gave_them():
    stream = Stream(lambda call, place: call == 0 and place == 0)
    sent = sent_to(stream, [("a", b"1"), ("b", b"2")])
    assert sent.streams == ["fleet", "fleet"]
    assert sent.shards == ["shard-b", "shard-a"]
    assert sent.sequences == ["0", "1"]
    assert sent.messages == [1, 1]


def test_a_call_holds_at_most_500_records():
    stream = Stream()
    sent = sent_to(stream, messages(1_201))
    assert [len(call) for call in stream.calls] == [500, 500, 201]
    assert stream.taken == messages(1_201)
    assert sent.total() == 1_201


def test_a_call_holds_at_most_so_many_bytes():
    stream = Stream()
    sent_to(stream, [("k", bytes(1_000_000))] * 12)
    assert [len(call) for call in stream.calls] == [5, 5, 2]


def test_a_record_of_exactly_the_limit_is_sent():
    stream = Stream()
    sent_to(stream, [("k", bytes(2**20 - 1))])
    assert len(stream.taken) == 1


@pytest.mark.parametrize(
    ("key", "size"), [("k", 2**20), ("\N{SNOWMAN}", 2**20 - 2), ("k" * 256, 2**20 - 255)]
)
def test_an_oversize_record_is_refused_before_anything_is_sent(key, size):
    stream = Stream()
    with pytest.raises(Unsendable, match=r"1048577 bytes .* takes 1048576"):
        sent_to(stream, [*messages(600), (key, bytes(size))])
    assert stream.calls == []


def test_a_stream_that_never_takes_a_record_is_given_up():
    stream = Stream(lambda _call, place: place == 0)
    sent = Sent()
    with pytest.raises(PushError, match="stream fleet refused 1 messages 10 times"):
        to_stream(stream, "fleet", messages(1), sent)
    assert len(stream.calls) == push.ATTEMPTS_MAX
    assert sent.total() == 0


def test_what_was_taken_before_giving_up_is_known():
    stream = Stream(lambda _call, place: place == 0)
    sent = Sent()
    with pytest.raises(PushError):
        to_stream(stream, "fleet", messages(11), sent)
    assert sent.total() == len(stream.taken) == 10


def test_nothing_to_send_is_no_call():
    stream, queue = Stream(), Queue()
    assert sent_to(stream, []).total() == 0
    assert sent_to(stream, [], aggregated=True).total() == 0
    assert queued(queue, []).total() == 0
    assert stream.calls == []
    assert queue.calls == []


# ---- KPL aggregates ----


keyed_messages = st.lists(
    st.tuples(st.text(KEY_LETTERS, min_size=1, max_size=64), st.binary(max_size=1_000)),
    max_size=250,
)


def members(stream: Stream) -> list[tuple[str, bytes]]:
    """Messages as the stream holds them. One that is alone has no aggregate around it."""
    return [
        member
        for key, data in stream.taken
        for member in (deaggregate(data) if is_aggregate(data) else [(key, data)])
    ]


def by_key(pairs: Sequence[tuple[str, bytes]]) -> dict[str, list[bytes]]:
    return {key: [data for k, data in pairs if k == key] for key, _ in pairs}


@SOME
@given(keyed_messages)
def test_aggregates_hold_what_they_were_given(keyed):
    stream = Stream()
    sent = sent_to(stream, keyed, aggregated=True)
    assert by_key(members(stream)) == by_key(keyed)
    assert sent.total() == len(keyed)
    assert all(count <= push.AGGREGATE_RECORDS_MAX for count in sent.messages)
    assert all(len(data) <= 51_200 for _, data in stream.taken)


def test_a_message_larger_than_an_aggregate_goes_alone():
    large = ("k", bytes(51_200))
    stream = Stream()
    sent_to(stream, [large, large], aggregated=True)
    assert stream.taken == [large, large]


def test_an_aggregate_is_one_position_of_many_messages():
    keyed = [(key, data + b" " * 20) for key, data in messages(250)]
    stream = Stream(lambda call, place: call == 0 and place == 1)
    sent = sent_to(stream, keyed, aggregated=True)
    assert sorted(sent.messages) == [83, 83, 84]
    assert len(sent.sequences) == 3
    assert [len(call) for call in stream.calls] == [3, 1]
    assert stream.calls[1] == [stream.calls[0][1]]
    assert by_key(members(stream)) == by_key(keyed)


def test_what_is_to_be_together_goes_into_one_shard():
    keyed = [(f"{push.TOGETHER}{number}", b"%d" % number) for number in range(9)]
    stream = Stream()
    sent_to(stream, [*keyed, ("k", b"{}")])
    assert stream.hash_keys == ["0"] * 9 + [None]
    sent_to(stream, [*keyed, ("k", b"{}")], aggregated=True)
    together, other = sorted(stream.hash_keys[10:], key=int)
    assert int(together) < 2**128 // 16 < int(other)


# ---- SQS ----


def test_only_failed_messages_are_sent_again():
    queue = Queue(lambda call, place: (call, place) in {(0, 0), (0, 9), (1, 1)})
    sent = queued(queue, messages(10))
    bodies = [data.decode() for _, data in messages(10)]
    assert [[entry["MessageBody"] for entry in call] for call in queue.calls] == [
        bodies,
        [bodies[0], bodies[9]],
        [bodies[9]],
    ]
    assert sorted(queue.taken) == sorted(bodies)
    assert sent.sequences == [f"id-{number}" for number in range(10)]
    assert sent.streams == ["fleet"] * 10
    assert sent.shards == [""] * 10
    assert sent.total() == 10


def test_a_call_holds_at_most_10_messages():
    queue = Queue()
    queued(queue, messages(25))
    assert [len(call) for call in queue.calls] == [10, 10, 5]


def test_a_call_holds_at_most_a_mebibyte():
    queue = Queue()
    queued(queue, [("k", b"x" * 400_000)] * 5)
    assert [len(call) for call in queue.calls] == [2, 2, 1]
    queued(queue, [("k", b"x" * 2**20)] * 2)
    assert [len(call) for call in queue.calls[3:]] == [1, 1]


def test_an_oversize_message_is_refused_before_anything_is_sent():
    queue = Queue()
    with pytest.raises(Unsendable, match="1048577 bytes; a queue takes 1048576"):
        queued(queue, [*messages(30), ("k", b"x" * (2**20 + 1))])
    assert queue.calls == []


def test_a_message_that_the_queue_will_never_take_is_not_tried_again():
    queue = Queue(lambda _call, place: place == 2, sender_fault=True)
    sent = Sent()
    with pytest.raises(PushError, match="queue fleet refuses a message: why not"):
        to_queue(queue, "https://sqs/1/fleet", messages(10), sent)
    assert len(queue.calls) == 1
    assert sent.total() == 9


def test_a_queue_that_never_takes_a_message_is_given_up():
    queue = Queue(lambda _call, _place: True)
    with pytest.raises(PushError, match="queue fleet refused 3 messages 10 times"):
        queued(queue, messages(3))
    assert len(queue.calls) == push.ATTEMPTS_MAX


def test_a_standard_queue_is_given_no_groups():
    queue = Queue()
    queued(queue, messages(2))
    assert not any("MessageGroupId" in entry for entry in queue.calls[0])


def test_a_fifo_queue_is_given_the_key_as_group_and_every_message_its_own_deduplication():
    queue = Queue(lambda call, place: call == 0 and place == 0)
    queued(queue, [("a", b"{}"), ("b", b"{}"), ("a", b"{}")], "fleet.fifo")
    groups = [[entry["MessageGroupId"] for entry in call] for call in queue.calls]
    assert groups == [["a", "b"], ["a"], ["a"]]  # none of a group behind one that failed
    names = [entry["MessageDeduplicationId"] for call in queue.calls for entry in call]
    assert len(names) == 4
    assert len(set(names)) == 3


def test_a_key_that_can_be_no_group_is_one_by_its_digest():
    queue = Queue()
    keys = ["a b", "é", "x" * 129, "x" * 128, "unreadable/1", "a b"]
    queued(queue, [(key, b"{}") for key in keys], "fleet.fifo")
    groups, again = ([entry["MessageGroupId"] for entry in call] for call in queue.calls)
    assert groups[3:] == keys[3:5]
    assert again == groups[:1]
    assert len({*groups}) == 5
    assert all(group.isascii() and len(group) <= 128 and " " not in group for group in groups)


def test_a_message_of_a_fifo_queue_sent_again_keeps_its_deduplication_id():
    """An answer may be lost although the message was taken: then the queue must know it again."""
    queue = Queue(lambda call, place: call == 0 and place == 1)
    queued(queue, [("a", b"1"), ("b", b"2")], "fleet.fifo")
    first, again = queue.calls[0][1], queue.calls[1][0]
    assert first["MessageDeduplicationId"] == again["MessageDeduplicationId"]
