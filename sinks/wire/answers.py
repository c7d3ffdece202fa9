"""HTTP/1.1 answers, as little of them as AWS sends, read strictly: what is unclear is broken.

status line, headers, empty line      at most `HEAD_BYTES_MAX`; a 1xx is passed over
body                                  by Content-Length, by chunks, or to the connection's end
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

HEAD_BYTES_MAX = 65_536
BODY_BYTES_MAX = 1 << 30  # of one answer; an object of Millrace's has a few MiB
INTERIM_MAX = 8  # answers 1xx before the one that counts
LINE_BYTES_MAX = 1_024  # of a chunk's size, or a trailer
RECEIVE_BYTES = 65_536

HEAD = re.compile(
    rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n]*)?"
    rb"(?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*)*\r\n\r\n"
)
LENGTHS = re.compile(rb"\r\ncontent-length:([^\r\n]*)", re.IGNORECASE)
ENCODINGS = re.compile(rb"\r\ntransfer-encoding:([^\r\n]*)", re.IGNORECASE)
CONNECTIONS = re.compile(rb"\r\nconnection:([^\r\n]*)", re.IGNORECASE)
SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")
LENGTH = re.compile(rb"[0-9]{1,12}")
NO_BODY = frozenset({204, 304})
SWITCHING = 101
FINAL = 200  # and above: the answer that counts
REDIRECTED = 300  # and above: not what was asked for


class Broken(Exception):
    """No whole answer came. `untouched` says that not a byte of one did, and the peer hung up."""

    def __init__(self, why: str, *, untouched: bool = False) -> None:
        super().__init__(why)
        self.untouched = untouched


class Answer(NamedTuple):
    """One answer. `head` is checked, and looked into for the few headers that somebody asks for.

    `lasting` is whether another may follow.
    """

    status: int
    head: bytes
    body: bytes
    lasting: bool

    @property
    def good(self) -> bool:
        """Whether it says that what was asked for is done."""
        return self.status < REDIRECTED

    def text(self, name: bytes) -> str:
        """A header as text, empty where it is absent. Of several of a name all, with commas."""
        return b", ".join(map(_stripped, _lines(name).findall(self.head))).decode("latin-1")


class Incoming:
    """The bytes of a connection as they come; `more` gives some of them, none at the end."""

    def __init__(self, more: Callable[[], bytes]) -> None:
        self._more = more
        self._held = b""
        self.touched = False  # whether anything came since it was last set

    @property
    def empty(self) -> bool:
        """Whether nothing is held that was not asked for."""
        return not self._held

    def until(self, mark: bytes, most: int) -> bytes:
        """All up to and with `mark`."""
        held = self._held
        while (at := held.find(mark)) < 0:
            if len(held) > most:
                raise Broken(f"the answer has no end of line in {most} bytes")
            data = self._more()
            if not data:
                why = "the connection ended before the answer did"
                raise Broken(why, untouched=not self.touched)
            held += data
            self.touched = True
            self._held = held
        at += len(mark)
        if at > most:
            raise Broken(f"the answer has no end of line in {most} bytes")
        self._held = held[at:]
        return held[:at]

    def exactly(self, count: int) -> bytes:
        """So many bytes."""
        held = self._held
        if len(held) >= count:
            self._held = held[count:]
            return held[:count]
        parts, missing = [held], count - len(held)
        self._held = b""
        while missing > 0:
            data = self._more()
            if not data:
                raise Broken(f"the connection ended {missing} bytes before the answer did")
            parts.append(data)
            missing -= len(data)
        if missing < 0:
            self._held = parts[-1][missing:]
            parts[-1] = parts[-1][:missing]
        return b"".join(parts)

    def rest(self) -> bytes:
        """All that comes until the connection ends."""
        parts, size = [self._held], len(self._held)
        self._held = b""
        while data := self._more():
            parts.append(data)
            size += len(data)
            if size > BODY_BYTES_MAX:
                raise Broken(f"the answer is over {BODY_BYTES_MAX} bytes")
        return b"".join(parts)


def read(incoming: Incoming) -> Answer:
    """The next answer, whole. Raises `Broken`."""
    incoming.touched = not incoming.empty
    for _ in range(INTERIM_MAX):
        head = incoming.until(b"\r\n\r\n", HEAD_BYTES_MAX)
        match = HEAD.fullmatch(head)
        if match is None:
            raise Broken("the answer's head is not HTTP/1.1")
        minor, status = match[1], int(match[2])
        if status >= FINAL:
            break
        if status == SWITCHING:
            raise Broken("the answer switches protocols")
    else:
        raise Broken(f"no answer but {INTERIM_MAX} interim ones")
    ends = minor == b"0" or any(b"close" in said.lower() for said in CONNECTIONS.findall(head))
    lengths, encodings = LENGTHS.findall(head), ENCODINGS.findall(head)
    if len(lengths) > 1 or len(encodings) > 1:
        raise Broken("the answer says twice how long it is")
    if status in NO_BODY:
        body = b""
    elif encodings:
        if lengths or minor == b"0":
            raise Broken("the answer's framing is ambiguous")
        body = _chunked(incoming, encodings[0])
    elif lengths:
        body = incoming.exactly(_length(_stripped(lengths[0])))
    else:
        body, ends = _rest(incoming, status), True
    return Answer(status, head, body, lasting=not ends and incoming.empty)


@cache
def _lines(name: bytes) -> re.Pattern[bytes]:
    """Finds the values of a header: of few names, those that are asked for."""
    return re.compile(rb"\r\n%b:([^\r\n]*)" % re.escape(name), re.IGNORECASE)


def _stripped(value: bytes) -> bytes:
    return value.strip(b" \t")


def _length(value: bytes) -> int:
    if not LENGTH.fullmatch(value) or int(value) > BODY_BYTES_MAX:
        raise Broken("the answer's length is none")
    return int(value)


def _rest(incoming: Incoming, status: int) -> bytes:
    """A body without a stated end: half of it could not be told from the whole."""
    body = incoming.rest()
    if status < REDIRECTED:
        raise Broken("the answer does not say where it ends")
    return body


def _chunked(incoming: Incoming, encoding: bytes) -> bytes:
    if _stripped(encoding).lower() != b"chunked":
        raise Broken("the answer's framing is ambiguous")
    parts, whole = [], 0
    while True:
        match = SIZE.fullmatch(incoming.until(b"\r\n", LINE_BYTES_MAX))
        if match is None:
            raise Broken("a chunk's size is none")
        size = int(match[1], 16)
        whole += size
        if whole > BODY_BYTES_MAX:
            raise Broken(f"the answer is over {BODY_BYTES_MAX} bytes")
        if not size:
            break
        parts.append(incoming.exactly(size))
        if incoming.exactly(2) != b"\r\n":
            raise Broken("a chunk has another size than it says")
    trailers = 0
    while (line := incoming.until(b"\r\n", LINE_BYTES_MAX)) != b"\r\n":
        trailers += len(line)
        if trailers > HEAD_BYTES_MAX:
            raise Broken("the answer's trailers do not end")
    return b"".join(parts)
