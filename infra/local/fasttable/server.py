"""The fast table's process: signed HTTP/1.1 on a socket that it was given, one request at a time.

    python -m infra.local.fasttable.server SOCKET DIRECTORY EMULATOR LEDGER

What names the ledger's table is passed on to the emulator, whose workflow writes it within. SIGTERM
ends it; there is nothing to save then.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import re
import signal
import socket
import sys
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import cast

from infra.local.fasttable.operations import Elsewhere, Tables
from infra.local.fasttable.refusals import (
    BROKEN,
    CORAL,
    TOO_LARGE,
    Refused,
    unreadable,
    unsigned,
)
from infra.local.proxy import CONTINUE, Answer, Request, address_of, ask
from infra.local.signature import SignatureError, verify

TARGET = "DynamoDB_20120810."
HEAD_BYTES_MAX = 65_536
BODY_BYTES_MAX = 16 << 20  # BatchWriteItem's limit, and above all others
GC_ALLOCATIONS = 100_000  # items are no garbage: look for cycles seldom
HEALTHY = b"healthy: dynamodb"

_length = re.compile(rb"\ncontent-length: *([0-9]{1,18}) *\r", re.IGNORECASE).search
_ids = count(1)


class Server:
    """Answers requests: those of other tables' names by asking the emulator."""

    def __init__(self, tables: Tables, credentials: tuple[str, str], emulator: str = "") -> None:
        self._tables, self._credentials, self._emulator = tables, credentials, emulator
        self.connections: set[Connection] = set()

    def answer(self, request: Request) -> Answer | None:
        """The answer; None for a request that the emulator has to be asked."""
        if request.method == "GET":
            return answered(HEALTHY, kind="text/plain")
        try:
            key_id, secret = self._credentials
            verify(request, "dynamodb", key_id, secret, datetime.now(UTC))
            operation = request.headers.get("x-amz-target", "").removeprefix(TARGET)
            return answered(self._tables.operate(operation, request.body))
        except Elsewhere:
            return None
        except SignatureError as error:
            return refused(unsigned(error.code, str(error)))
        except Refused as error:
            return refused(error)
        except OSError as error:
            return refused(Refused("InternalServerError", str(error), status=BROKEN))

    async def passed_on(self, request: Request) -> Answer:
        """The emulator's answer."""
        try:
            return await ask(address_of(self._emulator), request)
        except (OSError, EOFError) as error:
            return refused(Refused("InternalServerError", repr(error), status=BROKEN))


def answered(
    body: bytes, status: str = "200 OK", kind: str = "application/x-amz-json-1.0"
) -> Answer:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        f"x-amzn-RequestId: {next(_ids):032X}\r\nx-amz-crc32: {zlib.crc32(body)}\r\n\r\n"
    )
    return Answer(head.encode(), body)


def refused(error: Refused) -> Answer:
    return answered(error.body, error.status)


class Connection(asyncio.Protocol):
    """One client's connection: kept alive, requests answered in their order."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._buffer = bytearray()
        self._head = b""
        self._size = 0
        self._asking: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's
        self._transport = None
        self._server.connections.discard(self)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        if self._asking is not None:
            self._asking.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._asking is None and self._transport is not None:
            request = self._next()
            if request is None:
                return
            answer = self._server.answer(request)
            if answer is not None:
                self._transport.write(answer.head + answer.body)
            else:
                self._asking = asyncio.ensure_future(self._pass_on(request))

    async def _pass_on(self, request: Request) -> None:
        answer = await self._server.passed_on(request)
        self._asking = None
        if self._transport is not None:
            self._transport.write(answer.head + answer.body)
            self.data_received(b"")

    def _next(self) -> Request | None:
        """The next request, if all of it is here."""
        if not self._head:
            end = self._buffer.find(b"\r\n\r\n") + 4
            if end < 4 or end > HEAD_BYTES_MAX:  # noqa: PLR2004  the empty line's length
                if len(self._buffer) > HEAD_BYTES_MAX:
                    self._hang_up(unreadable("the head is too long"))
                return None
            self._head = bytes(self._buffer[:end])
            del self._buffer[:end]
            self._size = self._body_size(self._head)
        if self._size < 0 or len(self._buffer) < self._size:
            return None
        request = Request("", self._head, bytes(self._buffer[: self._size]))
        del self._buffer[: self._size]
        self._head = b""
        return request

    def _body_size(self, head: bytes) -> int:
        """How long the body is; -1 where nothing more can be read."""
        found = _length(head)
        size = int(found[1]) if found else 0
        if b"\ntransfer-encoding:" in head.lower():
            self._hang_up(unreadable("a body needs a Content-Length"))
            return -1
        if size > BODY_BYTES_MAX:
            long = Refused("RequestEntityTooLarge", "over 16 MB", space=CORAL, status=TOO_LARGE)
            self._hang_up(long)
            return -1
        if b"100-continue" in head and self._transport is not None:
            self._transport.write(CONTINUE)
        return size

    def _hang_up(self, error: Refused) -> None:
        """Say why nothing more is read from here."""
        if self._transport is not None:
            answer = refused(error)
            self._transport.write(answer.head + answer.body)
            self.close()


async def serve(listener: socket.socket, server: Server, until: asyncio.Event) -> None:
    """Answer who connects, until told to end."""
    loop = asyncio.get_running_loop()
    made: Callable[[], Connection] = partial(Connection, server)
    async with await loop.create_server(made, sock=listener):
        await until.wait()
        for connection in [*server.connections]:
            connection.close()
        await asyncio.sleep(0)  # what is closed ends in the loop's next round


def main(arguments: list[str]) -> None:
    """Serve the tables of a directory, once whoever served them before has ended."""
    number, directory, emulator, ledger = arguments
    listener = socket.socket(fileno=int(number))
    Path(directory).mkdir(parents=True, exist_ok=True)
    gc.set_threshold(GC_ALLOCATIONS)
    with (Path(directory) / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        tables = Tables(Path(directory), frozenset({ledger}))
        keys = (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
        asyncio.run(_run(listener, Server(tables, keys, emulator)))
        tables.close()


async def _run(listener: socket.socket, server: Server) -> None:
    end = asyncio.Event()
    for told in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(told, end.set)
    await serve(listener, server, end)


if __name__ == "__main__":
    main(sys.argv[1:])
