"""What the drivers of all mappings share: how a function is invoked, when to stop, the tally."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from infra.esm.answers import Meaning, Result

IDLE_SECONDS = 0.2  # between polls of an empty source; Lambda's base rate is one a second
BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_MAX_SECONDS = 30.0

Invoke = Callable[[str, bytes], tuple[bytes, str | None]]
"""Function name and payload to answer and function error, as Lambda's Invoke."""


class NotInvoked(Exception):
    """An invocation that did not take place: a throttle, or an error of Lambda itself."""


@dataclass
class Tally:
    """What a mapping has done so far, for people to watch.

    `handed_back` counts what comes again after a partial answer, `discarded` what a mapping gave
    up.
    """

    records: int = 0
    invocations: int = 0
    errors: int = 0
    handed_back: int = 0
    discarded: int = 0
    behind_ms: int = 0
    last_error: str = ""


@dataclass
class Delivery:
    """One mapping's function and tally; its drivers count with `told`.

    While it is not `enabled` drivers read nothing and invoke nothing new; what they hold stays.
    """

    function: str
    invoke: Invoke
    stop: threading.Event
    enabled: Callable[[], bool] = lambda: True
    tally: Tally = field(default_factory=Tally)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def told(self, meant: Meaning, taken: int, back: int) -> None:
        """Count an invocation, by what the mapping made of it."""
        with self.lock:
            self.tally.invocations += 1
            if meant.kind in {"success", "partial"}:
                self.tally.records += taken
                self.tally.handed_back += back
            else:
                self.tally.errors += 1
            self.tally.last_error = meant.reason or self.tally.last_error


Answered = queue.SimpleQueue[tuple[int, Result]]
"""Where invocations under way report: the lane or batch, and the result."""


def invoke_aside(delivery: Delivery, number: int, payload: bytes, inbox: Answered) -> None:
    """Invoke in a thread of its own, so that a driver goes on meanwhile."""

    def run() -> None:
        inbox.put((number, _result(delivery, payload)))

    threading.Thread(target=run, daemon=True).start()


def _result(delivery: Delivery, payload: bytes) -> Result:
    try:
        answer, error = delivery.invoke(delivery.function, payload)
    except Exception as refused:  # noqa: BLE001  whatever stopped it: the batch must come again
        return Result("refused", error=str(refused))
    return Result("answered", answer) if error is None else Result("failed", answer, error)
