"""Connections that wait for their next request. Safe from several threads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from sinks.table import CALLS_MAX
from sinks.wire.connection import Connection, Patience

IDLE_SECONDS_MAX = 50.0  # under a minute, after which AWS's SDKs hold a connection for dead


class Pool:
    """Kept-alive connections to one endpoint; the one used last is used next.

    One that rested too long, or by a clock that stood still or jumped (a frozen function's), or on
    which something has come meanwhile, is dead: it is closed and replaced.
    """

    def __init__(
        self,
        open_: Callable[[Patience], Connection],
        idle_seconds_max: float = IDLE_SECONDS_MAX,
        most: int = CALLS_MAX,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._open = open_
        self._idle_seconds_max = idle_seconds_max
        self._most = most
        self._clock = clock
        self._idle: deque[Connection] = deque()

    def take(self, patience: Patience) -> Connection:
        """A connection: one that waits, or a new one."""
        return self.waiting() or self.fresh(patience)

    def waiting(self) -> Connection | None:
        """A connection that waits and is alive, as far as can be seen."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            rest = self._clock() - connection.rested_at
            if 0 <= rest < self._idle_seconds_max and connection.rested:
                return connection
            connection.close()

    def fresh(self, patience: Patience) -> Connection:
        """A new connection. Raises `Broken`."""
        return self._open(patience)

    def give(self, connection: Connection) -> None:
        """Keep a connection, whose last answer has come whole, for another request."""
        if len(self._idle) >= self._most:
            connection.close()
            return
        connection.rested_at = self._clock()
        self._idle.append(connection)

    def close(self) -> None:
        """Close what waits."""
        while self._idle:
            self._idle.pop().close()
