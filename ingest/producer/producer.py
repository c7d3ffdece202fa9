"""The producer: `put`, and a thread that sends."""

from __future__ import annotations

import json
import logging
import random as randomness
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from ingest.producer.courier import attempt
from ingest.producer.destination import Destination
from ingest.producer.messages import (
    Acknowledged,
    Counters,
    Entry,
    Full,
    Message,
    Position,
    ProducerError,
    Refusal,
    Unsendable,
    Unsent,
    acknowledged,
)
from ingest.producer.outbox import Outbox
from ingest.producer.spill import Spill

BUFFER_BYTES = 16 * 1024 * 1024  # of memory, for messages that are not acknowledged
LINGER_SECONDS = 0.1  # that a message waits for others to share its request
CLOSE_SECONDS = 30.0
LOOK_SECONDS = 1.0  # how often room on the disk is looked for that others may have made
DEFECT_SECONDS = 1.0  # before sending goes on after an error that nobody thought of

Body = bytes | str | Mapping[str, Any]
"""What can be put: bytes as they are, text as UTF-8, a mapping as JSON."""

log = logging.getLogger(__name__)


class Producer:
    """Sends messages to a destination, at least once, from a thread of its own.

    What `put` has returned of is acknowledged in the end, or still in the spill, or was refused for
    ever and told so (`on_refused`, `Counters.failed`). Without a spill it is in memory, and `close`
    raises `Unsent` when it had to leave some of it.

    A message whose answer was lost is sent again and may be there twice, in the same bytes: `Stamp`
    makes records by which that is seen. Order is what the destination says (`Stream`, `Queue`), and
    what an earlier run left in the spill goes first.

    `on_acknowledged` and `on_refused` are called by the sending thread, and hold it up meanwhile:
    they must not wait for the producer. All methods can be called from any thread. `clock` counts
    seconds and `random` makes the jitter and the run's id.
    """

    def __init__(  # noqa: PLR0913  each is one thing that a caller may want otherwise
        self,
        destination: Destination,
        spill: Spill | None = None,
        *,
        buffer_bytes: int = BUFFER_BYTES,
        linger_seconds: float = LINGER_SECONDS,
        on_acknowledged: Callable[[Sequence[Acknowledged]], None] | None = None,
        on_refused: Callable[[Message, Refusal], None] = lambda _message, _refusal: None,
        clock: Callable[[], float] = time.monotonic,
        random: randomness.Random | None = None,
    ) -> None:
        self._destination = destination
        self._on_acknowledged = on_acknowledged
        self._on_refused = on_refused
        self._clock = clock
        self._outbox = Outbox(
            destination,
            random=random or randomness.SystemRandom(),
            spill=spill,
            buffer_bytes=buffer_bytes,
            linger_seconds=linger_seconds,
        )
        lock = threading.Lock()
        self._work = threading.Condition(lock)  # the thread waits here until a request is due
        self._settled = threading.Condition(lock)  # others wait here for room, or an end
        self._wakes_at: float | None = None  # when the thread does so by itself, if it sleeps
        self._hurrying = 0  # who wants all sent at once
        self._busy = False  # a request is under way, or its callbacks
        self._closing = self._stopped = False
        self._thread = threading.Thread(target=self._run, name="millrace-producer", daemon=True)
        self._thread.start()

    def put(self, key: str, data: Body, *, block: bool = True, timeout: float | None = None) -> int:
        """Accept a message; its number, which acknowledgements bear.

        `key` is the partition key, or a FIFO queue's message group: the device, so that its
        messages stay in order. Raises `Unsendable` for what no source would ever take. Where there
        is no room it waits, `timeout` seconds at most, and raises `Full`; at once unless `block`.
        """
        body = _encoded(data)
        with self._work:
            until = None if timeout is None else self._clock() + timeout
            while True:
                if self._closing:
                    raise ProducerError("the producer is closed")
                now = self._clock()
                try:
                    number = self._outbox.accept(key, body, now)
                except Full:
                    left = LOOK_SECONDS if until is None else until - now
                    if not block or left <= 0:
                        raise
                    self._settled.wait(min(left, LOOK_SECONDS))
                    continue
                self._outbox.tend(now)
                self._wake(now)
                return number

    def flush(self, timeout: float | None = None) -> bool:
        """Send what was accepted until now; whether all of it is done with in time."""
        with self._work:
            mark = self._outbox.next_number
            return self._hurry(timeout, lambda: self._outbox.done >= mark)

    def close(self, timeout: float | None = CLOSE_SECONDS) -> int:
        """Accept no more, send what there is, and stop; how many messages are left in the spill.

        Raises `Unsent` when messages are left and there is no spill that takes them.
        """
        with self._work:
            if self._stopped:
                return self._outbox.unsent
            self._closing = True
            self._hurry(timeout, lambda: not self._outbox.unsent)
            self._stopped = True
            kept = self._outbox.rescue()
            self._outbox.close()
            self._work.notify_all()
            self._settled.notify_all()
            left, error = self._outbox.unsent, self._outbox.counters().last_error
        self._thread.join(0.0 if self._busy else DEFECT_SECONDS)
        if not kept:
            raise Unsent(
                f"{left} messages were not sent to {self._destination.name}"
                f"{f' ({error})' if error else ''}: give close more time, or the producer a Spill"
            )
        return left

    def counters(self) -> Counters:
        with self._work:
            return self._outbox.counters()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _hurry(self, timeout: float | None, done: Callable[[], bool]) -> bool:
        """Wait for something to be done, and its callbacks with it. The lock is held."""
        until = None if timeout is None else self._clock() + timeout
        self._hurrying += 1
        self._work.notify_all()
        try:
            while not (done() and not self._busy) and not self._stopped:
                left = None if until is None else until - self._clock()
                if left is not None and left <= 0:
                    return False
                self._settled.wait(left)
            return done()
        finally:
            self._hurrying -= 1

    # The thread

    def _run(self) -> None:
        while not self._stopped:
            try:
                self._turn()
            except Exception:
                log.exception("producer: an error in the sending thread")
                self._end_turn()
                time.sleep(DEFECT_SECONDS)

    def _turn(self) -> None:
        """One request, when it is due."""
        with self._work:
            batch = self._outbox.next_batch(self._clock()) if self._await_due() else []
            self._busy = bool(batch)
        if not batch:
            return
        answers = attempt(self._destination, batch)
        with self._work:
            if self._stopped:  # what came of it is not known to anybody any more: it goes again
                return
            taken, refused = self._outbox.settle(batch, answers, self._clock())
        self._call_back(taken, refused)
        self._end_turn()

    def _await_due(self) -> bool:
        """Wait until a request is due; False if the producer is stopped first. The lock is held."""
        while not self._stopped:
            now = self._clock()
            due = self._outbox.due(now, hurry=self._hurrying > 0)
            if due is not None and due <= 0:
                return True
            waits = [seconds for seconds in (due, self._outbox.tend(now)) if seconds is not None]
            self._wakes_at = now + min(waits) if waits else float("inf")
            self._work.wait(min(waits, default=None))
            self._wakes_at = None
        return False

    def _wake(self, now: float) -> None:
        """Let the thread know if there is something for it to do before it would look."""
        if self._wakes_at is not None:
            due = self._outbox.due(now, hurry=self._hurrying > 0)
            if due is not None and now + due < self._wakes_at:
                self._work.notify()

    def _end_turn(self) -> None:
        with self._work:
            self._busy = False
            self._settled.notify_all()

    def _call_back(
        self, taken: Sequence[tuple[Entry, Position]], refused: Sequence[tuple[Message, Refusal]]
    ) -> None:
        try:
            if taken and self._on_acknowledged is not None:
                self._on_acknowledged(acknowledged(taken))
            for message, refusal in refused:
                self._on_refused(message, refusal)
        except Exception:
            log.exception("producer: a callback raised")


def _encoded(data: Body) -> bytes:
    if isinstance(data, bytes):
        return data
    try:
        if isinstance(data, str):
            return data.encode()
        return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise Unsendable(f"a record that is not JSON or UTF-8: {error}") from None
