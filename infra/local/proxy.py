"""A loopback HTTP proxy in front of an AWS endpoint, in which somebody may meddle.

Bytes pass unchanged, heads and bodies, whatever their framing (a length, chunks with trailers). Of
HTTP/1.1 it knows what AWS SDKs use: connections kept alive, `Expect: 100-continue`, one request at
a time. It opens a connection of its own for each request, so that no request can fail by an old one
that the endpoint just closed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

HOST = "127.0.0.1"
HEAD_BYTES_MAX = 1 << 20
STOP_SECONDS = 5.0
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
NO_BODY = frozenset({204, 304})
T = TypeVar("T")

INFORMATIONAL = 200  # below it: another answer follows


class _Message:
    """What requests and answers share: a head, and a body as it was framed."""

    head: bytes

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """By lower-case name."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        pairs = (line.partition(":") for line in lines if line)
        return {name.strip().lower(): value.strip() for name, _, value in pairs}

    @cached_property
    def words(self) -> list[str]:
        """The first line, in its three parts."""
        return self.head.partition(b"\r\n")[0].decode("latin-1").split(" ", 2)


@dataclass(frozen=True)
class Request(_Message):
    """One request; `caller` is whom the port it came by was made for."""

    caller: str
    head: bytes
    body: bytes

    @property
    def method(self) -> str:
        return self.words[0]

    @property
    def path(self) -> str:
        return self.words[1].partition("?")[0]


@dataclass(frozen=True)
class Answer(_Message):
    """One answer of the endpoint, or made up."""

    head: bytes
    body: bytes

    @property
    def status(self) -> int:
        return int(self.words[1])


Forward = Callable[[Request], Awaitable[Answer]]
"""Ask the endpoint. Raises OSError or EOFError where it does not answer."""

Meddle = Callable[[Request, Forward], Awaitable[Answer | None]]
"""Answer a request, or hang up with None. Runs in the proxy's one thread: it must not block."""


async def pass_on(request: Request, forward: Forward) -> Answer | None:
    """Meddle with nothing."""
    return await forward(request)


def answer(status: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    """An answer made up; `status` is as in `503 Slow Down`."""
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
    return Answer(head.encode("latin-1"), body)


def with_body(head: bytes, body: bytes, headers: Mapping[str, str]) -> bytes:
    """A head for another body: its length, and `headers` in place of those of the same name."""
    replaced = {"content-length": str(len(body)), **headers}
    first, *lines = head.rstrip(b"\r\n").split(b"\r\n")
    kept = [
        line for line in lines if line.partition(b":")[0].strip().lower().decode() not in replaced
    ]
    fresh = [f"{name}: {value}".encode("latin-1") for name, value in replaced.items()]
    return b"\r\n".join([first, *kept, *fresh, b"", b""])


def address_of(url: str) -> tuple[str, int]:
    """Host and port of an endpoint."""
    parts = urlsplit(url)
    return str(parts.hostname), int(parts.port or 80)


class Proxy:
    """Stands in front of endpoints, with a port for each caller. Use it `with`."""

    def __init__(self, endpoint: str, meddle: Meddle = pass_on) -> None:
        self._endpoint = endpoint
        self._meddle = meddle
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._servers: list[asyncio.Server] = []
        self._talks: set[asyncio.Task[Any]] = set()  # the loop itself would let them be collected

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(TimeoutError):
            self._run(self._close()).result(STOP_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def url(self, caller: str, endpoint: str = "") -> str:
        """A new endpoint for this caller, in front of another one than the proxy's if named."""
        return self._run(self._listen(caller, address_of(endpoint or self._endpoint))).result()

    def _run(self, what: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(what, self._loop)

    async def _listen(self, caller: str, address: tuple[str, int]) -> str:
        forward = partial(ask, address)

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if (task := asyncio.current_task()) is not None:
                self._talks.add(task)
                task.add_done_callback(self._talks.discard)
            with suppress(OSError, EOFError, asyncio.CancelledError):
                await self._talk(caller, forward, reader, writer)
            writer.close()

        server = await asyncio.start_server(talk, HOST, 0, limit=HEAD_BYTES_MAX, backlog=1_024)
        self._servers.append(server)
        return f"http://{HOST}:{server.sockets[0].getsockname()[1]}"

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        talks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)

    async def _talk(
        self,
        caller: str,
        forward: Forward,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            request = Request(caller, head, b"")
            if request.headers.get("expect", "").lower() == "100-continue":
                writer.write(CONTINUE)
            request = Request(caller, head, await _body(reader, request.headers))
            answered = await self._meddle(request, forward)
            if answered is None:
                return
            writer.write(answered.head + answered.body)
            await writer.drain()
            if _closes(request) or _closes(answered) or _until_end(answered):
                return


async def ask(address: tuple[str, int], request: Request) -> Answer:
    """Send a request to an endpoint. Raises OSError or EOFError where it does not answer."""
    reader, writer = await asyncio.open_connection(*address, limit=HEAD_BYTES_MAX)
    try:
        writer.write(request.head + request.body)
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            answered = Answer(head, b"")
            if answered.status >= INFORMATIONAL:
                break
        if request.method == "HEAD" or answered.status in NO_BODY:
            return answered
        reading = reader.read() if _until_end(answered) else _body(reader, answered.headers)
        return Answer(head, await reading)
    finally:
        writer.close()


def _closes(message: Request | Answer) -> bool:
    return message.headers.get("connection", "").lower() == "close"


def _until_end(answered: Answer) -> bool:
    """Whether its body ends where the connection does."""
    framed = {"content-length", "transfer-encoding"} & answered.headers.keys()
    return not framed and answered.status not in NO_BODY


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    """A body as it is on the wire."""
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(headers.get("content-length", 0)))
    parts = []
    while True:
        line = await reader.readuntil(b"\r\n")
        parts.append(line)
        size = int(line.partition(b";")[0], 16)
        if not size:
            break
        parts.append(await reader.readexactly(size + 2))
    while parts[-1] != b"\r\n":  # trailers, and the empty line behind them
        parts.append(await reader.readuntil(b"\r\n"))
    return b"".join(parts)
