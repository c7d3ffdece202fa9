"""One AWS service: requests are signed, sent over kept-alive connections, and answered.

A request that goes out on a connection which the other side has just closed, as after a freeze,
gets no byte of an answer. It is sent once more on a new connection where the call may be repeated;
StartSyncExecution never is.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from sinks.wire.answers import Answer, Broken
from sinks.wire.connection import Connection, Patience
from sinks.wire.credentials import Credentials, Identity
from sinks.wire.endpoints import Endpoint
from sinks.wire.pool import Pool
from sinks.wire.signature import Kind, Signer, Template, stamp


class Request(NamedTuple):
    """One call. `path` is as it is sent, behind the endpoint's own.

    `payload` is what is signed of the body, where that is not its SHA-256; `values` are those of
    the headers that vary.
    """

    kind: Kind
    path: str
    body: bytes = b""
    payload: str = ""
    values: tuple[str, ...] = ()


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
    _templates: dict[Kind, Template] = field(default_factory=dict, compare=False, repr=False)

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
                try:
                    connection.send(head, request.body, self.patience)
                except Broken:
                    continue  # `receive` finds it again
            for head, body, connection in begun:
                answers.append(self._settled(head, body, connection))
        finally:
            for _, _, connection in begun[len(answers) :]:
                connection.close()
        return answers

    def head_of(self, request: Request) -> bytes:
        """The request's head, signed for this moment."""
        credentials, stamped = self.identity(), stamp(int(self.clock()))
        kind, path, body, payload, values = request
        template = self._templates.get(kind)
        if (
            template is None
            or not stamped.startswith(template.day)
            or template.credentials != credentials
        ):
            template = self._template(kind, credentials, stamped[:8])
        payload = payload or hashlib.sha256(body).hexdigest()
        return template.head(path, values, stamped, payload, len(body))

    def _template(self, kind: Kind, credentials: Credentials, day: str) -> Template:
        """One made, and kept until the day or the credentials change: there are few kinds."""
        endpoint = self.endpoint
        made = self.signer.template(credentials, kind, endpoint.authority, endpoint.path, day)
        self._templates[kind] = made
        return made

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
