"""One Lambda worker: a process of the official `awslambdaric` and the Runtime API it asks.

The Lambda service gives each execution environment a Runtime API at `AWS_LAMBDA_RUNTIME_API`: the
process asks `GET /2018-06-01/runtime/invocation/next`, posts to `/{id}/response` or `/{id}/error`,
and asks again. Here each worker has a port of its own, because nothing else says which worker is
asking: awslambdaric's own client takes `host:port` only, so a path or a user in the address breaks
the report of an init error. One thread owns the worker, and the conversation is its control flow.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from infra.local.invoke_api import (
    UNHANDLED,
    InitFailed,
    Invocation,
    Stopped,
    error_of,
    error_payload,
)

if TYPE_CHECKING:
    from infra.topology import Function

RESPONSE_MAX_BYTES = 6_291_556  # Lambda quota as it is enforced: 6 MiB and 100 bytes
INIT_TIMEOUT_SECONDS = 60.0  # AWS allows 10; a laptop starts all its workers at the same time
LOG_TAIL_BYTES = 4_096  # what an InitFailed shows of the log

# Runs in the new process. The kernel kills it when the thread that started it ends, also when that
# is a SIGKILL of the whole process; then the check that this has not happened already.
# ctypes here rather than in preexec_fn, which may deadlock when the parent has threads.
BOOTSTRAP = """\
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() != int(sys.argv.pop()):
    os._exit(1)
from awslambdaric.__main__ import main
main(sys.argv)
"""


@dataclass(frozen=True)
class Sandbox:
    """What a worker process is started with; `environment` is the whole of it."""

    function: Function
    arn: str
    environment: Mapping[str, str]
    log: Path
    root: Path


class Worker:
    """A worker process, replaced when it dies, and its Runtime API.

    Only the thread that made a worker may use it, but for `kill`: the process is killed when that
    thread ends.
    `stop` is a socket that becomes readable when all must end; every wait then raises `Stopped`.
    """

    def __init__(self, sandbox: Sandbox, stop: socket.socket) -> None:
        self._sandbox = sandbox
        self._log: IO[bytes] = sandbox.log.open("ab", buffering=0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._selector = selectors.DefaultSelector()
        self._selector.register(stop, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._stop = stop
        self._connection: _Connection | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._exit = -1  # pidfd of the process
        self._asking = False  # the process waits for an answer to `next`

    def prepare(self) -> None:
        """Return when a process waits for an invocation, started if need be; else InitFailed."""
        if self._asking and not self._exit_ready():
            return
        if self._process is not None and not self._asking:
            with suppress(_Exited, TimeoutError):  # or it did not survive its last invocation
                self._await_next()
                return
        self._end()
        log_start = self._log.seek(0, os.SEEK_END)
        self._start()
        try:
            self._await_next()
        except (_Exited, TimeoutError) as error:
            raise self._init_failed(error, log_start) from None

    def invoke(self, payload: bytes) -> Invocation:
        """Run the handler once; a death or a timeout is an Invocation too, and ends the process."""
        try:
            self.prepare()
        except InitFailed as error:
            return Invocation(error.payload, UNHANDLED, 0.0)
        request_id = uuid.uuid4()
        timeout_seconds = self._sandbox.function.timeout_seconds
        started = time.monotonic()
        try:
            answer, function_error = self._converse(payload, request_id, started + timeout_seconds)
        except (_Exited, TimeoutError) as error:
            kind, why = self._end_by(error, timeout_seconds)
            self._log.write(f"{request_id} {kind} {why}\n".encode())
            answer = error_payload(kind, f"RequestId: {request_id} Error: {why}")
            function_error = UNHANDLED
        return Invocation(answer, function_error, (time.monotonic() - started) * 1000)

    def kill(self) -> None:
        """End the process as the kernel would that is out of memory. Safe from any thread."""
        if (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """End the process and whatever it started in its process group; give back the port."""
        self._end()
        self._selector.close()
        self._listener.close()
        self._log.close()

    def _converse(
        self, payload: bytes, request_id: uuid.UUID, deadline: float
    ) -> tuple[bytes, str | None]:
        deadline_ms = int((time.time() + deadline - time.monotonic()) * 1000)
        trace = f"Root=1-{deadline_ms // 1000:08x}-{request_id.hex[:24]};Sampled=0"
        self._asking = False
        self._reply(
            deadline,
            "200 OK",
            payload,
            f"Content-Type: application/json\r\n"
            f"Lambda-Runtime-Aws-Request-Id: {request_id}\r\n"
            f"Lambda-Runtime-Deadline-Ms: {deadline_ms}\r\n"
            f"Lambda-Runtime-Invoked-Function-Arn: {self._sandbox.arn}\r\n"
            f"Lambda-Runtime-Trace-Id: {trace}\r\n",
        )
        request = self._receive(deadline)
        if request.size > RESPONSE_MAX_BYTES:
            self._reply(deadline, "413 Content Too Large")  # the runtime exits, as in AWS
            limit = f"maximum allowed payload size ({RESPONSE_MAX_BYTES} bytes)"
            why = f"Response payload size exceeded {limit}."
            return error_payload("Function.ResponseSizeTooLarge", why), UNHANDLED
        self._reply(deadline, "202 Accepted")
        return request.body, None if request.path.endswith("/response") else UNHANDLED

    def _await_next(self) -> None:
        deadline = time.monotonic() + INIT_TIMEOUT_SECONDS
        request = self._receive(deadline)
        if not request.path.endswith("/next"):  # /init/error
            self._reply(deadline, "202 Accepted")
            raise _Exited(request.body)
        self._asking = True

    def _reply(self, deadline: float, status: str, body: bytes = b"", headers: str = "") -> None:
        if self._connection is not None:
            with suppress(ConnectionError):  # the next _receive sees the end
                self._connection.reply(deadline, status, body, headers)

    def _receive(self, deadline: float) -> _Request:
        """The process's next request; `_Exited` when it ends first, TimeoutError at `deadline`."""
        while True:
            left_seconds = max(deadline - time.monotonic(), 0)
            ready = {key.fileobj for key, _ in self._selector.select(left_seconds)}
            if self._stop in ready:
                raise Stopped(f"{self._sandbox.function.name}: stopped")
            if self._connection in ready:  # before its exit: an answer may precede the end
                if (request := self._connection.read(deadline)) is not None:
                    return request
                self._disconnect()
            elif self._listener in ready:
                self._disconnect()  # the process has one request open at a time
                self._connection = _Connection(self._listener.accept()[0])
                self._selector.register(self._connection, selectors.EVENT_READ)
            elif self._exit in ready:
                raise _Exited
            elif not ready:
                raise TimeoutError

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._selector.unregister(self._connection)
            self._connection.close()
            self._connection = None

    def _start(self) -> None:
        host, port = self._listener.getsockname()
        self._process = subprocess.Popen(  # noqa: S603  our own handlers
            [sys.executable, "-c", BOOTSTRAP, self._sandbox.function.handler, str(os.getpid())],
            env={**self._sandbox.environment, "AWS_LAMBDA_RUNTIME_API": f"{host}:{port}"},
            cwd=self._sandbox.root,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the caller, who then ends us
        )
        self._exit = os.pidfd_open(self._process.pid)
        self._selector.register(self._exit, selectors.EVENT_READ)

    def _exit_ready(self) -> bool:
        return any(key.fileobj == self._exit for key, _ in self._selector.select(0))

    def _end(self) -> int | None:
        """Kill the process and what it started; its exit status, its own if it was first."""
        self._asking = False
        self._disconnect()
        if self._process is None:
            return None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        status = self._process.wait()
        self._selector.unregister(self._exit)
        os.close(self._exit)
        self._process, self._exit = None, -1
        return status

    def _end_by(self, error: _Exited | TimeoutError, timeout_seconds: float) -> tuple[str, str]:
        """End the process; why it ended in AWS's words, error type and message."""
        status = self._end()
        if isinstance(error, TimeoutError):
            return "Sandbox.Timedout", f"Task timed out after {timeout_seconds:.2f} seconds"
        if not status:
            return "Runtime.ExitError", "Runtime exited without providing a reason"
        how = f"exit status {status}" if status > 0 else f"signal: {signal.strsignal(-status)}"
        return "Runtime.ExitError", f"Runtime exited with error: {how}"

    def _init_failed(self, error: _Exited | TimeoutError, log_start: int) -> InitFailed:
        kind, why = self._end_by(error, INIT_TIMEOUT_SECONDS)
        payload = error_payload(kind, why)
        if isinstance(error, _Exited) and error.posted:
            payload = error.posted
            kind, why = error_of(payload)
        name, path = self._sandbox.function.name, self._sandbox.log
        with path.open("rb") as log:
            log.seek(max(log_start, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            tail = log.read().decode(errors="replace").replace("\r", "\n").strip()
        message = f"function {name!r} did not start: {kind}: {why}\nend of {path}:\n{tail}"
        return InitFailed(message, payload)


@dataclass(frozen=True)
class _Request:
    """`size` is the body's length; of a body over the limit only the beginning is kept."""

    path: str
    size: int
    body: bytes


class _Exited(Exception):
    """The process ended, or said that it will: then with the error it posted."""

    def __init__(self, posted: bytes = b"") -> None:
        super().__init__()
        self.posted = posted


class _Connection:
    """The process's end of the conversation: HTTP/1.1, kept alive, nothing pipelined."""

    def __init__(self, peer: socket.socket) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = peer
        self._stream = peer.makefile("rb")

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self, deadline: float) -> _Request | None:
        """One request, or None when the peer is gone.

        Lines have no limit: the runtime sends up to 1 MiB of X-Ray cause in one header.
        """
        self._until(deadline)
        try:
            words = self._stream.readline().decode().split(" ")  # GET /path HTTP/1.1
            size = 0
            while (line := self._stream.readline()) not in (b"\r\n", b""):
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    size = int(value)
            body = self._stream.read(min(size, RESPONSE_MAX_BYTES))
            read = len(body)
            while read < size and (more := len(self._stream.read(min(size - read, 1 << 20)))):
                read += more
        except ConnectionError:
            return None
        return _Request(words[1], size, body) if line and read == size else None

    def reply(self, deadline: float, status: str, body: bytes = b"", headers: str = "") -> None:
        self._until(deadline)
        head = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        self._socket.sendall(head.encode() + body)

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def _until(self, deadline: float) -> None:
        self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
