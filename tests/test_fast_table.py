"""The fast table is DynamoDB as far as it goes: each case runs on it and on moto."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import socket
import string
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import pytest
from boto3.dynamodb.types import TypeSerializer
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto import mock_aws

from infra.local import emulator
from infra.local.chaos import unprocessed
from infra.local.fasttable.operations import Tables
from infra.local.fasttable.process import FastTable
from infra.local.fasttable.server import Server, serve
from infra.local.fasttable.store import STALE_MIN
from infra.local.proxy import Answer, Forward, Proxy, Request
from infra.local.signature import SignatureError, verify, with_signed_body
from sinks.wire import signature
from sinks.wire.credentials import Credentials as Own
from tests.support import answer, client, create_table, loopback

HERE = ("test", "test")
UNCHECKED = Config(parameter_validation=False)
BOTH = ("fast", "moto")


@contextmanager
def serving(directory: Path, emulator_url: str = "") -> Iterator[str]:
    """A fast table in a thread of this process; `kept-elsewhere` is the emulator's."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    loop, end = asyncio.new_event_loop(), asyncio.Event()
    tables = Tables(directory, frozenset({"kept-elsewhere"}))
    served = Server(tables, HERE, emulator_url)
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(listener, served, end),))
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join()
        loop.close()
        tables.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("table")) as made:
        yield made


def fast(url: str) -> Any:
    return emulator.client("dynamodb", url, parameter_validation=False, retries={"max_attempts": 0})


@contextmanager
def tables_of(kind: str, url: str) -> Iterator[Any]:
    """A client of an account with an empty table `t-1`."""
    with mock_aws():
        made = fast(url) if kind == "fast" else client("dynamodb", config=UNCHECKED)
        create_table(made, "t-1")
        try:
            yield made
        finally:
            with suppress(ClientError):
                made.delete_table(TableName="t-1")


@pytest.fixture(params=BOTH)
def dynamodb(request: pytest.FixtureRequest, url: str) -> Iterator[Any]:
    with tables_of(request.param, url) as made:
        yield made


def item(pk: str = "p", sk: str = "s", **more: Any) -> dict[str, Any]:
    return {"pk": {"S": pk}, "sk": {"S": sk}, **more}


def put(**key: Any) -> dict[str, Any]:
    return {"PutRequest": {"Item": item(**key)}}


def write(dynamodb: Any, *writes: Any) -> Any:
    return dynamodb.batch_write_item(RequestItems={"t-1": list(writes)})


def refusal(call: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as raised:
        call()
    response = raised.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def message(call: Any) -> str:
    with pytest.raises(ClientError) as raised:
        call()
    return str(raised.value.response["Error"]["Message"])


INVALID = ("ValidationException", 400)
UNREADABLE = ("SerializationException", 400)


# ---- As DynamoDB ----


def test_a_batch_puts_replaces_and_deletes(dynamodb: Any) -> None:
    assert write(dynamodb, put(sk="a"), put(sk="b", n={"N": "1"}))["UnprocessedItems"] == {}
    write(dynamodb, put(sk="b", n={"N": "2"}), {"DeleteRequest": {"Key": item(sk="a")}})
    write(dynamodb, {"DeleteRequest": {"Key": item(sk="never there")}})
    assert dynamodb.scan(TableName="t-1")["Items"] == [item(sk="b", n={"N": "2"})]


def test_every_kind_of_value_is_read_back(dynamodb: Any) -> None:
    values = {
        "text": {"S": 'quotes " and \\ and \n and \x01 and \N{SNOWMAN} and \U0001f600'},
        "none": {"S": ""},
        "number": {"N": "-12.5"},
        "bytes": {"B": b"\x00\xff"},
        "yes": {"BOOL": True},
        "null": {"NULL": True},
        "map": {"M": {"S": {"L": [{"N": "1"}, {"S": "x"}, {"M": {}}]}}},
        "texts": {"SS": ["a", "b"]},
        "numbers": {"NS": ["1", "2.5"]},
        "blobs": {"BS": [b"\x00", b"\x01"]},
        "S": {"S": "an attribute called as a kind"},
        "N": {"N": "5"},
    }
    dynamodb.put_item(TableName="t-1", Item=item(**values))
    write(dynamodb, put(sk="batch", **values))
    for sk in ("s", "batch"):
        found = dynamodb.get_item(TableName="t-1", Key=item(sk=sk))["Item"]
        assert found == item(sk=sk, **values)


def test_a_condition_holds_where_no_item_is(dynamodb: Any) -> None:
    def write_once() -> None:
        dynamodb.put_item(
            TableName="t-1", Item=item(), ConditionExpression="attribute_not_exists(pk)"
        )

    write_once()
    assert refusal(write_once) == ("ConditionalCheckFailedException", 400)
    assert message(write_once) == "The conditional request failed"
    dynamodb.delete_item(TableName="t-1", Key=item())
    assert "Item" not in dynamodb.get_item(TableName="t-1", Key=item())
    write_once()


NEWEST = "attribute_not_exists(pk) OR #at <= :at"
SAME = "#at = :at"


def by_time(condition: str, at: str) -> dict[str, Any]:
    """What is said of a write that depends on the time of the item that is there."""
    return {
        "ConditionExpression": condition,
        "ExpressionAttributeNames": {"#at": "_at"},
        "ExpressionAttributeValues": {":at": {"S": at}},
    }


def put_newest(dynamodb: Any, at: str, pk: str = "p", **more: Any) -> None:
    made = item(pk, _at={"S": at}, **more)
    dynamodb.put_item(TableName="t-1", Item=made, **by_time(NEWEST, at))


def delete_same(dynamodb: Any, at: str, pk: str = "p") -> None:
    dynamodb.delete_item(TableName="t-1", Key=item(pk), **by_time(SAME, at))


def took(call: Callable[..., None], *arguments: Any, **more: Any) -> bool:
    """Whether a write was made, or its condition did not hold."""
    try:
        call(*arguments, **more)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
            raise
        return False
    return True


def test_a_newer_item_stays_and_an_older_one_is_replaced(dynamodb: Any) -> None:
    assert not took(delete_same, dynamodb, "5")
    assert took(put_newest, dynamodb, "5")
    assert not took(put_newest, dynamodb, "4")
    assert took(put_newest, dynamodb, "5", again={"BOOL": True})
    assert took(put_newest, dynamodb, "6")
    assert took(put_newest, dynamodb, "1", "another")
    assert not took(delete_same, dynamodb, "5")
    found = dynamodb.scan(TableName="t-1")["Items"]
    assert sorted(one["_at"]["S"] for one in found) == ["1", "6"]
    assert took(delete_same, dynamodb, "6")
    assert not took(delete_same, dynamodb, "6")
    assert took(put_newest, dynamodb, "4")
    code = refusal(lambda: put_newest(dynamodb, "3"))
    assert code == ("ConditionalCheckFailedException", 400)
    assert message(lambda: put_newest(dynamodb, "3")) == "The conditional request failed"


def test_nothing_compares_with_what_has_no_time(dynamodb: Any) -> None:
    write(dynamodb, put())
    assert not took(put_newest, dynamodb, "9")
    assert not took(delete_same, dynamodb, "9")
    write(dynamodb, put(_at={"BOOL": True}))
    assert not took(delete_same, dynamodb, "9")
    assert len(dynamodb.scan(TableName="t-1")["Items"]) == 1


UNFIT_CONDITIONS: dict[str, tuple[dict[str, Any], str]] = {
    "no such name": (
        {**by_time(SAME, "1"), "ExpressionAttributeNames": {"#to": "_at"}},
        "Value provided in ExpressionAttributeNames unused in expressions: keys: {#to}",
    ),
    "no name": (
        {"ConditionExpression": "attribute_not_exists(#at)"},
        "Invalid ConditionExpression: An expression attribute name used in the document path is "
        "not defined; attribute name: #at",
    ),
    "a value of nothing": (
        {**by_time("attribute_not_exists(#at)", "1")},
        "Value provided in ExpressionAttributeValues unused in expressions: keys: {:at}",
    ),
    "no value": (
        {"ConditionExpression": SAME, "ExpressionAttributeNames": {"#at": "_at"}},
        "Invalid ConditionExpression: An expression attribute value used in expression is not "
        "defined; attribute value: :at",
    ),
    "no condition": (
        {"ExpressionAttributeNames": {"#at": "_at"}},
        "ExpressionAttributeNames can only be specified when using expressions",
    ),
}


@pytest.mark.parametrize(("more", "told"), UNFIT_CONDITIONS.values(), ids=UNFIT_CONDITIONS)
def test_conditions_that_dynamodb_does_not_take(url: str, more: Any, told: str) -> None:
    """Moto takes most of them."""
    with tables_of("fast", url) as dynamodb:
        for call in (
            lambda: dynamodb.put_item(TableName="t-1", Item=item(), **more),
            lambda: dynamodb.delete_item(TableName="t-1", Key=item(), **more),
        ):
            assert refusal(call) == INVALID
            assert message(call) == told
        assert dynamodb.scan(TableName="t-1")["Items"] == []


CONDITIONS = [
    ("pk = :p", {}, "abcde"),
    ("pk = :p AND sk = :l", {":l": "b"}, "b"),
    ("pk = :p AND sk BETWEEN :l AND :h", {":l": "b", ":h": "d"}, "bcd"),
    ("pk = :p AND sk > :l", {":l": "b"}, "cde"),
    ("pk = :p AND sk >= :l", {":l": "b"}, "bcde"),
    ("pk = :p AND sk < :l", {":l": "b"}, "a"),
    ("pk = :p and sk <= :l", {":l": "b"}, "ab"),
    ("#p = :p AND begins_with(#s, :l)", {":l": "c"}, "c"),
]


@pytest.mark.parametrize(("condition", "values", "wanted"), CONDITIONS)
@pytest.mark.parametrize("forward", [True, False])
def test_queries(
    dynamodb: Any, condition: str, values: dict[str, str], wanted: str, *, forward: bool
) -> None:
    write(dynamodb, *(put(sk=sk) for sk in "badce"), put(pk="q"))
    asked: dict[str, Any] = {
        "TableName": "t-1",
        "KeyConditionExpression": condition,
        "ExpressionAttributeValues": {
            name: {"S": text} for name, text in {":p": "p", **values}.items()
        },
        "ScanIndexForward": forward,
    }
    if "#" in condition:
        asked["ExpressionAttributeNames"] = {"#p": "pk", "#s": "sk"}
    pages = dynamodb.get_paginator("query").paginate(**asked, PaginationConfig={"PageSize": 2})
    found = [one["sk"]["S"] for page in pages for one in page["Items"]]
    assert found == list(wanted if forward else reversed(wanted))


def test_sort_keys_are_in_the_order_of_their_bytes(dynamodb: Any) -> None:
    keys = ["z", "Z", "\uffff", "\U0001f600", "é", "ab", "a"]
    write(dynamodb, *(put(sk=sk) for sk in keys))
    (page,) = dynamodb.get_paginator("query").paginate(
        TableName="t-1",
        KeyConditionExpression="pk = :p",
        ExpressionAttributeValues={":p": {"S": "p"}},
    )
    assert [one["sk"]["S"] for one in page["Items"]] == sorted(keys, key=str.encode)


def test_scans_go_page_by_page(dynamodb: Any) -> None:
    big = {"S": "x" * 300_000}
    for number in range(8):
        write(dynamodb, put(pk=f"p{number % 3}", sk=str(number), big=big))
    pages = list(dynamodb.get_paginator("scan").paginate(TableName="t-1"))
    assert len(pages) > 1
    assert all(page["Count"] == len(page["Items"]) for page in pages)
    assert sorted(one["sk"]["S"] for page in pages for one in page["Items"]) == list("01234567")
    pages = dynamodb.get_paginator("scan").paginate(
        TableName="t-1", ProjectionExpression="pk, #s", ExpressionAttributeNames={"#s": "sk"}
    )
    names = [set(one) for page in pages for one in page["Items"]]
    assert names == [{"pk", "sk"}] * 8


WRONG_ITEMS: dict[str, tuple[Any, str]] = {
    "no sort key": ({"pk": {"S": "p"}}, "Validation"),
    "key of another type": ({"pk": {"S": "p"}, "sk": {"N": "1"}}, "Validation"),
    "empty key": (item(sk=""), "Validation"),
    "long partition key": (item(pk="x" * 2_049), "Validation"),
    "long sort key": (item(sk="é" * 513), "Validation"),
    "too large": (item(x={"S": "x" * 409_600}), "Validation"),
    "number as a number": (item(n={"N": 1}), "Serialization"),
    "text as a number": (item(n={"S": 1}), "Serialization"),
    "empty string set": (item(n={"SS": []}), "Validation"),
}
WRONG_HERE: dict[str, tuple[Any, str]] = {  # moto takes these, DynamoDB does not
    "more than one kind": (item(n={"N": "1", "S": "1"}), "Validation"),
    "no number": (item(n={"N": "one"}), "Validation"),
    "39 digits": (item(n={"N": "1" * 39}), "Validation"),
    "too great": (item(n={"N": "1e126"}), "Validation"),
    "too small": (item(n={"N": "1e-131"}), "Validation"),
    "not a finite number": (item(n={"N": "NaN"}), "Validation"),
    "Arabic digits": (item(n={"N": "\u0661"}), "Validation"),
    "no kind": (item(n={}), "Validation"),
    "unknown kind": (item(n={"X": "1"}), "Validation"),
    "null that is not": (item(n={"NULL": False}), "Validation"),
    "text for yes": (item(n={"BOOL": "true"}), "Serialization"),
    "twice in a set": (item(n={"NS": ["1", "1.0"]}), "Validation"),
    "wrong within a list": (item(n={"L": [{"N": "x"}]}), "Validation"),
    "no base64": (item(n={"B": "?"}), "Serialization"),
}


@pytest.mark.parametrize(("wrong", "kind"), WRONG_ITEMS.values(), ids=WRONG_ITEMS)
def test_what_dynamodb_does_not_take(dynamodb: Any, wrong: Any, kind: str) -> None:
    assert refusal(lambda: dynamodb.put_item(TableName="t-1", Item=wrong)) == (
        f"{kind}Exception",
        400,
    )


@pytest.mark.parametrize(
    ("wrong", "kind"), (WRONG_ITEMS | WRONG_HERE).values(), ids=WRONG_ITEMS | WRONG_HERE
)
def test_nothing_of_a_batch_is_written_if_one_item_is_wrong(
    url: str, wrong: Any, kind: str
) -> None:
    with tables_of("fast", url) as dynamodb:
        for body in (json.dumps, lambda asked: json.dumps(asked, separators=(",", ":"))):
            text = body(
                {"RequestItems": {"t-1": [put(sk="right"), {"PutRequest": {"Item": wrong}}]}}
            )
            status, answer = post(url, "BatchWriteItem", text.encode())
            assert (status, answer["__type"].rpartition("#")[2]) == (400, f"{kind}Exception")
        assert dynamodb.scan(TableName="t-1")["Items"] == []


BATCHES: dict[str, Any] = {
    "26 items": [put(sk=str(number)) for number in range(26)],
    "none": [],
    "a key twice": [put(), put(x={"S": "x"})],
    "put and delete of a key": [put(), {"DeleteRequest": {"Key": item()}}],
    "a delete with more than the key": [{"DeleteRequest": {"Key": item(x={"S": "x"})}}],
}


@pytest.mark.parametrize("writes", BATCHES.values(), ids=BATCHES)
def test_batches_that_dynamodb_does_not_take(url: str, writes: Any) -> None:
    """Moto takes them."""
    with tables_of("fast", url) as dynamodb:
        assert refusal(lambda: write(dynamodb, *writes)) == INVALID
        assert dynamodb.scan(TableName="t-1")["Items"] == []


def test_messages_are_dynamodbs_own(dynamodb: Any) -> None:
    duplicate = "Provided list of item keys contains duplicates"
    assert message(lambda: write(dynamodb, put(), put())) == duplicate
    large = item(x={"S": "x" * 409_600})
    told = message(lambda: dynamodb.put_item(TableName="t-1", Item=large))
    assert told == "Item size has exceeded the maximum allowed size"
    told = message(lambda: dynamodb.put_item(TableName="t-1", Item=item(pk="x" * 2_049)))
    assert told == (
        "One or more parameter values were invalid: Size of hashkey has exceeded the maximum size "
        "limit of2048 bytes"
    )
    told = message(lambda: dynamodb.put_item(TableName="t-1", Item={"pk": {"S": "p"}}))
    assert told == "One or more parameter values were invalid: Missing the key sk in the item"
    wrong = {"pk": {"S": "p"}, "sk": {"N": "1"}}
    told = message(lambda: dynamodb.put_item(TableName="t-1", Item=wrong))
    assert told == (
        "One or more parameter values were invalid: Type mismatch for key sk expected: S actual: N"
    )


def test_tables_that_are_not_there(dynamodb: Any) -> None:
    missing = ("ResourceNotFoundException", 400)
    assert refusal(lambda: dynamodb.put_item(TableName="t-2", Item=item())) == missing
    assert refusal(lambda: dynamodb.batch_write_item(RequestItems={"t-2": [put()]})) == missing
    assert refusal(lambda: dynamodb.scan(TableName="t-2")) == missing
    assert refusal(lambda: dynamodb.describe_table(TableName="t-2")) == missing
    assert refusal(lambda: create_table(dynamodb, "t-1")) == ("ResourceInUseException", 400)
    assert "t-1" in dynamodb.list_tables()["TableNames"]
    assert dynamodb.describe_table(TableName="t-1")["Table"]["TableStatus"] == "ACTIVE"


# ---- As moto, whatever comes ----

SERIALIZER = TypeSerializer()
NUMBERS = st.integers(-(10**18), 10**18).map(Decimal) | st.decimals(
    -1000, 1000, places=3, allow_nan=False, allow_infinity=False
)
PLAIN = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(min_size=1, max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = st.sampled_from(["a", "b", "S", "N", "\N{SNOWMAN}", '"', "}"])
KEYS = st.tuples(st.sampled_from("pqr"), st.text(string.ascii_lowercase, min_size=1, max_size=2))


@st.composite
def batches(draw: st.DrawFn) -> list[Any]:
    writes = []
    for pk, sk in draw(st.lists(KEYS, min_size=1, max_size=8, unique=True)):
        if draw(st.booleans()):
            values = draw(st.dictionaries(NAMES, PLAIN, max_size=4))
            more = {name: SERIALIZER.serialize(value) for name, value in values.items()}
            writes.append({"PutRequest": {"Item": {**item(pk, sk), **more}}})
        else:
            writes.append({"DeleteRequest": {"Key": item(pk, sk)}})
    return writes


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(batches(), min_size=1, max_size=4), KEYS, KEYS)
def test_the_same_writes_leave_the_same_items(
    url: str, written: list[list[Any]], low: tuple[str, str], high: tuple[str, str]
) -> None:
    found = []
    for kind in BOTH:
        with tables_of(kind, url) as dynamodb:
            for writes in written:
                write(dynamodb, *writes)
            everything = dynamodb.scan(TableName="t-1")["Items"]
            first, last = sorted([low[1], high[1]])
            some = dynamodb.query(
                TableName="t-1",
                KeyConditionExpression="pk = :p AND sk BETWEEN :l AND :h",
                ExpressionAttributeValues={
                    ":p": {"S": low[0]},
                    ":l": {"S": first},
                    ":h": {"S": last},
                },
            )["Items"]
            everything.sort(key=lambda one: (one["pk"]["S"], one["sk"]["S"]))
            found.append((everything, some))
    assert found[0] == found[1]


AT = st.sampled_from(["", "1", "10", "2", "\N{SNOWMAN}", "\U0001f600", "\uffff"])


def put_anyway(dynamodb: Any, at: str, pk: str, **more: Any) -> None:
    """Whatever is there; by chance without a time."""
    write(dynamodb, put(pk=pk, **more, **({"_at": {"S": at}} if at else {})))


def delete_if_same(dynamodb: Any, at: str, pk: str, **more: Any) -> None:
    del more
    delete_same(dynamodb, at, pk)


TIMED = st.tuples(
    st.sampled_from([put_newest, delete_if_same, put_anyway]), AT, st.sampled_from(["p", "q"])
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(TIMED, min_size=1, max_size=12))
def test_the_same_conditions_hold_and_leave_the_same_items(url: str, writes: list[Any]) -> None:
    found = []
    for kind in BOTH:
        with tables_of(kind, url) as dynamodb:
            told = [
                took(call, dynamodb, at, pk, n={"N": str(number)})
                for number, (call, at, pk) in enumerate(writes)
            ]
            everything = dynamodb.scan(TableName="t-1")["Items"]
            everything.sort(key=lambda one: one["pk"]["S"])
            found.append((told, everything))
    assert found[0] == found[1]


# ---- Signatures ----


class Signer:
    """Requests of a service's JSON protocol, signed as the transport signs them."""

    def __init__(self, service: str, region: str, key_id: str, secret: str) -> None:
        self._signer, self._own = signature.Signer(service, region), Own(key_id, secret)

    def post(self, host: str, target: str, body: bytes, now: datetime) -> Request:
        headers = {"content-type": "application/x-amz-json-1.0", "x-amz-target": target}
        stamped = signature.stamp(int(now.timestamp()))
        kind = signature.Kind("POST", headers)
        how = self._signer.template(self._own, kind, host, "", stamped[:8])
        digest = hashlib.sha256(body).hexdigest()
        return Request("", how.head("/", (), stamped, digest, len(body)), body)


SIGNER = Signer("dynamodb", "us-east-1", *HERE)


def signed(url: str, operation: str, body: bytes, at: datetime | None = None) -> Request:
    host = url.removeprefix("http://")
    return SIGNER.post(host, f"DynamoDB_20120810.{operation}", body, at or datetime.now(UTC))


def send(url: str, data: bytes, pieces: int = 1) -> tuple[int, dict[str, str], bytes]:
    """One answer to bytes that are sent in pieces."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        step = max(len(data) // pieces, 1)
        for at in range(0, len(data), step):
            connection.sendall(data[at : at + step])
            if pieces > 1:
                time.sleep(0.001)
        return read_answer(connection.makefile("rb"))


def read_answer(stream: Any) -> tuple[int, dict[str, str], bytes]:
    status = int(stream.readline().split()[1])
    headers = {}
    while line := stream.readline().strip():
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    return status, headers, stream.read(int(headers["content-length"]))


def post(url: str, operation: str, body: bytes) -> tuple[int, Any]:
    request = signed(url, operation, body)
    status, headers, answer = send(url, request.head + request.body)
    assert headers["x-amz-crc32"] == str(zlib.crc32(answer))
    return status, json.loads(answer)


def verified(request: Request, now: datetime) -> None:
    verify(request, "dynamodb", *HERE, now)


@given(
    st.binary(max_size=64),
    st.dictionaries(
        st.from_regex(r"[a-z-]{1,8}", fullmatch=True).map("x-amz-m-{}".format),
        st.text(string.printable.strip() + " ", max_size=12),
        max_size=3,
    ),
)
def test_botocores_signatures_are_right(body: bytes, headers: dict[str, str]) -> None:
    asked = AWSRequest(
        "POST", "http://127.0.0.1:8000/", {"X-Amz-Target": "T", **headers}, data=body
    )
    SigV4Auth(Credentials(*HERE), "dynamodb", "eu-west-1").add_auth(asked)
    lines = [f"{name}: {value}" for name, value in asked.headers.items()]
    head = "\r\n".join(["POST / HTTP/1.1", "Host: 127.0.0.1:8000", *lines, "", ""])
    verified(Request("", head.encode("latin-1"), body), datetime.now(UTC))


def test_our_signatures_are_botocores() -> None:
    now = datetime.now(UTC)
    made = SIGNER.post("h", "T", b"{}", now)
    asked = AWSRequest(
        "POST",
        "http://h/",
        {"Content-Type": made.headers["content-type"], "X-Amz-Target": "T"},
        b"{}",
    )
    asked.context["timestamp"] = made.headers["x-amz-date"]
    auth = SigV4Auth(Credentials(*HERE), "dynamodb", "us-east-1")
    asked.headers["X-Amz-Date"] = made.headers["x-amz-date"]
    canonical = auth.canonical_request(asked)
    told = auth.signature(auth.string_to_sign(asked, canonical), asked)
    assert made.headers["authorization"].endswith(f"Signature={told}")


NOW = datetime(2026, 11, 24, 23, 59, tzinfo=UTC)
RIGHT = SIGNER.post("h", "T", b"{}", NOW)
SIGNATURE = RIGHT.headers["authorization"].encode()
FORGED: dict[str, tuple[Request, str]] = {
    "another body": (replace(RIGHT, body=b"[]"), "InvalidSignatureException"),
    "another target": (
        replace(RIGHT, head=RIGHT.head.replace(b"target: T", b"target: U")),
        "InvalidSignatureException",
    ),
    "another secret": (
        Signer("dynamodb", "us-east-1", "test", "guessed").post("h", "T", b"{}", NOW),
        "InvalidSignatureException",
    ),
    "another service": (
        Signer("s3", "us-east-1", *HERE).post("h", "T", b"{}", NOW),
        "InvalidSignatureException",
    ),
    "another key": (
        Signer("dynamodb", "us-east-1", "somebody", "test").post("h", "T", b"{}", NOW),
        "UnrecognizedClientException",
    ),
    "none": (
        replace(RIGHT, head=RIGHT.head.replace(b"authorization", b"x-nothing")),
        "MissingAuthenticationTokenException",
    ),
    "half of one": (
        replace(RIGHT, head=RIGHT.head.replace(b"Signature=", b"")),
        "IncompleteSignatureException",
    ),
    "no time": (
        replace(RIGHT, head=RIGHT.head.replace(b"T235900Z", b"")),
        "IncompleteSignatureException",
    ),
    "old": (
        SIGNER.post("h", "T", b"{}", NOW - timedelta(minutes=5, seconds=1)),
        "InvalidSignatureException",
    ),
    "of the future": (
        SIGNER.post("h", "T", b"{}", NOW + timedelta(minutes=5, seconds=1)),
        "InvalidSignatureException",
    ),
    "host not signed": (
        replace(RIGHT, head=RIGHT.head.replace(b"content-type;host;", b"content-type;")),
        "InvalidSignatureException",
    ),
}


@pytest.mark.parametrize(("forged", "code"), FORGED.values(), ids=FORGED)
def test_signatures_that_are_refused(forged: Request, code: str) -> None:
    verified(RIGHT, NOW)
    with pytest.raises(SignatureError) as raised:
        verified(forged, NOW)
    assert raised.value.code == code


def test_a_body_that_somebody_changed_is_signed_anew() -> None:
    changed = with_signed_body(RIGHT, b'{"more": 1}', "test")
    assert changed.headers["content-length"] == "11"
    verified(changed, NOW)
    bare = Request("", b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n", b"{}")
    assert with_signed_body(bare, b"", "test").headers == {"content-length": "0"}


def test_who_does_not_sign_is_told_as_dynamodb_does(url: str) -> None:
    for key_id, secret, code in (
        ("somebody", "test", "UnrecognizedClientException"),
        ("test", "guessed", "InvalidSignatureException"),
    ):
        stranger = boto3.Session(key_id, secret, region_name="us-east-1")
        asked = stranger.client("dynamodb", endpoint_url=url)
        assert refusal(asked.list_tables) == (code, 400)
    status, _, answer = send(url, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}")
    told = json.loads(answer)
    assert status == 400
    assert told["__type"] == "com.amazon.coral.service#MissingAuthenticationTokenException"
    assert told["message"] == "Request is missing Authentication Token"


def test_a_batch_that_chaos_cuts_short_is_signed_anew(url: str) -> None:
    async def meddle(request: Request, forward: Forward) -> Answer:
        return await unprocessed(request, forward, random.Random(1))

    with tables_of("fast", url) as dynamodb, Proxy("http://127.0.0.1:1", meddle) as proxy:
        told = write(fast(proxy.url("hot", url)), *(put(sk=str(number)) for number in range(9)))
        left = [one["PutRequest"]["Item"]["sk"]["S"] for one in told["UnprocessedItems"]["t-1"]]
        taken = [one["sk"]["S"] for one in dynamodb.scan(TableName="t-1")["Items"]]
        assert sorted(left + taken) == [str(number) for number in range(9)]
        assert left
        assert taken


# ---- HTTP ----


@pytest.mark.parametrize("pieces", [1, 2, 50])
def test_a_request_may_come_in_pieces(url: str, pieces: int) -> None:
    request = signed(url, "ListTables", b"{}")
    status, headers, answer = send(url, request.head + request.body, pieces)
    assert (status, headers["content-type"]) == (200, "application/x-amz-json-1.0")
    assert headers["x-amz-crc32"] == str(zlib.crc32(answer))


def test_requests_may_come_at_once_and_are_answered_in_turn(url: str) -> None:
    asked = [signed(url, "ListTables", b"{}"), signed(url, "Nothing", b"{}")] * 3
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"".join(one.head + one.body for one in asked))
        stream = connection.makefile("rb")
        assert [read_answer(stream)[0] for _ in asked] == [200, 400] * 3


BROKEN: dict[str, bytes] = {
    "chunks": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "17 MB": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 17825792\r\n\r\n",
    "an endless head": b"POST / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000,
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_read_is_told_and_ends_the_connection(url: str, data: bytes) -> None:
    assert send(url, data)[0] in {400, 413}
    assert fast(url).list_tables()


@pytest.mark.parametrize("body", [b"", b"[", b"[]", b"[" * 100_000, b"\xff"])
def test_what_is_no_json_is_told(url: str, body: bytes) -> None:
    for operation in ("BatchWriteItem", "PutItem", "Scan", "CreateTable"):
        status, answer = post(url, operation, body)
        assert status == 400
        assert answer["__type"] == "com.amazon.coral.service#SerializationException"


NOT_SERVED = (
    "#at = :at AND attribute_exists(pk)",
    "NOT #at = :at",
    "#at <> :at",
    "(#at = :at)",
    "begins_with(#at, :at)",
    "#at = :at OR #at BETWEEN :at AND :at",
    "_at = :at OR #at = :at",
    "#at.x = :at",
    "#at = :at OR",
    "OR",
)


def test_what_is_not_served_is_said(url: str) -> None:
    dynamodb = fast(url)
    with tables_of("fast", url):
        for call in (
            lambda: dynamodb.update_item(TableName="t-1", Key=item()),
            lambda: dynamodb.scan(TableName="t-1", FilterExpression="a = b"),
            *(
                lambda condition=condition: dynamodb.put_item(
                    TableName="t-1", Item=item(), **by_time(condition, "1")
                )
                for condition in NOT_SERVED
            ),
            lambda: dynamodb.delete_item(
                TableName="t-1",
                Key=item(),
                **by_time(SAME, "1") | {"ExpressionAttributeValues": {":at": {"N": "1"}}},
            ),
            lambda: dynamodb.delete_item(TableName="t-1", Key=item(), ReturnValues="ALL_OLD"),
            lambda: dynamodb.scan(TableName="t-1", ProjectionExpression="a[0]"),
        ):
            assert "does not serve" in message(call)


# ---- What is kept ----


def filled(url: str, count: int) -> Any:
    dynamodb = fast(url)
    create_table(dynamodb, "t-1")
    for at in range(0, count, 25):
        write(dynamodb, *(put(pk=str(n % 7), sk=str(n)) for n in range(at, at + 25)))
    return dynamodb


def test_items_outlast_the_process(tmp_path: Path) -> None:
    with serving(tmp_path) as url:
        dynamodb = filled(url, 100)
        write(dynamodb, put(pk="0", sk="0", x={"S": "again\nand again"}))
        write(dynamodb, {"DeleteRequest": {"Key": item("1", "1")}})
        spaced = json.dumps({"TableName": "t-1", "Item": item("z", "z")}, indent=2)
        assert post(url, "PutItem", spaced.encode())[0] == 200
        before = dynamodb.scan(TableName="t-1")["Items"]
        assert len(before) == 100
    with (tmp_path / "t-1.items").open("ab") as journal:
        journal.write(b'{"pk":{"S":"torn"')
    for _ in range(2):  # what was torn is gone, and what comes after it is whole
        with serving(tmp_path) as url:
            dynamodb = fast(url)
            found = dynamodb.scan(TableName="t-1")["Items"]
            assert sorted(map(json.dumps, found)) == sorted(map(json.dumps, before))
            dynamodb.put_item(TableName="t-1", Item=item("z", "z"))


def test_a_journal_of_what_was_replaced_is_written_anew(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    with serving(tmp_path) as url:
        filled(url, 25)
    tables = Tables(tmp_path)
    body = json.dumps({"RequestItems": {"t-1": [put(sk=str(n)) for n in range(25)]}}).encode()
    for _ in range(STALE_MIN // 25 + 10):
        tables.operate("BatchWriteItem", body)
    tables.close()
    grown = (tmp_path / "t-1.items").stat().st_size
    again = Tables(tmp_path)
    assert json.loads(again.operate("Scan", b'{"TableName":"t-1"}'))["Count"] == 50
    again.close()
    assert (tmp_path / "t-1.items").stat().st_size < grown / 100


def test_a_deleted_table_is_gone(tmp_path: Path) -> None:
    with serving(tmp_path) as url:
        filled(url, 25).delete_table(TableName="t-1")
    with serving(tmp_path) as url:
        assert fast(url).list_tables()["TableNames"] == []


def test_items_are_there_after_the_process_was_killed(tmp_path: Path) -> None:
    made = FastTable(tmp_path / "table", tmp_path / "log", "http://127.0.0.1:1")
    made.start()
    filled(made.url, 50)
    assert made.alive()
    made._process._process.kill()
    again = FastTable(tmp_path / "table", tmp_path / "log", "http://127.0.0.1:1")
    again.start()
    try:
        assert fast(again.url).scan(TableName="t-1")["Count"] == 50
    finally:
        again.stop()
        made.stop()
    assert not again.alive()


def test_a_table_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "t-1.items").write_bytes(b"no journal\n")
    made = FastTable(tmp_path / "table", tmp_path / "log", "http://127.0.0.1:1")
    with pytest.raises(emulator.EmulatorError, match="the fast table did not start"):
        made.start()
    assert not made.alive()


# ---- The ledger, which is the emulator's ----


def test_what_is_kept_elsewhere_is_passed_on(tmp_path: Path) -> None:
    told = answer(200, b'{"Items":[],"Count":7}')
    with loopback(told) as server, serving(tmp_path, server.url) as url:
        assert fast(url).scan(TableName="kept-elsewhere")["Count"] == 7
        both = {"kept-elsewhere": [put()], "t-1": [put()]}
        assert "does not serve a batch of" in message(
            lambda: fast(url).batch_write_item(RequestItems=both)
        )


def test_an_emulator_that_is_not_there_is_the_tables_trouble(tmp_path: Path) -> None:
    with serving(tmp_path, "http://127.0.0.1:1") as url:
        assert refusal(lambda: fast(url).scan(TableName="kept-elsewhere")) == (
            "InternalServerError",
            500,
        )
        assert fast(url).list_tables()["TableNames"] == []
