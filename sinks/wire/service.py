"""One AWS service: requests are signed, sent over kept-alive connections, and answered.

A request that goes out on a connection which the other side has just closed, as after a freeze,
gets no byte of an answer. It is sent once more on a new connection where the call may be repeated;
StartSyncExecution never is.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sinks.errors import Misconfigured
from sinks.wire.answers import Answer, Broken
from sinks.wire.connection import Connection, Patience
from sinks.wire.credentials import Credentials, Identity
from sinks.wire.endpoints import Endpoint
from sinks.wire.pool import Pool
from sinks.wire.signature import Signer, Signing, stamp

VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?|")  # no control characters: no headers
ACCESS_KEY = re.compile(r"[\x21-\x7e]+")
PATH = re.compile(r"/[\x21-\x7e]*")
OWN = "User-Agent: millrace\r\nAccept-Encoding: identity\r\n"


@dataclass(frozen=True)
class Request:
    """One call. `headers` have lower-case names and are signed, `path` is as it is sent.

    `payload` is what is signed of the body, where that is not its SHA-256.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    payload: str = ""


@dataclass(frozen=True, repr=False)
class _Frame:
    """The first lines of a head, and how it is signed. It holds secrets, so nothing shows it."""

    lines: str
    signing: Signing


@dataclass(frozen=True)
class Service:
    """A service at one endpoint; `patience` is that of a call which says no other.

    Raises `Broken`, and `Misconfigured` without credentials.
    """

    endpoint: Endpoint
    signer: Signer
    identity: Identity
    patience: Patience
    pool: Pool
    clock: Callable[[], float] = time.time
    _frames: dict[Any, _Frame] = field(default_factory=dict, compare=False, repr=False)

    def ask(
        self, request: Request, *, repeatable: bool, patience: Patience | None = None
    ) -> Answer:
        """The answer to one request."""
        patience = patience or self.patience
        head = self.head_of(request)
        connection = self.pool.take(patience)
        try:
            connection.send(head, request.body, patience)
            return self._received(connection)
        except Broken as broken:
            if not (repeatable and _was_dead(connection, broken)):
                raise
        return self._once_more(head, request.body, patience)

    def ask_each(self, requests: Iterable[Request]) -> list[Answer | Broken]:
        """Answers to repeatable requests that are under way all at once, each by a connection.

        One thread does it: it sends them all, and then reads what has come meanwhile. Where no
        connection can be had the rest is not begun, and has no answer.
        """
        begun: list[tuple[bytes, bytes, Connection]] = []
        answers: list[Answer | Broken] = []
        try:
            for request in requests:
                head = self.head_of(request)
                try:
                    connection = self.pool.take(self.patience)
                except Broken:
                    break
                begun.append((head, request.body, connection))
                with suppress(Broken):  # `receive` finds it again
                    connection.send(head, request.body, self.patience)
            for head, body, connection in begun:
                answers.append(self._settled(head, body, connection))
        finally:
            for _, _, connection in begun[len(answers) :]:
                connection.close()
        return answers

    def head_of(self, request: Request) -> bytes:
        """The request's head, signed for this moment."""
        frame = self._frame(self.identity(), stamp(self.clock()), request)
        payload = request.payload or hashlib.sha256(request.body).hexdigest()
        authorization = frame.signing.authorization(payload)
        length = f"content-length: {len(request.body)}\r\n" if request.method != "GET" else ""
        return f"{frame.lines}authorization: {authorization}\r\n{length}{OWN}\r\n".encode()

    def _frame(self, credentials: Credentials, stamped: str, request: Request) -> _Frame:
        """What all of a head but the body's part comes to; the last one is kept.

        The puts of a wave differ in their bodies alone.
        """
        asked = (credentials, stamped, request.method, request.path, *request.headers.items())
        frame = self._frames.get(asked)
        if frame is None:
            frame = self._framed(credentials, stamped, request)
            self._frames.clear()
            self._frames[asked] = frame
        return frame

    def _framed(self, credentials: Credentials, stamped: str, request: Request) -> _Frame:
        headers = {**request.headers, "host": self.endpoint.authority, "x-amz-date": stamped}
        if credentials.token:
            headers["x-amz-security-token"] = credentials.token
        for name, value in headers.items():
            if not VALUE.fullmatch(value):
                raise Misconfigured(f"the header {name} would hold what no header may")
        if not ACCESS_KEY.fullmatch(credentials.access_key):
            raise Misconfigured("the access key would hold what no header may")
        path = self.endpoint.path + request.path
        if not PATH.fullmatch(path):
            raise Misconfigured("the path would hold what no path may")
        signing = self.signer.signing(credentials, request.method, path, headers, stamped)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return _Frame(f"{request.method} {path} HTTP/1.1\r\n{lines}", signing)

    def _settled(self, head: bytes, body: bytes, connection: Connection) -> Answer | Broken:
        try:
            try:
                return self._received(connection)
            except Broken as broken:
                if not _was_dead(connection, broken):
                    return broken
            return self._once_more(head, body, self.patience)
        except Broken as broken:
            return broken

    def _once_more(self, head: bytes, body: bytes, patience: Patience) -> Answer:
        """A request whose connection was dead, on a new one."""
        connection = self.pool.fresh(patience)
        connection.send(head, body, patience)
        return self._received(connection)

    def _received(self, connection: Connection) -> Answer:
        """The answer, after which the connection waits for another request, or is closed."""
        lasting = False
        try:
            answer = connection.receive()
            lasting = answer.lasting
        finally:
            if not lasting:
                connection.close()
        self.pool.give(connection)
        return answer


def _was_dead(connection: Connection, broken: Broken) -> bool:
    """Whether the other side had closed the connection before it saw the request."""
    return connection.answered and broken.untouched
