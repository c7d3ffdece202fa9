"""Connections are kept, found dead and replaced; what may not be sent twice is sent once."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sinks.bucket import ABSENT, Found
from sinks.deadline import Deadline
from sinks.errors import Misconfigured, Refused, SinkError, Unavailable
from sinks.wire.account import Account
from sinks.wire.connection import Patience
from sinks.wire.dynamodb import WireWrites
from sinks.wire.pool import IDLE_SECONDS_MAX
from sinks.wire.s3 import WireObjects
from sinks.wire.stepfunctions import WireExecutions
from tests.raw_server import (
    RawServer,
    Talk,
    hang_up,
    raw_server,
    reset,
    say,
    silence,
    whole,
)
from tests.support import Clock

KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "tok3n"}
PATIENCE = Patience(1, 0.3, whole=True)
TAKEN = b'{"UnprocessedItems":{}}'
RAN = b'{"status":"SUCCEEDED","output":"{}"}'
ARN = "arn:aws:states:eu-central-1:123456789012:stateMachine:m"


def numbered(count: int) -> list[bytes]:
    text = b'{"PutRequest":{"Item":{"pk":{"S":"p"},"sk":{"S":"%d"},"x":{"S":"\\u00e9"}}}}'
    return [text % number for number in range(count)]


PUTS = numbered(3)


def account(server: RawServer, **more: str) -> Account:
    environment = {**KEYS, "AWS_REGION": "eu-central-1", "AWS_ENDPOINT_URL": server.url}
    made = Account({**environment, "HOME": "/nonexistent", **more})
    server.clients.append(made)
    return made


def writes(server: RawServer, **more: str) -> WireWrites:
    return account(server, **more).writes("hot", PATIENCE)


def objects(server: RawServer, attempts: int = 1) -> WireObjects:
    return account(server).objects("bucket", PATIENCE, Clock().waiting(), attempts)


def executions(server: RawServer) -> WireExecutions:
    return account(server).executions(PATIENCE)


def write(server: RawServer) -> Callable[[], Any]:
    made = writes(server)
    return lambda: made.write(PUTS)


def put(server: RawServer) -> Callable[[], Any]:
    made = objects(server)
    return lambda: made.put("k", b"data", ABSENT)


def get(server: RawServer) -> Callable[[], Any]:
    made = objects(server)
    return lambda: made.get("k")


def run(server: RawServer) -> Callable[[], Any]:
    made = executions(server)
    return lambda: made.start(ARN, "{}", 1)


CALLS = [write, put, get, run]
REPEATABLE = [write, put, get]
GOOD = {write: whole(TAKEN), put: whole(b""), get: whole(b"data"), run: whole(RAN)}


@pytest.mark.parametrize("call", CALLS)
def test_connections_are_kept(call: Any):
    with raw_server(say(GOOD[call])) as server:
        again = call(server)
        assert [again() for _ in range(3)] == [again()] * 3
        assert (len(server.requests), len(server.connections)) == (4, 1)


@pytest.mark.parametrize("call", CALLS)
def test_one_that_the_server_says_to_close_is_not(call: Any):
    good = GOOD[call].replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    with raw_server(say(good)) as server:
        again = call(server)
        assert again() == again()
        assert (len(server.requests), len(server.connections)) == (2, 2)


@pytest.mark.parametrize("call", CALLS)
def test_one_that_was_closed_while_it_rested_is_replaced_before_anything_is_sent(call: Any):
    with raw_server(say(GOOD[call])) as server:
        again = call(server)
        again()
        server.hang_up()
        time.sleep(0.02)
        again()
        assert len(server.requests) == 2


@pytest.mark.parametrize("died", [hang_up, reset])
@pytest.mark.parametrize("call", REPEATABLE)
def test_a_request_on_a_kept_connection_that_just_died_is_sent_once_more(call: Any, died: Talk):
    good = say(GOOD[call])
    with raw_server(good, died, good) as server:
        again = call(server)
        assert again() == again()
        assert (len(server.requests), server.requests[1]) == (3, server.requests[2])
    with raw_server(good, died, died, good) as server:
        again = call(server)
        again()
        with pytest.raises(Unavailable):
            again()
        assert len(server.requests) == 3


@pytest.mark.parametrize("died", [hang_up, reset, silence, say(b"HTTP/1.1 2", lasting=False)])
def test_an_execution_is_never_begun_twice(died: Talk):
    good = say(GOOD[run])
    with raw_server(good, died, good) as server:
        again = run(server)
        again()
        with pytest.raises(Unavailable, match=ARN):
            again()
        time.sleep(0.05)
        assert len(server.requests) == 2


@pytest.mark.parametrize("died", [hang_up, reset, silence, say(b"HTTP/1.1 2", lasting=False)])
@pytest.mark.parametrize("call", REPEATABLE)
def test_nothing_is_repeated_on_a_connection_that_was_new_or_had_answered(call: Any, died: Talk):
    with raw_server(died) as server:
        with pytest.raises(Unavailable):
            call(server)()
        assert len(server.requests) == 1


@pytest.mark.parametrize("died", [silence, say(b"HTTP/1.1 2", lasting=False)])
@pytest.mark.parametrize("call", REPEATABLE)
def test_silence_and_half_an_answer_are_not_repeated(call: Any, died: Talk):
    with raw_server(say(GOOD[call]), died) as server:
        again = call(server)
        again()
        with pytest.raises(Unavailable):
            again()
        assert len(server.requests) == 2


@pytest.mark.parametrize("call", CALLS)
def test_an_answer_cut_at_any_byte_is_weather(call: Any):
    for size in range(len(GOOD[call])):
        with raw_server(say(GOOD[call][:size], lasting=False)) as server:
            with pytest.raises(Unavailable):
                call(server)()
            assert len(server.requests) == 1


def test_an_answer_that_drips_is_not_awaited_for_ever():
    def drip(taken: socket.socket, _: bytes) -> bool:
        for byte in GOOD[run]:
            taken.sendall(bytes([byte]))
            time.sleep(0.05)
        return False

    with raw_server(drip) as server:
        started = time.monotonic()
        with pytest.raises(Unavailable, match="no answer within 1 s"):
            run(server)()
        assert time.monotonic() - started < 1.5


def test_nobody_listening_is_weather():
    with raw_server(hang_up) as server:
        calls = [call(server) for call in CALLS]
        url = server.url
    for call in calls:
        with pytest.raises(Unavailable, match="connect to localhost"):
            call()
    assert url


@pytest.mark.parametrize("rest", [IDLE_SECONDS_MAX, 10**6, -1])
def test_one_that_rested_too_long_or_by_a_clock_that_jumped_is_replaced(rest: float):
    with raw_server(say(GOOD[write])) as server:
        made = writes(server)
        clock = Clock()
        made.service.pool._clock = clock
        for _ in range(2):
            made.write(PUTS)
        clock.now += rest
        made.write(PUTS)
        assert len(server.requests) == 3
        assert server.requests[0] == server.requests[1]
        assert len(server.connections) == 2


def test_what_nobody_asked_for_ends_a_connection():
    with raw_server(say(GOOD[write])) as server:
        again = write(server)
        again()
        server.connections[0].sendall(whole(b"{}"))
        time.sleep(0.02)
        assert again() == []
        assert len(server.connections) == 2


def test_threads_get_their_own_answers():
    def echo(taken: socket.socket, request: bytes) -> bool:
        state = json.loads(request.partition(b"\r\n\r\n")[2])["input"]
        taken.sendall(whole(json.dumps({"status": "SUCCEEDED", "output": state}).encode()))
        return True

    with raw_server(echo) as server, ThreadPoolExecutor(16) as pool:
        made = executions(server)
        states = [str(number) for number in range(400)]
        told = pool.map(lambda state: made.start(ARN, state, 5)["output"], states)
        assert list(told) == states
        assert len(server.connections) <= 16


# Several at once


def test_calls_are_under_way_at_once_and_answered_in_order():
    barrier = threading.Barrier(5)

    def together(taken: socket.socket, request: bytes) -> bool:
        barrier.wait(5)  # nobody is answered before all have asked
        items = json.loads(request.partition(b"\r\n\r\n")[2])["RequestItems"]["hot"]
        taken.sendall(whole(json.dumps({"UnprocessedItems": {"hot": items[:1]}}).encode()))
        return True

    with raw_server(together) as server:
        made = writes(server)
        calls = [[one] for one in numbered(5)]
        for _ in range(3):
            assert made.write_each(calls) == calls
        assert len(server.connections) == 5


def test_of_calls_at_once_each_fares_for_itself():
    half = say(GOOD[write][:-3], lasting=False)
    script = [say(GOOD[write]), silence, say(GOOD[write]), half, hang_up, say(GOOD[write])]
    with raw_server(*script) as server:
        started = time.monotonic()
        left = writes(server).write_each([PUTS] * 6)
        assert sorted(map(len, left)) == [0, 0, 0, 3, 3, 3]
        assert time.monotonic() - started < 3 * PATIENCE.read
        assert len(server.requests) == 6


def test_after_a_freeze_all_connections_are_replaced():
    with raw_server(say(GOOD[write])) as server:
        made = writes(server)
        assert made.write_each([PUTS] * 8) == [[]] * 8
        server.hang_up()
        assert made.write_each([PUTS] * 8) == [[]] * 8
        assert 16 <= len(server.requests) <= 24


def test_where_nobody_listens_not_one_call_is_begun():
    with raw_server(hang_up) as server:
        made = writes(server)
    assert made.write_each([PUTS] * 3) == []


def test_what_an_operator_must_mend_ends_a_wave():
    denied = b'{"__type":"com.amazon#AccessDeniedException","Message":"no"}'
    with (
        raw_server(say(whole(denied, b"HTTP/1.1 400 Bad Request\r\n"))) as server,
        pytest.raises(Misconfigured, match="AccessDeniedException: no"),
    ):
        writes(server).write_each([PUTS] * 3)


# DynamoDB


@pytest.mark.parametrize(("crc", "error"), [(zlib.crc32(TAKEN), None), (1, Unavailable)])
def test_an_answer_is_what_its_crc32_says(crc: int, error: type[SinkError] | None):
    head = b"HTTP/1.1 200 OK\r\nx-amz-crc32: %d\r\n" % crc
    with raw_server(say(whole(TAKEN, head))) as server:
        if error is None:
            assert write(server)() == []
        else:
            with pytest.raises(error, match="crc32"):
                write(server)()


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"<html>", b'{"UnprocessedItems":null}', b'{"UnprocessedItems":[]}']
)
def test_an_answer_without_unprocessed_items_acknowledges_nothing(body: bytes):
    with raw_server(say(whole(body))) as server:
        assert write(server)() == PUTS


def test_what_was_not_taken_is_given_back_as_it_was_given():
    item = {"sk": {"S": "1"}, "pk": {"S": "p"}, "x": {"S": "é"}}
    left = {"UnprocessedItems": {"hot": [{"PutRequest": {"Item": item}}]}}
    with raw_server(say(whole(json.dumps(left).encode()))) as server:
        assert write(server)() == [PUTS[1]]
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert json.loads(body) == {"RequestItems": {"hot": [json.loads(put) for put in PUTS]}}
    assert b"\r\nhost: localhost:" in head


def test_of_a_refused_signature_no_secret_is_told():
    said = "The signature does not match.\n\nThe Canonical String is\nx-amz-security-token:tok3n"
    body = {"__type": "c#InvalidSignatureException", "message": said}
    head = b"HTTP/1.1 400 Bad Request\r\n"
    with (
        raw_server(say(whole(json.dumps(body).encode(), head))) as server,
        pytest.raises(Misconfigured, match="The signature does not match") as raised,
    ):
        write(server)()
    assert "tok3n" not in str(raised.value)
    assert "tok3n" not in repr(raised.value.__cause__)


# S3


def checksum(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


@pytest.mark.parametrize(
    ("header", "good"),
    [
        (f"x-amz-checksum-crc32: {checksum(b'data')}", True),
        (f"x-amz-checksum-crc32: {checksum(b'other')}", False),
        ("x-amz-checksum-sha1: oXyaqvKcVv83fbYCaMO/SU1jWxc=", False),
        ("x-amz-checksum-sha256: Om6weQ85rIfJTzhWst0sXREOaBFgImGpqSPTuyOtyLc=", True),
        ("x-amz-checksum-sha256: AAAA", False),
        ("x-amz-checksum-crc32: AAAAAA==-2", True),
        ("x-amz-checksum-crc64nvme: AAAA", True),
    ],
)
def test_an_object_is_what_its_checksum_says(header: str, good: bool):  # noqa: FBT001
    head = f'HTTP/1.1 200 OK\r\nETag: "tag"\r\n{header}\r\n'.encode()
    with raw_server(say(whole(b"data", head))) as server:
        if good:
            assert get(server)() == Found(b"data", '"tag"')
        else:
            with pytest.raises(Unavailable, match="checksum"):
                get(server)()
        assert b"\r\nx-amz-checksum-mode: ENABLED\r\n" in server.requests[0]


def test_a_put_says_its_checksum_and_its_condition():
    with raw_server(say(GOOD[put])) as server:
        objects(server).put("a b/é+", b"data", ABSENT)
        objects(server).put("k", b"data", {"IfMatch": '"tag"'})
        first, second = server.requests
    assert first.startswith(b"PUT /bucket/a%20b/%C3%A9%2B HTTP/1.1\r\n")
    assert b"\r\nif-none-match: *\r\n" in first
    assert f"\r\nx-amz-checksum-crc32: {checksum(b'data')}\r\n".encode() in first
    assert first.endswith(b"\r\n\r\ndata")
    assert b'\r\nif-match: "tag"\r\n' in second


def test_an_error_that_comes_with_success_is_weather():
    body = b"<?xml version='1.0'?>\n<Error><Code>InternalError</Code></Error>"
    with raw_server(say(whole(body))) as server, pytest.raises(Unavailable, match="InternalError"):
        put(server)()


def test_weather_is_tried_again_with_full_jitter_and_not_beyond_the_deadline():
    slow = say(whole(b"<Error><Code>SlowDown</Code></Error>", b"HTTP/1.1 503 Slow Down\r\n"))
    clock = Clock()
    with raw_server(slow, slow, slow, say(GOOD[put])) as server:
        made = account(server).objects("bucket", PATIENCE, clock.waiting(), 4)
        made.put("k", b"data", ABSENT)
        assert len(server.requests) == 4
    assert clock.naps == [0.2, 0.4, 0.8]
    with raw_server(slow) as server:
        made = account(server).objects("bucket", PATIENCE, clock.waiting(), 4)
        with pytest.raises(Unavailable, match="SlowDown"):
            made.put("k", b"data", ABSENT, Deadline(clock.now + 0.5, clock))
        assert len(server.requests) == 2
        with pytest.raises(Unavailable):
            made.get("k")
        assert len(server.requests) == 6


def test_what_is_no_weather_is_not_tried_again():
    gone = say(whole(b"<Error><Code>NoSuchKey</Code></Error>", b"HTTP/1.1 404 Not Found\r\n"))
    taken = say(whole(b"", b"HTTP/1.1 412 Precondition Failed\r\n"))
    with raw_server(taken, gone) as server:
        made = objects(server, attempts=4)
        with pytest.raises(Refused, match="412") as raised:
            made.put("k", b"data", ABSENT)
        assert raised.value.status == 412
        with pytest.raises(SinkError, match="NoSuchKey"):
            made.get("k")
        assert len(server.requests) == 2
