"""What a function's answer means to a mapping. Each rule names its source in aws.md."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.esm.answers import SETTLED, Result, Undocumented, meaning
from infra.esm.events import (
    ENVELOPE_BYTES,
    PAYLOAD_MAX_BYTES,
    Place,
    fitting,
    kinesis_event,
    message,
    record,
    sqs_event,
)
from ingest import kinesis, sqs
from tests.support import SOME
from transform.records import Outcome

PLACE = Place("arn:aws:kinesis:us-east-1:123456789012:stream/s", "f", "us-east-1", "r", "shard-1")
BATCH = ["8", "9", "10"]


def failures(*identifiers: Any) -> bytes:
    return json.dumps({"batchItemFailures": [{"itemIdentifier": i} for i in identifiers]}).encode()


def means(payload: bytes, source: Any = "kinesis", **settings: bool):
    return meaning(Result("answered", payload), BATCH, source, Undocumented(**settings))


@pytest.mark.parametrize("source", ["kinesis", "sqs"])
@pytest.mark.parametrize(
    "payload",
    [b"", b"null", b"{}", b'{"batchItemFailures": []}', b'{"batchItemFailures": null}'],
)
def test_nothing_named_is_total_success(source, payload):
    """aws.md 3.1 table row 1 and 3.2 [D]; trap 11: a handler that forgets its answer loses."""
    assert means(payload, source).kind == "success"


@pytest.mark.parametrize("source", ["kinesis", "sqs"])
def test_what_is_in_the_batch_is_handed_back(source):
    """aws.md 3.1 table row 2, 3.2 [D, A]."""
    meant = means(failures("10", "9"), source)
    assert (meant.kind, meant.failed) == ("partial", ("10", "9"))


@pytest.mark.parametrize("source", ["kinesis", "sqs"])
@pytest.mark.parametrize(
    "payload",
    [
        failures(""),
        failures(None),
        failures("9", ""),
        failures(9),
        failures(["9"]),
        b'{"batchItemFailures": [{"wrongKey": "9"}]}',
        b'{"batchItemFailures": ["9"]}',
        b'{"batchItemFailures": [null]}',
    ],
)
@pytest.mark.parametrize("lenient", [False, True])
def test_a_malformed_identifier_fails_the_batch_whatever_is_undocumented(source, payload, lenient):
    """aws.md 3.1 table row 3, 3.2 [D]: "", null or a wrong key name is complete failure."""
    meant = means(
        payload,
        source,
        kinesis_unknown_fails_batch=not lenient,
        odd_shape_fails_batch=not lenient,
    )
    assert (meant.kind, meant.failed) == ("failure", ())


def test_an_unknown_message_id_fails_the_batch():
    """aws.md trap 10, 3.2 [A]: documented for SQS, so no setting changes it."""
    for settled in Undocumented.every():
        meant = meaning(Result("answered", failures("9", "77")), BATCH, "sqs", settled)
        assert meant.kind == "failure"
        assert "'77'" in meant.reason


def test_an_unknown_sequence_number_is_undocumented():
    """aws.md trap 10 and section 5: emulators disagree [3], so it is a setting."""
    assert means(failures("9", "77")).kind == "failure"
    ignored = means(failures("9", "77"), kinesis_unknown_fails_batch=False)
    assert (ignored.kind, ignored.failed) == ("partial", ("9",))
    assert means(failures("77"), kinesis_unknown_fails_batch=False).kind == "success"


@pytest.mark.parametrize("payload", [b"{", b"\xff"])
def test_an_answer_that_is_not_json_fails_a_queues_batch(payload):
    """aws.md 3.2 [A]; for Kinesis nothing is said."""
    for settled in Undocumented.every():
        assert meaning(Result("answered", payload), BATCH, "sqs", settled).kind == "failure"
    assert means(payload).kind == "failure"
    assert means(payload, odd_shape_fails_batch=False).kind == "success"


@pytest.mark.parametrize(
    "payload",
    [b'"done"', b"5", b"false", b"[]", b'{"batchItemFailures": 5}', b'{"batchItemFailures": "9"}'],
)
@pytest.mark.parametrize("source", ["kinesis", "sqs"])
def test_an_answer_of_another_shape_is_undocumented(source, payload):
    """aws.md 3.1, 3.2 list the shapes that count; these are none of them."""
    assert means(payload, source).kind == "failure"
    assert means(payload, source, odd_shape_fails_batch=False).kind == "success"


@pytest.mark.parametrize("source", ["kinesis", "sqs"])
def test_an_exception_fails_the_batch_whatever_its_payload_says(source):
    """aws.md 3.1 table row 5, 3.2 [D]; with or without reports."""
    for reports in (True, False):
        result = Result("failed", b'{"errorMessage": "no sun"}', "Unhandled")
        meant = meaning(result, BATCH, source, reports=reports)
        assert (meant.kind, meant.function_error) == ("failure", "Unhandled")
        assert "no sun" in meant.reason


@pytest.mark.parametrize("payload", [failures("9"), failures("77"), failures(None), b"{", b'"x"'])
def test_without_reports_every_answer_is_success(payload):
    """aws.md 3.1 table, column OFF [D]."""
    result = Result("answered", payload)
    assert meaning(result, BATCH, "kinesis", reports=False).kind == "success"
    assert meaning(result, BATCH, "sqs", reports=False).kind == "success"


def test_a_throttle_is_no_answer():
    """aws.md 3.1 [D]: what was not invoked has not failed."""
    assert meaning(Result("refused", error="429"), BATCH, "kinesis").kind == "refused"


def test_every_combination_of_the_undocumented_is_tried_once():
    every = list(Undocumented.every())
    assert len(set(every)) == len(every) == 2**7
    assert SETTLED in every


# ---- Millrace's own answers ----


def delivery_of(source: str, count: int, name: str = "s", groups: str = ""):
    if source == "kinesis":
        records = [record(str(8 + n), f"k{n}", b"{}", 1_795_521_600.0) for n in range(count)]
        return kinesis.read(json.loads(kinesis_event(records, PLACE)))
    place = Place(f"arn:aws:sqs:us-east-1:123456789012:{name}", "f", "us-east-1", "r")
    received = [
        {
            "MessageId": f"id-{n}",
            "ReceiptHandle": f"handle-{n}",
            "MD5OfBody": "0" * 32,
            "Body": "{}",
            "Attributes": {"SentTimestamp": "1795521600123"}
            | ({"MessageGroupId": groups[n]} if groups else {}),
        }
        for n in range(count)
    ]
    return sqs.read(json.loads(sqs_event([message(one, place) for one in received])))


@SOME
@given(st.sampled_from(["kinesis", "sqs"]), st.integers(1, 12), st.data())
def test_ingest_is_understood_alike_under_everything_undocumented(source, count, data):
    """Law 3: what must come again does, whatever AWS makes of what it does not document."""
    retry = data.draw(st.sets(st.integers(0, count - 1)))
    delivery = delivery_of(source, count)
    spans = tuple((index, index + 1) for index in sorted(retry))
    outcome = Outcome(count, count - len(spans), 0, 0, spans)
    answer = (kinesis if source == "kinesis" else sqs).respond(delivery, outcome)
    result = Result("answered", json.dumps(answer).encode())
    meant = {
        meaning(result, delivery.sequences, source, settled)  # type: ignore[arg-type]
        for settled in Undocumented.every()
    }
    assert len(meant) == 1
    (only,) = meant
    assert only.kind == ("partial" if retry else "success")
    back = {delivery.sequences.index(identifier) for identifier in only.failed}
    assert back == ({min(retry, default=0)} if retry and source == "kinesis" else retry)


# ---- What a payload holds ----

keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=256)


@SOME
@given(st.lists(st.tuples(keys, st.binary(max_size=500)), min_size=1, max_size=20))
def test_a_kinesis_payload_is_never_longer_than_it_was_taken_for(messages):
    """aws.md 1.3 [B]: 6 MB; partition keys of 256 characters can be 1,536 bytes of JSON."""
    longest = f"arn:aws:kinesis:ap-southeast-1:000000000000:stream/{'x' * 128}"
    place = Place(longest, "f", "ap-southeast-1", "arn:aws:iam::0:role/" + "r" * 64, "s" * 20)
    records = [record(str(10**55 + n), key, data, 1.7e9) for n, (key, data) in enumerate(messages)]
    payload = kinesis_event(records, place)
    assert len(payload) <= ENVELOPE_BYTES + sum(record.size_bytes for record in records)


def test_a_queues_payload_is_as_long_as_it_was_taken_for():
    """A megabyte of quotes is two of JSON."""
    place = Place("arn:aws:sqs:us-east-1:0:q", "f", "us-east-1", "r")
    body = {"MessageId": "1", "ReceiptHandle": "h", "MD5OfBody": "0", "Body": '"' * 1_000_000}
    messages = [message(body, place)] * 10
    taken = fitting(messages, 10, lambda one: one.size_bytes)
    assert taken == 3
    assert len(sqs_event(messages[:taken])) <= PAYLOAD_MAX_BYTES < len(sqs_event(messages[:4]))


@pytest.mark.parametrize(
    ("sizes", "most", "taken"),
    [
        ([], 10, 0),
        ([1, 1, 1], 10, 3),
        ([1, 1, 1], 2, 2),
        ([PAYLOAD_MAX_BYTES - ENVELOPE_BYTES, 1], 10, 1),
        ([PAYLOAD_MAX_BYTES - ENVELOPE_BYTES - 1, 1], 10, 2),
        ([PAYLOAD_MAX_BYTES + 1, 1], 10, 1),  # alone, for somebody to find out that it cannot be
    ],
)
def test_fitting(sizes, most, taken):
    assert fitting(sizes, most, lambda size: size) == taken
