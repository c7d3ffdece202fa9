"""S3, DynamoDB and Step Functions over TLS on loopback, as little of them as the benchmark needs.

    python -m loadtests.bench.aws CERTIFICATE KEY [CORE]

It prints its port. Objects lie in memory; a BatchWriteItem is taken whole and unread, an execution
succeeds and runs nothing. `/-/...` is for the benchmark itself: what to keep, how long to wait
before DynamoDB answers, and what came. What is measured against it is the client.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
import zlib
from collections import OrderedDict

import orjson

OBJECTS_MAX = 256  # kept, the newest
NO_KEY = b"<Error><Code>NoSuchKey</Code><Message>There is no such key</Message></Error>"
TAKEN = b'{"UnprocessedItems":{}}'
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Store:
    """What all connections share."""

    def __init__(self) -> None:
        self.objects: OrderedDict[bytes, bytes] = OrderedDict()
        self.bodies: list[bytes] = []
        self.keeps = False
        self.wait_seconds = 0.0
        self.calls = 0
        self.state = b"{}"

    def told(self, path: bytes, body: bytes) -> bytes:
        """A request of the benchmark's own."""
        what = path.removeprefix(b"/-/")
        if what == b"set":
            asked = orjson.loads(body)
            self.keeps, self.wait_seconds = asked["keep"], asked["wait_ms"] / 1_000
            self.bodies.clear()
            self.objects.clear()
            return b"{}"
        if what == b"bodies":
            return b"[" + b",".join(self.bodies) + b"]"
        return orjson.dumps(
            {
                "state": orjson.loads(self.state),
                "keys": [key.decode() for key in self.objects],
                "calls": self.calls,
            }
        )

    def put(self, path: bytes, body: bytes) -> None:
        self.objects[path] = body
        if len(self.objects) > OBJECTS_MAX:
            self.objects.popitem(last=False)

    def execute(self, body: bytes) -> bytes:
        """The answer of an execution in which every record was delivered."""
        self.state = orjson.loads(body)["input"].encode()
        received = orjson.loads(self.state)["received"]
        counted = {"delivered": received, "dropped": 0, "quarantined": 0, "retry": "[]"}
        account = counted | {"outcome": "done", "reason": ""}
        output = {"account": account, "transform": {}, "hot": {}}
        told = {"status": "SUCCEEDED", "output": orjson.dumps(output).decode(), "input": "{}"}
        return orjson.dumps(
            told | {"executionArn": "arn", "startDate": 1.0, "stopDate": 1.0, "name": "bench"}
        )


class Connection(asyncio.Protocol):
    """One kept-alive connection: requests one after the other."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._buffer = bytearray()
        self._continued = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._next():
            pass

    def _next(self) -> bool:
        """Answer the first request in the buffer, if all of it is there."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._buffer[:end])
        headers = _headers(head)
        if b"expect" in headers and not self._continued:
            self._continued = True
            self._transport.write(CONTINUE)
        start = end + 4
        if headers.get(b"transfer-encoding") == b"chunked":
            found = _chunked(self._buffer, start)
            if found is None:
                return False
            body, stop = found
        else:
            stop = start + int(headers.get(b"content-length", b"0"))
            if len(self._buffer) < stop:
                return False
            body = bytes(self._buffer[start:stop])
        del self._buffer[:stop]
        self._continued = False
        if b"aws-chunked" in headers.get(b"content-encoding", b""):
            body = _aws_chunks(body)
        method, path = head.split(b" ", 2)[:2]
        self._answer(method, path.partition(b"?")[0], headers, body)
        return True

    def _answer(self, method: bytes, path: bytes, headers: dict[bytes, bytes], body: bytes) -> None:
        store = self._store
        target = headers.get(b"x-amz-target", b"").partition(b".")[2]
        if target == b"BatchWriteItem":
            store.calls += 1
            if store.keeps:
                store.bodies.append(body)
            if store.wait_seconds:
                loop = asyncio.get_running_loop()
                loop.call_later(store.wait_seconds, self._transport.write, TAKEN_ANSWER)
            else:
                self._transport.write(TAKEN_ANSWER)
        elif target == b"StartSyncExecution":
            self._transport.write(_json(store.execute(body)))
        elif path.startswith(b"/-/"):
            self._transport.write(_json(store.told(path, body)))
        elif method == b"PUT":
            store.put(path, body)
            self._transport.write(PUT_ANSWER)
        elif path in store.objects:
            self._transport.write(_http(b"200 OK", store.objects[path], b'ETag: "1"\r\n'))
        else:
            self._transport.write(_http(b"404 Not Found", NO_KEY, b"Content-Type: text/xml\r\n"))


def _headers(head: bytes) -> dict[bytes, bytes]:
    found = {}
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        found[name.lower()] = value.strip()
    return found


def _chunked(buffer: bytearray, start: int) -> tuple[bytes, int] | None:
    """A body in HTTP chunks and where it ends, None while it is not all there."""
    parts = []
    while (line := buffer.find(b"\r\n", start)) >= 0:
        size = int(buffer[start:line].partition(b";")[0], 16)
        stop = line + 2 + size + 2
        if len(buffer) < stop:
            return None
        if not size:
            return b"".join(parts), stop
        parts.append(bytes(buffer[line + 2 : line + 2 + size]))
        start = stop
    return None


def _aws_chunks(body: bytes) -> bytes:
    """What S3's own chunks hold; the checksum behind them is not looked at."""
    parts, start = [], 0
    while True:
        line = body.index(b"\r\n", start)
        size = int(body[start:line].partition(b";")[0], 16)
        if not size:
            return b"".join(parts)
        parts.append(body[line + 2 : line + 2 + size])
        start = line + 2 + size + 2


def _http(status: bytes, body: bytes, more: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\n%bx-amzn-RequestId: B\r\nContent-Length: %d\r\n\r\n%b" % (
        status,
        more,
        len(body),
        body,
    )


def _json(body: bytes) -> bytes:
    kind = b"Content-Type: application/x-amz-json-1.0\r\nx-amz-crc32: %d\r\n" % zlib.crc32(body)
    return _http(b"200 OK", body, kind)


TAKEN_ANSWER = _json(TAKEN)
PUT_ANSWER = _http(b"200 OK", b"", b'ETag: "1"\r\n')


async def serve(certificate: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    store = Store()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(store), "127.0.0.1", 0, ssl=context)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    if len(sys.argv) > 3:  # noqa: PLR2004  the core is the third
        os.sched_setaffinity(0, {int(sys.argv[3])})
    asyncio.run(serve(sys.argv[1], sys.argv[2]))
