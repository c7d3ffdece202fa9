"""A server of bytes: what it answers is said byte by byte, on plain sockets or over TLS."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

Talk = Callable[[socket.socket, bytes], bool]
"""Does something about one request; whether the connection goes on."""


@dataclass
class RawServer:
    """Answers requests by a script, over all connections; its last entry is repeated."""

    script: list[Talk]
    listener: socket.socket
    context: ssl.SSLContext | None = None
    requests: list[bytes] = field(default_factory=list)
    connections: list[socket.socket] = field(default_factory=list)
    clients: list[Any] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        scheme = "https" if self.context else "http"
        return f"{scheme}://localhost:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                taken, _ = self.listener.accept()
                threading.Thread(target=self._talk, args=(taken,), daemon=True).start()

    def hang_up(self) -> None:
        """Close every connection, as a server does with those that were idle for long."""
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self.connections.clear()

    def _talk(self, taken: socket.socket) -> None:
        with suppress(OSError):
            if self.context:
                taken = self.context.wrap_socket(taken, server_side=True)
            with self.lock:
                self.connections.append(taken)
            while (request := _request(taken)) and self._next(request)(taken, request):
                pass
        with suppress(OSError):
            taken.shutdown(socket.SHUT_RDWR)
        taken.close()

    def _next(self, request: bytes) -> Talk:
        with self.lock:
            self.requests.append(request)
            return self.script[min(len(self.requests), len(self.script)) - 1]


def _request(taken: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := taken.recv(65_536)):
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    _, found, rest = head.lower().partition(b"content-length:")
    length = int(rest.partition(b"\r\n")[0]) if found else 0
    while len(body) < length:
        if not (more := taken.recv(65_536)):
            return b""
        body += more
    return head + b"\r\n\r\n" + body


@contextmanager
def raw_server(*script: Talk, context: ssl.SSLContext | None = None) -> Iterator[RawServer]:
    with socket.create_server(("localhost", 0), backlog=100) as listener:
        server = RawServer(list(script), listener, context)
        thread = threading.Thread(target=server.serve)
        thread.start()
        try:
            yield server
        finally:
            for client in server.clients:
                client.close()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            server.hang_up()


def say(data: bytes, *, lasting: bool = True) -> Talk:
    """Answer with these bytes."""

    def talk(taken: socket.socket, _: bytes) -> bool:
        taken.sendall(data)
        return lasting

    return talk


def whole(body: bytes, head: bytes = b"HTTP/1.1 200 OK\r\n") -> bytes:
    """An answer with its length."""
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def hang_up(taken: socket.socket, _: bytes) -> bool:
    """Say nothing, and close."""
    del taken
    return False


def reset(taken: socket.socket, _: bytes) -> bool:
    """Close so that what is on its way is lost."""
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    taken.close()
    return False


def silence(taken: socket.socket, _: bytes) -> bool:
    """Say nothing until the other side gives up."""
    with suppress(OSError):
        taken.recv(1)
    return False
