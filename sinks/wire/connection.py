"""One kept-alive connection: a request out, its answer in, never two at once."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from sinks.errors import Misconfigured
from sinks.wire.answers import RECEIVE_BYTES, Answer, Broken, Incoming, read
from sinks.wire.endpoints import Endpoint

SMALL_BYTES = 65_536  # head and body leave in one write; above, copying costs more than a write


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds: for a connection, and for silence to end.

    `whole` bounds an answer's last byte, not only each silence.
    """

    connect: float
    read: float
    whole: bool = False


class Connection:
    """A connection to an endpoint. Raises `Broken` for whatever goes wrong with it."""

    def __init__(self, endpoint: Endpoint, patience: Patience, authorities: str) -> None:
        self.answered = False
        self.rested_at = 0.0
        self._until = time.monotonic() + patience.read
        self._patience = patience
        self._waits = -1.0  # as the socket was told
        self._incoming = Incoming(self._more)
        try:
            self._socket = _open(endpoint, patience, authorities)
        except (OSError, ValueError) as error:
            raise Broken(f"connect to {endpoint.host}: {_said(error)}") from error
        self._coming = select.poll()
        self._coming.register(self._socket, select.POLLIN)

    def send(self, head: bytes, body: bytes, patience: Patience) -> None:
        """Send a request. A peer that hangs up meanwhile may have answered: `receive` tells."""
        if self.answered:
            self._until = time.monotonic() + patience.read
        self._patience = patience
        try:
            self._wait(patience.read)
            if len(body) <= SMALL_BYTES:
                self._send(head + body)
            else:
                self._send(head)
                self._send(body)
        except TimeoutError:
            self._socket.close()
            raise Broken("the request was not taken in time") from None
        except OSError:
            return

    def receive(self) -> Answer:
        """The answer to what was sent."""
        answer = read(self._incoming)
        self.answered = True
        return answer

    @property
    def rested(self) -> bool:
        """Whether nothing has come since the last answer: no end, nor what nobody asked for.

        Of TLS nothing can be left in the socket itself: what is received at once is more than a
        record has.
        """
        try:
            return self._socket.fileno() >= 0 and not self._coming.poll(0)
        except OSError:
            return False

    def close(self) -> None:
        self._socket.close()

    def _send(self, data: bytes) -> None:
        """All of it: nearly always at once, for which `sendall` of TLS takes longer."""
        sent = self._socket.send(data)
        if sent < len(data):
            self._socket.sendall(memoryview(data)[sent:])

    def _wait(self, seconds: float) -> None:
        """Wait so long from now on. To tell the socket what it knows is a system call each time."""
        if seconds != self._waits:
            self._socket.settimeout(seconds)
            self._waits = seconds

    def _more(self) -> bytes:
        seconds = self._patience.read
        if self._patience.whole:  # what has come is read all the same, however late it is read
            seconds = max(min(seconds, self._until - time.monotonic()), 0)
        try:
            self._wait(seconds)
            return self._socket.recv(RECEIVE_BYTES)
        except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
            raise Broken(f"no answer within {self._patience.read:g} s") from None
        except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return b""
        except OSError as error:
            raise Broken(_said(error)) from error


def authorities(environment: Mapping[str, str]) -> str:
    """The authorities to trust, as botocore finds them: a file, or empty for the system's."""
    if given := environment.get("AWS_CA_BUNDLE"):
        return given
    if find_spec("certifi") is None:
        return ""
    import certifi  # noqa: PLC0415  where it is installed

    return certifi.where()


def _open(endpoint: Endpoint, patience: Patience, trusted: str) -> socket.socket:
    host = endpoint.host.strip("[]")  # around an IPv6 address
    plain = socket.create_connection((host, endpoint.port), patience.connect)
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if not endpoint.secure:
            return plain
        return _context(trusted).wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


@cache
def _context(trusted: str) -> ssl.SSLContext:
    """Certificates and host names are verified by default. Made once: it takes long."""
    if not trusted:
        return ssl.create_default_context()
    path = Path(trusted)
    try:
        if path.is_dir():
            return ssl.create_default_context(capath=trusted)
        return ssl.create_default_context(cafile=trusted)
    except OSError as error:
        raise Misconfigured(f"certificate authorities in {trusted}: {error}") from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
