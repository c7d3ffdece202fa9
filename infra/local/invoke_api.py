"""The Invoke API of the local Lambda: its words, and its form in HTTP.

The errors of this directory's Lambda, and what a caller meets:

    LambdaError
    ├── RuntimeUnavailable      awslambdaric cannot run here                     raised by start()
    ├── InitFailed              a process died before its first invocation       raised by start()
    ├── Stopped                 500 ServiceException: stop() came first
    ├── FunctionNotFound        404 ResourceNotFoundException
    ├── TooManyRequests         429 TooManyRequestsException
    ├── RequestTooLarge         413 RequestTooLargeException
    └── InvalidParameter        400 InvalidParameterValueException

A function that fails is none of these: it is an `Invocation` whose `function_error` is set.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import parse_qsl, unquote

if TYPE_CHECKING:
    from infra.local.switches import Switch, Switches

HOST = "127.0.0.1"
PAYLOAD_MAX_BYTES = 6 * 1024 * 1024  # Lambda quota: synchronous invocation payload
UNHANDLED = "Unhandled"  # the one value of X-Amz-Function-Error for managed runtimes
IDLE_SECONDS = 60  # then a silent HTTP connection is closed
BACKLOG = 1024  # connections not yet accepted; the default of 5 costs SYN retries of a second

MAPPINGS = "/2015-03-31/event-source-mappings"
_INVOKE = re.compile(r"/2015-03-31/functions/([^/?]+)/invocations")
_PROXY = re.compile(r"/proxy/([^/?]+)")


@dataclass(frozen=True)
class Invocation:
    """One ended invocation. `duration_ms` runs from hand-over to answer, waiting excluded.

    With a `function_error` the payload is `{"errorType", "errorMessage", ...}`, as in AWS.
    """

    payload: bytes
    function_error: str | None
    duration_ms: float


class LambdaError(Exception):
    """What Lambda itself refuses; `status` and `code` are those of the Invoke API."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "ServiceException"


class RuntimeUnavailable(LambdaError):
    """`awslambdaric` has wheels for Linux only, so handlers cannot run in processes here."""


class InitFailed(LambdaError):
    """A process died before it asked for an invocation; `payload` is what Invoke would answer."""

    def __init__(self, message: str, payload: bytes) -> None:
        super().__init__(message)
        self.payload = payload


class Stopped(LambdaError):
    """The service was stopped before the invocation ended; whether it had effects is unknown."""


class FunctionNotFound(LambdaError):
    """No function has this name, or no mapping this UUID."""

    status, code = 404, "ResourceNotFoundException"


class TooManyRequests(LambdaError):
    """The function has its reserved concurrency in flight."""

    status, code = 429, "TooManyRequestsException"


class RequestTooLarge(LambdaError):
    """The payload is over the quota."""

    status, code = 413, "RequestTooLargeException"


class InvalidParameter(LambdaError):
    """Something of the Invoke API that is not offered here."""

    status, code = 400, "InvalidParameterValueException"


def error_payload(kind: str, message: str) -> bytes:
    return json.dumps({"errorType": kind, "errorMessage": message}).encode()


def error_of(payload: bytes) -> tuple[str, str]:
    """The errorType and errorMessage of a failed invocation's payload."""
    try:
        error = json.loads(payload)
        return str(error["errorType"]), str(error["errorMessage"])
    except (ValueError, TypeError, KeyError):
        return "Runtime.Unknown", payload[:512].decode(errors="replace")


class InvokeServer(ThreadingHTTPServer):
    """Invoke API, event source mappings and proxy.

    A connection holds a thread, as a synchronous invocation must.
    """

    daemon_threads = True
    request_queue_size = BACKLOG

    def __init__(
        self, invoke: Callable[[str, bytes], Invocation], switches: Switches | None = None
    ) -> None:
        super().__init__((HOST, 0), _Connection)
        self.invoke, self.switches = invoke, switches

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller that hung up is not worth a traceback; anything else is."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Connection(BaseHTTPRequestHandler):
    """`/2015-03-31/functions/{name}/invocations` as in AWS, and `/proxy/{name}` for ministack.

    Of event source mappings what a breaker needs: to list, get, enable and disable them.
    """

    server: InvokeServer
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body in one packet

    def do_GET(self) -> None:
        self._answered(self._look)

    def do_PUT(self) -> None:
        self._answered(self._turn)

    def do_POST(self) -> None:
        self._answered(self._post)

    def _answered(self, act: Callable[[bytes], None]) -> None:
        try:
            act(self._payload())
        except LambdaError as error:
            ours = error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
            body = {"Type": "Service" if ours else "User", "message": str(error)}
            headers = {"X-Amzn-ErrorType": error.code}
            self._answer(error.status, json.dumps(body).encode(), headers)

    def _look(self, _payload: bytes) -> None:
        path, _, query = self.path.partition("?")
        if path.rstrip("/") != MAPPINGS:
            self._answer(200, json.dumps(self._switch().described()).encode(), {})
            return
        asked = dict(parse_qsl(query))
        of = self.server.switches.of if self.server.switches else lambda *_: []
        found = of(asked.get("FunctionName", ""), asked.get("EventSourceArn", ""))
        told = {"EventSourceMappings": [switch.described() for switch in found]}
        self._answer(200, json.dumps(told).encode(), {})

    def _turn(self, payload: bytes) -> None:
        switch = self._switch()
        try:
            enabled = json.loads(payload)["Enabled"]
        except (ValueError, TypeError, KeyError):
            raise InvalidParameter("only Enabled can be changed") from None
        switch.turn(on=bool(enabled))
        self._answer(202, json.dumps(switch.described()).encode(), {})

    def _switch(self) -> Switch:
        identifier = unquote(self.path.partition("?")[0].removeprefix(f"{MAPPINGS}/"))
        found = self.server.switches.find(identifier) if self.server.switches else None
        if found is None:
            raise FunctionNotFound(f"no such resource: {self.path}")
        return found

    def _post(self, payload: bytes) -> None:
        if found := _PROXY.match(self.path):
            self._proxy(unquote(found[1]), payload)
        elif found := _INVOKE.match(self.path):
            self._invoke(unquote(found[1]), payload)
        else:
            raise InvalidParameter(f"no such resource: {self.path}")

    def _invoke(self, name: str, payload: bytes) -> None:
        kind = self.headers.get("X-Amz-Invocation-Type", "RequestResponse")
        if kind != "RequestResponse":
            raise InvalidParameter(f"invocation type {kind} is not offered locally")
        name = name.rpartition(":function:")[2].partition(":")[0]  # of an ARN or with a qualifier
        invocation = self.server.invoke(name, payload)
        headers = {"X-Amz-Executed-Version": "$LATEST"}
        if invocation.function_error is not None:
            headers["X-Amz-Function-Error"] = invocation.function_error
        self._answer(200, invocation.payload, headers)

    def _proxy(self, name: str, payload: bytes) -> None:
        invocation = self.server.invoke(name, payload)
        if invocation.function_error is None:
            self._answer(200, invocation.payload, {})
            return
        kind, message = error_of(invocation.payload)
        body = {"errorType": kind, "errorMessage": message}  # in this order, as it will be cut
        self._answer(500, json.dumps(body).encode(), {})

    def _payload(self) -> bytes:
        """The body; of one over the quota only as much as shows that it is, but all is read."""
        if "Transfer-Encoding" in self.headers:
            self.close_connection = True  # as its body stays unread
            raise InvalidParameter("a body needs a Content-Length")
        size = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(min(size, PAYLOAD_MAX_BYTES + 1))
        left = size - len(body)
        while left > 0 and (more := len(self.rfile.read(min(left, 1 << 20)))):
            left -= more
        if left > 0:
            raise ConnectionResetError
        return body

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base's name
        """No access log."""
