"""SNS, EventBridge and CloudEvents around a message, in the shapes their own documents show."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import delivery
from transform.contract_file import parse_contract
from transform.envelope import Envelope, Opened, open_record
from transform.pipeline import Transform
from transform.wrapped import WRAPPER_NESTING_MAX, Wrapper, attributes_of

SOME = settings(max_examples=100, deadline=None)
ALL: tuple[Wrapper, ...] = ("sns", "eventbridge", "cloudevents")

# docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html, with attributes
NOTIFICATION = {
    "Type": "Notification",
    "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
    "TopicArn": "arn:aws:sns:us-west-2:123456789012:MyTopic",
    "Subject": "My First Message",
    "Message": '{"a": 1}',
    "Timestamp": "2012-05-02T00:54:06.655Z",
    "SignatureVersion": "1",
    "Signature": "EXAMPLEw6JRN...",
    "SigningCertURL": "https://sns.us-west-2.amazonaws.com/SimpleNotificationService.pem",
    "MessageAttributes": {
        "kind": {"Type": "String", "Value": "bestätigt"},
        "sizes": {"Type": "String.Array", "Value": '["a",1,null]'},
        "weight": {"Type": "Number", "Value": "100"},
        "raw": {"Type": "Binary", "Value": "AAECAw=="},
    },
}

# docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html
EVENT = b"""{
  "version": "0", "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
  "detail-type": "EC2 Instance State-change Notification", "source": "aws.ec2",
  "account": "111122223333", "time": "2017-12-22T18:43:48Z", "region": "us-west-1",
  "resources": ["arn:aws:ec2:us-west-1:123456789012:instance/i-1234567890abcdef0"],
  "detail": {"instance-id": " i-1234567890abcdef0", "state": "terminated", "x": 1.50}
}"""

# github.com/cloudevents/spec: the JSON format's own examples, with data of ours
CLOUD_EVENT = b"""{
  "specversion" : "1.0", "type" : "com.example.someevent", "source" : "/mycontext",
  "subject": null, "id" : "C234-1234-1234", "time" : "2018-04-05T17:31:00Z",
  "comexampleextension1" : "value", "comexampleothervalue" : 5, "flag": true,
  "datacontenttype" : "application/json", "data" : {"a":  1.0}
}"""
CONTEXT = {
    "ce_specversion": "1.0",
    "ce_type": "com.example.someevent",
    "ce_source": "/mycontext",
    "ce_id": "C234-1234-1234",
    "ce_time": "2018-04-05T17:31:00Z",
    "ce_comexampleextension1": "value",
    "ce_comexampleothervalue": "5",
    "ce_flag": "true",
    "ce_datacontenttype": "application/json",
}


def opened(body: bytes, *unwrap: Wrapper, attributes: str | None = None) -> Opened:
    return open_record(body, None, attributes, "sqs", Envelope(unwrap=unwrap), 5)


def one(body: bytes, *unwrap: Wrapper, attributes: str | None = None) -> tuple[bytes, Any]:
    found = opened(body, *unwrap, attributes=attributes)
    assert not found.rejects
    (inside,), (beside,) = found.bodies, found.attributes
    return inside, beside if beside is None else dict(beside)


def refusal(body: bytes, *unwrap: Wrapper) -> str:
    found = opened(body, *unwrap)
    assert not found.bodies
    (reject,) = found.rejects
    assert reject.body == body
    assert (reject.rejection.step, reject.rejection.reason) == ("envelope", "bad_wrapper")
    return reject.rejection.detail


def notification(message: Any, **more: Any) -> bytes:
    return json.dumps(NOTIFICATION | {"Message": message} | more, indent=2).encode()


def event(data: str, **context: str) -> bytes:
    base = {"specversion": "1.0", "type": "t", "source": "/s", "id": "1"} | context
    return json.dumps(base)[:-1].encode() + b"," + data.encode() + b"}"


def message_attributes(**values: str) -> str:
    names = {name.replace("__", "-"): value for name, value in values.items()}
    return json.dumps({n: {"stringValue": v, "dataType": "String"} for n, v in names.items()})


# SNS


def test_a_notification_holds_its_message_and_says_where_from():
    assert one(notification('{"a": 1}'), "sns") == (
        b'{"a": 1}',
        {
            "kind": "bestätigt",
            "sizes": '["a",1,null]',
            "weight": "100",
            "raw": "AAECAw==",
            "sns_topic": NOTIFICATION["TopicArn"],
            "sns_message_id": NOTIFICATION["MessageId"],
            "sns_subject": "My First Message",
            "sns_timestamp": "2012-05-02T00:54:06.655Z",
        },
    )


@pytest.mark.parametrize("message", [None, 1, {"a": 1}])
def test_a_notification_without_text_is_rejected(message: Any):
    assert refusal(notification(message), "sns") == "SNS: Message is not text that can be read"


def test_what_a_notification_holds_is_opened_on():
    lines = b'{"a":1}\n{"a":2}'
    packed = base64.b64encode(gzip.compress(lines)).decode()
    found = opened(notification(packed), "sns")
    assert (found.bodies, list(found.children)) == ([b'{"a":1}', b'{"a":2}'], [0, 1])
    assert [dict(beside or {})["kind"] for beside in found.attributes] == ["bestätigt"] * 2
    found = open_record(
        notification(lines.decode()), None, None, "sqs", Envelope("ndjson", ("sns",)), 5
    )
    assert found.bodies == [b'{"a":1}', b'{"a":2}']


# EventBridge


def test_an_event_of_eventbridge_holds_the_very_bytes_of_its_detail():
    detail, beside = one(EVENT, "eventbridge")
    assert detail == b'{"instance-id": " i-1234567890abcdef0", "state": "terminated", "x": 1.50}'
    assert beside == {
        "eb_version": "0",
        "eb_id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
        "eb_detail_type": "EC2 Instance State-change Notification",
        "eb_source": "aws.ec2",
        "eb_account": "111122223333",
        "eb_time": "2017-12-22T18:43:48Z",
        "eb_region": "us-west-1",
        "eb_resources": '["arn:aws:ec2:us-west-1:123456789012:instance/i-1234567890abcdef0"]',
    }


# CloudEvents


def test_a_structured_event_holds_the_very_bytes_of_its_data():
    assert one(CLOUD_EVENT, "cloudevents") == (b'{"a":  1.0}', CONTEXT)


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (event('"data_base64":"eyJhIjoxfQ=="'), b'{"a":1}'),
        (event('"data":null,"data_base64":"eyJhIjoxfQ"'), b'{"a":1}'),
        (event('"data":"text"'), b'"text"'),
        (
            event('"data":"text"', datacontenttype="application/vnd.x+json; charset=utf-8"),
            b'"text"',
        ),
        (event('"data":"text"', datacontenttype="text/plain"), b"text"),
        (event('"data":{"a":1}', datacontenttype="text/plain"), b'{"a":1}'),
        (
            event('"data":"eyJhIjoxfQ==","datacontentencoding":"base64"', specversion="0.3"),
            b'{"a":1}',
        ),
    ],
)
def test_data_comes_in_several_ways(body: bytes, data: bytes):
    inside, beside = one(body, "cloudevents")
    assert (inside, beside["ce_type"]) == (data, "t")


def test_text_data_may_be_lines():
    body = event(r'"data":"{\"a\":1}\n{\"a\":2}"', datacontenttype="application/x-ndjson")
    assert opened(body, "cloudevents").bodies == [b'{"a":1}', b'{"a":2}']


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        ('"data_base64":"eyJh*"', "CloudEvents: the data is not base64"),
        ('"data_base64":{}', "CloudEvents: the data is not base64"),
        ('"data":7,"datacontentencoding":"base64"', "CloudEvents: the data is not base64"),
        ('"x":1', "CloudEvents: no data"),
        ('"data":null', "CloudEvents: no data"),
        ('"data":{},"data_base64":"e30="', "CloudEvents: data and data_base64"),
    ],
)
def test_an_event_whose_data_cannot_be_read_is_rejected(data: str, detail: str):
    assert refusal(event(data), "cloudevents") == detail


def test_a_batch_is_its_events_each_with_its_context():
    body = b"[" + event('"data":{"a":1}', id="1") + b"," + event('"x":1') + b","
    body += event('"data":[{"a":2},{"a":3}]', id="3") + b"]"
    found = opened(body, "cloudevents", attributes=message_attributes(kind="k"))
    assert found.bodies == [b'{"a":1}', b'{"a":2}', b'{"a":3}']
    assert list(found.children) == [0, 2, 3]
    assert [dict(beside or {})["ce_id"] for beside in found.attributes] == ["1", "3", "3"]
    assert {dict(beside or {})["kind"] for beside in found.attributes} == {"k"}
    assert [(reject.child, reject.body) for reject in found.rejects] == [(1, event('"x":1'))]


@pytest.mark.parametrize("prefix", ["ce-", "ce_", "Ce-", "cloudEvents:", "cloudEvents_"])
def test_in_binary_mode_the_context_is_in_message_attributes(prefix: str):
    attributes = message_attributes(
        **{f"{prefix}specversion": "1.0", f"{prefix}type": "t", "own": "x"},
        **{"content-type": "application/json"},
    )
    assert one(b'{"a":1}', "cloudevents", attributes=attributes) == (
        b'{"a":1}',
        {
            "ce_specversion": "1.0",
            "ce_type": "t",
            "own": "x",
            "ce_datacontenttype": "application/json",
        },
    )
    assert one(b'{"a":1}', attributes=attributes)[1][f"{prefix}type"] == "t"


def test_binary_mode_goes_through_sns_as_well():
    attributes = {
        "ce-specversion": {"Type": "String", "Value": "1.0"},
        "ce-type": {"Type": "String", "Value": "t"},
    }
    inside, beside = one(notification("[{}]", MessageAttributes=attributes), *ALL)
    assert (inside, beside["ce_type"], beside["sns_subject"]) == (b"{}", "t", "My First Message")


# From the outside in


def test_wrappers_in_wrappers():
    bridged = EVENT.replace(EVENT[EVENT.index(b'{"instance') : -2], event('"data":{"a":1}'))
    inside, beside = one(notification(bridged.decode()), *ALL)
    assert inside == b'{"a":1}'
    assert (beside["sns_subject"], beside["eb_source"], beside["ce_id"]) == (
        "My First Message",
        "aws.ec2",
        "1",
    )
    assert one(bridged, *ALL)[0] == b'{"a":1}'  # what is not there is passed over
    assert one(CLOUD_EVENT, *ALL)[0] == b'{"a":  1.0}'


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1}',
        b"",
        b"no",
        b'{"Type":"SubscriptionConfirmation","TopicArn":"a","Message":"{}"}',
        b'{"Type":"Notification","Message":"{}"}',
        b'{"detail-type":"a","source":"b","detail":[1]}',
        b'{"detail-type":"a","source":1,"detail":{}}',
        b'{"specversion":"2.0","id":"1","source":"s","type":"t","data":{}}',
        b'{"specversion":"1.0","source":"s","type":"t","data":{}}',
        CLOUD_EVENT[:-1],
        notification("half \ud800 of a pair"),  # which the decoder names
    ],
)
def test_what_is_not_so_wrapped_is_passed_through(body: bytes):
    assert one(body, *ALL) == (body, None)


@pytest.mark.parametrize(
    ("body", "wrapper"), [(EVENT, "eventbridge"), (CLOUD_EVENT, "cloudevents")]
)
def test_what_is_not_declared_is_not_unwrapped(body: bytes, wrapper: Wrapper):
    others = [other for other in ALL if other != wrapper]
    assert one(body) == one(body, *others) == (body, None)


@pytest.mark.parametrize("depth", [WRAPPER_NESTING_MAX, 5_000, 500_000])
def test_no_depth_of_nesting_is_a_matter_of_the_interpreter(depth: int):
    body = event('"data":' + "[" * depth + "]" * depth)
    assert one(body, "cloudevents") == (body, None)


# Through Transform

CONTRACT = b"""
name = "events"
[identity]
device = "device"
event_time = "at"
[envelope]
unwrap = ["cloudevents"]
[[field]]
name = "device"
attribute = "ce_subject"
type = "string"
[[field]]
name = "at"
type = "timestamp"
format = "epoch_millis"
"""


def test_rows_and_rejects_of_a_batch_are_numbered_as_they_came():
    good = event('"data":{"at":0}', subject="pump-1")
    batch = b"[" + b",".join([good, event('"x":1'), event('"data":{}', subject="p"), good]) + b"]"
    rules = Transform(parse_contract(CONTRACT, "events.toml"))
    done = rules.apply(delivery([batch]).table(), "raw/object")
    rows = done.rows.select(["_child", "_elements", "device"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [(0, 4, "pump-1"), (3, 4, "pump-1")]
    rejects = done.rejects.select(["_child", "_reason", "_body"]).to_pylist()
    assert [tuple(row.values()) for row in rejects] == [
        (1, "bad_wrapper", event('"x":1')),
        (2, "missing_field", b"{}"),
    ]


# Message attributes


def test_message_attributes_are_text_by_name():
    found = attributes_of(
        json.dumps(
            {
                "kind": {"stringValue": "k", "stringListValues": [], "dataType": "String"},
                "n": {"stringValue": "1", "dataType": "Number.int"},
                "raw": {"binaryValue": "AAEC", "dataType": "Binary"},
                "half \ud800": {"stringValue": "\udfff", "dataType": "String"},
                "none": {"dataType": "String"},
                "odd": 7,
            }
        )
    )
    assert found == {"kind": "k", "n": "1", "raw": "AAEC", "half ?": "?"}
    assert opened(b"[{},{}]", attributes='{"a":{"stringValue":"b"}}').attributes == [{"a": "b"}] * 2


@SOME
@given(st.none() | st.text() | st.recursive(st.none() | st.text(), st.lists).map(json.dumps))
def test_no_attributes_stop_a_record(text: str | None):
    found = attributes_of(text)
    assert found is None or found == {}
    assert opened(b"{}", *ALL, attributes=text).bodies == [b"{}"]


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "9" * 5_000, "[" * 100_000])
def test_attributes_that_nothing_archives_are_none(text: str):
    assert attributes_of(text) is None
