"""Whatever a service answers, the wire makes of it what boto3 makes; what it wrote is there."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.config import Config
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from ingest.workflow import BotoExecutions
from sinks.bucket import ABSENT, BotoObjects, Bucket
from sinks.deadline import Deadline
from sinks.errors import SETUP, THROTTLES, TIMEOUTS, Refused, SinkError, Unavailable
from sinks.table import Item, Table
from sinks.wire.account import Account
from sinks.wire.connection import Patience
from sinks.wire.dynamodb import NEWEST
from sinks.writes import BotoNewest, BotoWrites
from tests.support import SOME, Clock, Loopback, answer, client, create_table, loopback

FEW = settings(max_examples=20, deadline=None)  # the emulator takes its time
PATIENCE = Patience(2, 2, whole=True)
ONCE = Config(
    retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, inject_host_prefix=False
)
ARN = "arn:aws:states:us-east-1:123456789012:stateMachine:m"
PUTS = [b'{"PutRequest":{"Item":{"pk":{"S":"p"},"sk":{"S":"%d"}}}}' % n for n in range(3)]
NEWER = b'{"PutRequest":{"Item":{"pk":{"S":"p"},"sk":{"S":"~"},"_at":{"S":"2026"}}}}'
CALLS = ("get", "put", "write", "newest", "run")


def account(url: str) -> Account:
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    more = {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": url, "HOME": "/nonexistent"}
    return Account(keys | more)


@dataclass(repr=False)
class Both:
    """The same calls by boto3 and by the wire, to one server that answers as it is told."""

    server: Loopback
    ways: tuple[dict[str, Any], dict[str, Any]]

    def outcomes(self, call: str, status: int, body: bytes, headers: dict[str, str]) -> list[Any]:
        self.server.script = [answer(status, body, headers)]
        return [outcome(way, call) for way in self.ways]


def outcome(way: dict[str, Any], call: str) -> Any:
    """What a call came to: its value, or what it raised and how that is judged."""
    calls: dict[str, Callable[[], Any]] = {
        "get": lambda: way["objects"].get("k"),
        "put": lambda: way["objects"].put("k", b"data", ABSENT),
        "write": lambda: way["writes"].write(PUTS),
        "newest": lambda: way["newest"].write([NEWER]),
        "run": lambda: way["executions"].start(ARN, "{}", 5).get("status"),
    }
    try:
        return calls[call]()
    except Refused as refused:
        named = refused.code if not refused.code.isdecimal() else ""  # or the status in its place
        return Refused, refused.status, named
    except SinkError as error:
        return type(error)


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    with loopback(answer(200)) as server:
        s3, tables = server.client("s3", ONCE), server.client("dynamodb", ONCE)
        machines = server.client("stepfunctions", ONCE)
        own = account(server.url)
        server.clients.append(own)
        boto = {
            "objects": BotoObjects(s3, "bucket"),
            "writes": BotoWrites(tables, "hot"),
            "newest": BotoNewest(tables, "hot"),
            "executions": BotoExecutions(lambda *_, **__: machines),
        }
        wire = {
            "objects": own.objects("bucket", PATIENCE, Clock().waiting(), 1),
            "writes": own.writes("hot", PATIENCE),
            "newest": own.writes("hot", PATIENCE, NEWEST),
            "executions": own.executions(PATIENCE),
        }
        yield Both(server, (boto, wire))


STATUSES = [200, 201, 206, *range(400, 432), 451, *range(500, 512), 599]
CODES = st.sampled_from(
    [
        *sorted(THROTTLES | TIMEOUTS | SETUP - {"AuthorizationHeaderMalformed"}),
        *(
            "NoSuchKey",
            "ConditionalCheckFailedException",
            "ValidationException",
            "InternalError",
            "PreconditionFailed",
            "Any.Code",
        ),
        "ConditionalRequestConflict",
    ]
)
SAID = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="<&>"))


def xml_of(code: str, said: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{said}</Message></Error>".encode()


def json_of(code: str, said: str) -> bytes:
    return json.dumps({"__type": f"com.amazonaws.any.v1#{code}", "message": said}).encode()


def plain_of(code: str, said: str) -> bytes:
    return json.dumps({"__type": f"{code}:http://any/", "Message": said}).encode()


BODIES = st.one_of(
    st.builds(xml_of, CODES, SAID),
    st.builds(json_of, CODES, SAID),
    st.builds(plain_of, CODES, SAID),
    st.sampled_from([b"", b"<html>Bad Gateway</html>", b"{}", b'{"__type":', b"no"]),
    st.sampled_from(
        [
            b'{"UnprocessedItems":{}}',
            b'{"UnprocessedItems":{"hot":[]}}',
            b'{"UnprocessedItems":{"hot":[' + PUTS[1] + b"]}}",
            b'{"UnprocessedItems":{"other":[]}}',
            b'{"status":"SUCCEEDED","output":"{}"}',
            b'{"status":"FAILED","error":"e","cause":"c"}',
        ]
    ),
)


@SOME
@given(call=st.sampled_from(CALLS), status=st.sampled_from(STATUSES), body=BODIES)
def test_an_answer_means_the_same_to_both(both: Both, call: str, status: int, body: bytes):
    assume(call != "put" or status >= 400 or not body)
    assume(call != "newest" or status >= 400 or body.startswith(b"{"))
    one, other = both.outcomes(call, status, body, {"ETag": '"tag"'})
    assert one == other


@SOME
@given(status=st.sampled_from([200, 201, 206]), body=BODIES.filter(bool))
def test_an_answer_to_a_put_that_has_a_body_is_not_s3s(both: Both, status: int, body: bytes):
    """boto3 takes what is XML and no error for success, and dies of what is no XML."""
    both.server.script = [answer(status, body)]
    assert outcome(both.ways[1], "put") is Unavailable


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("call", CALLS)
def test_each_status_without_a_word_means_the_same_to_both(both: Both, call: str, status: int):
    """But for a conditional put, of which boto3 takes no word of DynamoDB's for success."""
    if call == "newest" and status < 400:
        return
    one, other = both.outcomes(call, status, b"", {})
    assert one == other


@SOME
@given(st.binary(min_size=1, max_size=20), st.booleans())
def test_a_checksum_means_the_same_to_both(both: Both, data: bytes, right: bool):  # noqa: FBT001
    crc = base64.b64encode((zlib.crc32(data) ^ (not right)).to_bytes(4, "big")).decode()
    one, other = both.outcomes("get", 200, data, {"x-amz-checksum-crc32": crc, "ETag": '"tag"'})
    assert one == other


# What was written is there, whichever way it went


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    s3 = client("s3", url)
    s3.create_bucket(Bucket="bucket")
    s3.close()
    yield url
    server.stop()


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20)
KEYS = st.text(st.characters(min_codepoint=32, exclude_categories=("Cs",)), max_size=20).map(
    "k{}".format  # moto finds no key with a control character, whoever asks
)
VALUES = st.one_of(
    st.builds(lambda text: {"S": text}, TEXTS),
    st.builds(lambda number: {"N": str(number)}, st.integers(-(10**20), 10**20)),
    st.builds(lambda value: {"BOOL": value}, st.booleans()),
)
ITEMS = st.dictionaries(
    st.tuples(TEXTS, TEXTS),
    st.dictionaries(TEXTS.map("_".__add__), VALUES, max_size=4),
    max_size=60,
)


@FEW
@given(ITEMS)
def test_the_same_items_are_read_back_whichever_way_they_went(moto: str, drawn: dict[Any, Any]):
    tables = client("dynamodb", moto)
    items: dict[tuple[str, str], Item] = {
        (pk, sk): {"pk": {"S": pk}, "sk": {"S": sk}, **more} for (pk, sk), more in drawn.items()
    }
    own = account(moto)
    clock = Clock()
    found = []
    for name, writes in (("boto", None), ("wire", own.writes("wire", PATIENCE))):
        create_table(tables, name)
        table = Table(tables, name, writes=writes)
        assert table.put_all(items, Deadline(clock.now + 60, clock), clock.waiting()) == set()
        found.append({(item["pk"]["S"], item["sk"]["S"]): item for item in table.scan()})
        tables.delete_table(TableName=name)
    own.close()
    tables.close()
    assert found == [items, items]


@FEW
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(2_000, 2_009), TEXTS), max_size=40))
def test_the_newest_is_left_alone_whichever_way_it_went(moto: str, drawn: list[Any]):
    tables = client("dynamodb", moto)
    own = account(moto)
    found = []
    puts = [
        json.dumps({"PutRequest": {"Item": dict(zip(("pk", "sk", "_at", "x"), said, strict=True))}})
        for pk, at, text in drawn
        for said in [[{"S": pk}, {"S": "~"}, {"S": str(at)}, {"S": f"{at} {text}"}]]
    ]
    for name, newest in (
        ("boto", BotoNewest(tables, "boto")),
        ("wire", own.writes("wire", PATIENCE, NEWEST)),
    ):
        create_table(tables, name)
        for put in puts:  # one after another: moto looks and writes in two steps
            assert newest.write([put.encode()]) == []
        items = Table(tables, name).scan()
        found.append({item["pk"]["S"]: item["_at"]["S"] for item in items})
        tables.delete_table(TableName=name)
    own.close()
    tables.close()
    latest = {pk: str(max(at for who, at, _ in drawn if who == pk)) for pk, _, _ in drawn}
    assert found == [latest, latest]


@FEW
@given(KEYS, st.binary(max_size=200))
def test_the_same_objects_are_read_back_whichever_way_they_went(moto: str, key: str, data: bytes):
    s3 = client("s3", moto)
    own = account(moto)
    wire = Bucket(s3, "bucket", own.objects("bucket", PATIENCE, Clock().waiting(), 1))
    boto = Bucket(s3, "bucket")
    for writer in (wire, boto):
        writer.put_absent(key, data)
        assert wire.get(key) == boto.get(key) == data
        writer.put_absent(key, data)
        assert wire.change(key, lambda held: (held or b"") + b"+") == data + b"+"
        assert boto.get(key) == wire.find(key) == data + b"+"
        s3.delete_object(Bucket="bucket", Key=key)
        assert wire.find(key) is None
    own.close()
    s3.close()
