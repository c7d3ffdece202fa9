"""Answers are read whole or not at all, whatever pieces they come in."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks.wire import answers
from sinks.wire.answers import Broken, Incoming, read
from tests.support import SOME

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: Chunked\r\n\r\n"
LASTING = [
    (OK + b"Content-Length: 2\r\n\r\n{}", 200, b"{}"),
    (OK + b"content-LENGTH:0\r\n\r\n", 200, b""),
    (b"HTTP/1.1 204\r\n\r\n", 204, b""),
    (b"HTTP/1.1 304 Not Modified\r\n\r\n", 304, b""),
    (OK + b"A: 1\r\nA:\t2 \r\nContent-Length: 0\r\n\r\n", 200, b""),
    (CHUNKED + b"2\r\nab\r\n0A;x=y\r\n0123456789\r\n0\r\nT: 1\r\n\r\n", 200, b"ab0123456789"),
    (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nX: y\r\n\r\n"
        + OK
        + b"Content-Length: 1\r\n\r\nx",
        200,
        b"x",
    ),
]
LAST = [
    (OK + b"Connection: Close\r\nContent-Length: 1\r\n\r\nx", 200, b"x"),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, b"x"),
    (b"HTTP/1.1 503 Slow Down\r\n\r\nto the end", 503, b"to the end"),
]
GOOD = [*LASTING, *LAST]

BAD = [
    b"",
    b"\r\n\r\n",
    b"HTTP/2 200 OK\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 099 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\n\n",
    b"garbage\r\n\r\n",
    OK + b"\r\nto the end",
    OK + b"no colon\r\n\r\n",
    OK + b"A : 1\r\n\r\n",
    OK + b" folded: 1\r\n\r\n",
    OK + b"A: 1\r\n folded\r\n\r\n",
    OK + b"A: 1\nB: 2\r\n\r\n",
    OK + b"A: \0\r\n\r\n",
    OK + b"Content-Length: -1\r\n\r\n",
    OK + b"Content-Length: +1\r\n\r\nx",
    OK + b"Content-Length: 1_0\r\n\r\n0123456789",
    OK + b"Content-Length: 9999999999999\r\n\r\n",
    OK + b"Content-Length: 1073741825\r\n\r\n",
    OK + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 204 No\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
    OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nab\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * answers.INTERIM_MAX,
    OK + b"A: " + b"x" * answers.HEAD_BYTES_MAX + b"\r\nContent-Length: 0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * answers.LINE_BYTES_MAX + b"\r\nx\r\n",
]


def incoming(pieces: Iterable[bytes]) -> Incoming:
    left = iter([piece for piece in pieces if piece])
    return Incoming(lambda: next(left, b""))


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[low:high] for low, high in pairwise(edges)]


@SOME
@given(st.sampled_from(GOOD), st.lists(st.integers(0, 10**6), max_size=20))
def test_an_answer_is_the_same_in_whatever_pieces_it_comes(
    case: tuple[bytes, int, bytes], places: list[int]
):
    data, status, body = case
    found = read(incoming(cut(data, places)))
    assert (found.status, found.body, found.lasting) == (status, body, case in LASTING)


def test_headers_are_found_in_any_case_and_joined():
    found = read(incoming([LASTING[4][0]]))
    assert [found.text(name) for name in (b"a", b"content-length", b"b")] == ["1, 2", "0", ""]


def test_after_what_nobody_asked_for_no_answer_may_follow():
    assert not read(incoming([LASTING[0][0] + b"HTTP"])).lasting


@pytest.mark.parametrize("data", BAD)
def test_what_is_unclear_is_broken(data: bytes):
    for pieces in ([data], [data[n : n + 1] for n in range(min(len(data), 2_000))]):
        with pytest.raises(Broken):
            read(incoming(pieces))


@pytest.mark.parametrize("data", [data for data, _, _ in LASTING])
def test_an_answer_that_is_cut_short_is_none(data: bytes):
    for size in range(len(data)):
        with pytest.raises(Broken) as raised:
            read(incoming([data[:size]]))
        assert raised.value.untouched == (size == 0)


def test_answers_come_one_after_another():
    stream = incoming([b"".join(data for data, _, _ in LASTING)])
    assert [read(stream).body for _ in LASTING] == [body for _, _, body in LASTING]
    assert stream.empty


@SOME
@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_break(data: bytes):
    for given_ in (data, OK + data, OK + b"Transfer-Encoding: chunked\r\n\r\n" + data):
        try:
            answer = read(incoming([given_]))
        except Broken:
            continue
        assert 200 <= answer.status < 1_000
