"""Answers are exact (law 3), and an event that no mapping sends is refused by name."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest import kinesis, sqs
from ingest.events import EventError, name_of, records_of
from tests.support import SOME
from transform.contract_file import load_contract
from transform.envelope import JSON, open_record
from transform.pipeline import Transform
from transform.records import RAW_SCHEMA, Delivery, Outcome


def kinesis_record(number: int = 0, **more: Any) -> dict[str, Any]:
    record = {
        "sequenceNumber": str(100 + number),
        "partitionKey": f"key-{number}",
        "data": base64.b64encode(b"{}").decode(),
        "approximateArrivalTimestamp": 1545084650.987,
    }
    return {
        "kinesis": record | more,
        "eventSource": "aws:kinesis",
        "eventID": f"shardId-000000000006:{100 + number}",
        "eventSourceARN": "arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream",
    }


def sqs_record(number: int = 0, **more: Any) -> dict[str, Any]:
    record = {
        "messageId": f"message-{number}",
        "body": "{}",
        "attributes": {"SentTimestamp": "1545082649183"},
        "messageAttributes": {},
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-2:123456789012:my-queue",
    }
    return record | more


READERS = [(kinesis, kinesis_record), (sqs, sqs_record)]


def of(*sequences: str, stream: str = "queue", groups: list[str | None] | None = None) -> Delivery:
    count = len(sequences)
    return Delivery(
        source="sqs",
        stream=stream,
        shards=[""] * count,
        sequences=list(sequences),
        groups=groups or [None] * count,
        arrivals=[0] * count,
        attributes=[None] * count,
        bodies=[b""] * count,
    )


def back(count: int, *indexes: int) -> Outcome:
    """An outcome that hands these records back and has delivered the rest."""
    spans = tuple((index, index + 1) for index in sorted(indexes))
    return Outcome(count, count - len(spans), 0, 0, spans)


def identifiers(answer: dict[str, Any]) -> list[str]:
    assert list(answer) == ["batchItemFailures"]
    assert all(list(failure) == ["itemIdentifier"] for failure in answer["batchItemFailures"])
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


# Kinesis: the lowest sequence number


@pytest.mark.parametrize(
    ("sequences", "retry", "lowest"),
    [
        (["9", "10", "100"], [1, 2], "10"),
        (["9", "10", "100"], [0, 1, 2], "9"),  # as text, "10" would sort before "9"
        (["100", "9", "10"], [0, 1, 2], "9"),  # whatever their order in the Delivery
        (["0009", "10"], [0, 1], "0009"),  # returned as it came
        (["9" * 55, "1" + "0" * 55], [0, 1], "9" * 55),
    ],
)
def test_kinesis_answers_with_the_lowest_sequence_number(
    sequences: list[str], retry: list[int], lowest: str
):
    assert identifiers(kinesis.respond(of(*sequences), back(len(sequences), *retry))) == [lowest]


@SOME
@given(
    st.lists(st.integers(0, 2**130), min_size=1, max_size=20, unique=True),
    st.data(),
)
def test_kinesis_never_answers_with_a_number_above_one_to_be_retried(
    numbers: list[int], data: st.DataObject
):
    retry = data.draw(st.sets(st.integers(0, len(numbers) - 1), min_size=1))
    answer = kinesis.respond(of(*map(str, numbers)), back(len(numbers), *retry))
    assert identifiers(answer) == [str(min(numbers[index] for index in retry))]


@pytest.mark.parametrize("source", [kinesis, sqs])
def test_total_success_is_an_empty_list_and_never_an_empty_answer(source: Any):
    assert source.respond(of("1", "2"), back(2)) == {"batchItemFailures": []}


# SQS: each message and no other


@SOME
@given(st.integers(1, 30), st.data())
def test_sqs_answers_with_exactly_the_messages_to_be_retried(count: int, data: st.DataObject):
    retry = data.draw(st.sets(st.integers(0, count - 1)))
    answer = sqs.respond(of(*(f"id-{n}" for n in range(count))), back(count, *retry))
    assert identifiers(answer) == [f"id-{n}" for n in sorted(retry)]


@pytest.mark.parametrize(
    ("groups", "retry", "answered"),
    [
        ("aaaa", [1], [1, 2, 3]),
        ("abab", [0], [0, 2]),
        ("abab", [1], [1, 3]),
        ("abcabc", [2, 3], [2, 3, 5]),
        ("abc", [2], [2]),
    ],
)
def test_fifo_answers_with_all_that_is_behind_in_the_group(
    groups: str, retry: list[int], answered: list[int]
):
    names = [f"id-{n}" for n in range(len(groups))]
    delivery = of(*names, stream="orders.fifo", groups=list(groups))
    answer = sqs.respond(delivery, back(len(groups), *retry))
    assert identifiers(answer) == [names[index] for index in answered]


@SOME
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=10), st.data())
def test_in_a_fifo_group_nothing_overtakes(groups: list[str], data: st.DataObject):
    retry = data.draw(st.sets(st.integers(0, len(groups) - 1)))
    names = [f"id-{n}" for n in range(len(groups))]
    delivery = of(*names, stream="orders.fifo", groups=list(groups))
    answered = set(identifiers(sqs.respond(delivery, back(len(groups), *retry))))
    assert {names[index] for index in retry} <= answered
    for group in "abc":
        fates = [
            name in answered for name, other in zip(names, groups, strict=True) if other == group
        ]
        assert all(later or not earlier for earlier, later in pairwise(fates))
        if not any(groups[index] == group for index in retry):
            assert not any(fates)


def test_a_standard_queue_has_groups_and_no_order():
    delivery = of("a", "b", groups=["tenant", "tenant"])  # a fair queue
    assert identifiers(sqs.respond(delivery, back(2, 0))) == ["a"]


# Events that no mapping sends


@pytest.mark.parametrize(("source", "record"), READERS)
def test_an_empty_event_is_an_empty_delivery(source: Any, record: Any):
    del record
    assert len(source.read({"Records": []})) == 0


@pytest.mark.parametrize("event", [None, [], "Records", {}, {"Records": None}, {"Records": {}}])
@pytest.mark.parametrize("source", [kinesis, sqs])
def test_an_event_without_records_is_refused(source: Any, event: Any):
    with pytest.raises(EventError, match="no list `Records`"):
        source.read(event)


@pytest.mark.parametrize("stranger", [None, 7, {}, {"eventSource": "aws:dynamodb"}])
@pytest.mark.parametrize(("source", "record"), READERS)
def test_a_strangers_record_is_refused_by_its_place(source: Any, record: Any, stranger: Any):
    with pytest.raises(EventError, match=r"Records\[1\]\.eventSource is .* not 'aws:"):
        source.read({"Records": [record(), stranger]})


def test_kinesis_and_sqs_are_not_taken_for_each_other():
    with pytest.raises(EventError, match=r"Records\[0\]\.eventSource is 'aws:sqs'"):
        kinesis.read({"Records": [sqs_record()]})
    with pytest.raises(EventError, match=r"Records\[0\]\.eventSource is 'aws:kinesis'"):
        sqs.read({"Records": [kinesis_record()]})


@pytest.mark.parametrize(("source", "record"), READERS)
def test_an_event_of_two_sources_is_refused(source: Any, record: Any):
    other = record(1) | {"eventSourceARN": "arn:aws:other:us-east-2:123456789012:other"}
    with pytest.raises(EventError, match="mixes sources"):
        source.read({"Records": [record(), other]})


@pytest.mark.parametrize(
    "path",
    [
        ("kinesis",),
        ("eventID",),
        ("kinesis", "sequenceNumber"),
        ("kinesis", "partitionKey"),
        ("kinesis", "data"),
        ("kinesis", "approximateArrivalTimestamp"),
    ],
)
@pytest.mark.parametrize("wrong", ["absent", None, [], {}, "\ud800", True, 1e300, float("nan")])
def test_a_malformed_kinesis_record_is_refused_by_its_place(path: tuple[str, ...], wrong: Any):
    expect_refusal(kinesis, [kinesis_record(0), kinesis_record(1)], path, wrong)


@pytest.mark.parametrize(
    "path",
    [("messageId",), ("body",), ("attributes",), ("attributes", "SentTimestamp")],
)
@pytest.mark.parametrize("wrong", ["absent", None, [], {}, "\ud800", True, 1e300, float("nan")])
def test_a_malformed_sqs_record_is_refused_by_its_place(path: tuple[str, ...], wrong: Any):
    expect_refusal(sqs, [sqs_record(0), sqs_record(1)], path, wrong)


def expect_refusal(source: Any, records: list[Any], path: tuple[str, ...], wrong: Any) -> None:
    """Put `wrong` into the second record: it is refused by its place, or it can be archived."""
    records = copy.deepcopy(records)
    place = records[1]
    for key in path[:-1]:
        place = place[key]
    if wrong == "absent":
        del place[path[-1]]
    else:
        place[path[-1]] = wrong
    try:
        delivery = source.read({"Records": records})
    except EventError as error:
        complaint = str(error)
    else:
        assert isinstance(wrong, str | bool | float)
        assert delivery.table().num_rows == 2
        return
    assert complaint.startswith("Records[1] ")
    if wrong == "absent":
        assert repr(path[-1]) in complaint


@pytest.mark.parametrize("number", ["", "-1", "1.5", "abc", "٣", 100])
def test_a_sequence_number_that_cannot_be_compared_is_found_out_before_the_work(number: Any):
    with pytest.raises(EventError, match=r"Records\[0\] is malformed: .* no"):
        kinesis.read({"Records": [kinesis_record(sequenceNumber=number)]})


def test_an_empty_sequence_number_among_others_is_found_out():
    with pytest.raises(EventError, match=r"Records\[1\] is malformed: '' is not a sequence number"):
        kinesis.read({"Records": [kinesis_record(0), kinesis_record(1, sequenceNumber="")]})


def test_data_is_text():
    with pytest.raises(EventError, match="data is bytes, not text"):
        kinesis.read({"Records": [kinesis_record(data=b"e30=")]})


def test_a_sequence_number_too_long_to_be_compared_is_found_out_before_the_work():
    with pytest.raises(EventError, match="sequence number of 130 digits"):
        kinesis.read({"Records": [kinesis_record(sequenceNumber="9" * 130)]})


@pytest.mark.parametrize("name", ["", "\ud800", "a\udfffb", 7])
def test_a_message_id_that_could_not_be_answered_as_it_came_is_refused(name: Any):
    with pytest.raises(EventError, match=r"Records\[0\] is malformed: .* is not"):
        sqs.read({"Records": [sqs_record(messageId=name)]})


def test_a_time_beyond_any_number_is_refused_by_its_place():
    record = sqs_record(attributes={"SentTimestamp": float("inf")})
    with pytest.raises(EventError, match=r"Records\[0\] is malformed"):
        sqs.read({"Records": [record]})


odd = st.one_of(
    st.sampled_from(
        ["", "abc", "\u0663", "\ud800", "Gr\u00fc\u00dfe", "a:b", "9" * 130, "aGk=\n", "ab"]
    ),
    st.sampled_from([None, True, 0, -1, 7, 0.5, 1e15, 1e300, float("nan"), float("inf")]),
    st.sampled_from([[], ["1"], {}, {"get": 1}]),
)
KINESIS_PLACES = [("kinesis",), ("eventID",), ("eventSourceARN",)] + [
    ("kinesis", key)
    for key in ("sequenceNumber", "partitionKey", "data", "approximateArrivalTimestamp")
]
SQS_PLACES = [
    *(("messageId",), ("body",), ("receiptHandle",), ("messageAttributes",), ("eventSourceARN",)),
    *(("attributes",), ("attributes", "SentTimestamp"), ("attributes", "MessageGroupId")),
    ("attributes", "ApproximateReceiveCount"),
]


@settings(SOME, max_examples=1_000)
@given(st.data())
def test_columns_are_read_as_record_by_record(data: st.DataObject):
    source, make, places = data.draw(
        st.sampled_from([(kinesis, kinesis_record, KINESIS_PLACES), (sqs, sqs_record, SQS_PLACES)])
    )
    records = [make(number) for number in range(data.draw(st.integers(0, 3)))]
    for record in records:
        if data.draw(st.booleans()):
            *way, key = data.draw(st.sampled_from(places))
            place = record[way[0]] if way else record
            place[key] = data.draw(odd)
            if data.draw(st.booleans()):
                del place[key]
    name = records[0]["eventSource"] if records else ""
    event = {"Records": records}
    assert told(lambda: source.read(event)) == told(lambda: source.exactly(records_of(event, name)))


def told(read: Callable[[], Delivery]) -> Any:
    try:
        return repr(read())
    except EventError as error:
        return str(error)


# What readers keep


@pytest.mark.parametrize(
    ("data", "body"),
    [
        ("", b""),
        ("/w==", b"\xff"),
        ("not base64!", b"not base64!"),
        ("ab", b"ab"),  # base64 comes in fours
        ("aGk=\n", b"aGk=\n"),
        ("é", "é".encode()),
        ("\ud800", b"\xed\xa0\x80"),
    ],
)
def test_kinesis_data_is_decoded_and_what_is_not_base64_keeps_its_bytes(data: str, body: bytes):
    delivery = kinesis.read({"Records": [kinesis_record(data=data)]})
    assert delivery.bodies == [body]
    assert delivery.table().column("_body").to_pylist() == [body]


@SOME
@given(st.binary(max_size=200))
def test_any_bytes_come_through_kinesis(body: bytes):
    record = kinesis_record(data=base64.b64encode(body).decode())
    assert kinesis.read({"Records": [record]}).bodies == [body]


@SOME
@given(st.text(st.characters(exclude_categories=()), max_size=50))
@example("a\ud800b")
@example("\udfff\ud800")
def test_any_text_comes_through_sqs_and_half_a_surrogate_pair_is_set_aside(body: str):
    delivery = sqs.read({"Records": [sqs_record(body=body)]})
    assert delivery.bodies[0].decode("utf-8", "surrogatepass") == body
    batch = Transform(load_contract("telemetry")).apply(delivery.table(), "raw/x.parquet")
    assert batch.counts.quarantined == 1
    if any("\ud800" <= letter <= "\udfff" for letter in body):
        assert "not_utf8" in batch.rejects.column("_reason").to_pylist()
    opened = open_record(delivery.bodies[0], None, None, "sqs", JSON, 9)  # base64, say, or lines
    elements = [*opened.bodies, *(element.body for element in opened.rejects)]
    assert sorted(batch.rejects.column("_body").to_pylist()) == sorted(elements)


@pytest.mark.parametrize("text", ["tenant", "Grüße", "\x00", "a\ud800b"])
def test_keys_and_attributes_of_any_text_can_be_archived(text: str):
    attributes = {text: {"stringValue": text, "dataType": "String"}}
    record = sqs_record(
        messageAttributes=attributes,
        attributes={"SentTimestamp": "1", "MessageGroupId": text},
    )
    delivery = sqs.read({"Records": [record]})
    assert json.loads(delivery.attributes[0] or "") == attributes
    assert delivery.table().schema == RAW_SCHEMA
    assert kinesis.read({"Records": [kinesis_record(partitionKey=text)]}).table().num_rows == 1


def test_a_partition_key_is_kept_as_it_came():
    keys = ["plain", "Grüße", "a\\ud800", "😀"]
    records = [kinesis_record(n, partitionKey=key) for n, key in enumerate(keys)]
    assert kinesis.read({"Records": records}).groups == keys


def test_absent_and_empty_attributes_are_none():
    bare = sqs_record(1)
    del bare["messageAttributes"]
    assert sqs.read({"Records": [sqs_record(0), bare]}).attributes == [None, None]


@pytest.mark.parametrize(
    ("seconds", "micros"),
    [
        (1545084650.987, 1_545_084_650_987_000),
        (1545084650, 1_545_084_650_000_000),
        (1.001, 1_001_000),  # times a thousand it is a hair too small
        (0, 0),
    ],
)
def test_arrival_is_exact_to_the_millisecond(seconds: float, micros: int):
    record = kinesis_record(approximateArrivalTimestamp=seconds)
    assert kinesis.read({"Records": [record]}).arrivals == [micros]


@pytest.mark.parametrize(
    ("arn", "name"),
    [
        ("arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream", "lambda-stream"),
        ("arn:aws:kinesis:us-east-2:123456789012:stream/s/consumer/fan-out:1573251510", "s"),
        ("arn:aws-cn:sqs:cn-north-1:123456789012:my-queue.fifo", "my-queue.fifo"),
    ],
)
def test_the_name_in_an_arn(arn: str, name: str):
    assert name_of(arn) == name
