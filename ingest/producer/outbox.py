"""What a producer holds, in memory and on the disk, and what is due when.

It has no thread and no clock: whoever drives it says what time it is. That is `Producer`, or a test
with time of its own.

    accept ──▶ memory ──▶ next_batch ──▶ settle ──▶ acknowledged
      │          ▲                         │
      └─▶ log ───┘ as memory has room      └──▶ again, after a pause
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from random import Random

from ingest.producer.courier import Courier, Settled
from ingest.producer.destination import Destination
from ingest.producer.messages import (
    Answer,
    Counters,
    Entry,
    Full,
    Message,
    Position,
    Refusal,
    Unsendable,
    memory_of,
)
from ingest.producer.spill import Log, Spill

RUN_BYTES = 16
KEY_CHARACTERS_MAX = 256  # what Kinesis takes of a partition key, here for any source

log = logging.getLogger(__name__)


class Outbox:
    """Messages from `accept` to their acknowledgement."""

    def __init__(
        self,
        destination: Destination,
        *,
        random: Random,
        spill: Spill | None,
        buffer_bytes: int,
        linger_seconds: float,
    ) -> None:
        self._destination = destination
        self._run = random.randbytes(RUN_BYTES)
        self._buffer_bytes = buffer_bytes
        self._linger_seconds = linger_seconds
        self._courier = Courier(destination, random.uniform)
        self._held: dict[int, Message] = {}  # in memory, by number, oldest first
        self._held_bytes = 0
        self._log = None if spill is None else Log(spill, self._run)
        self._sync_seconds = None if spill is None else spill.sync_seconds
        self._sync_at = 0.0
        self._always = spill is not None and spill.when == "always"
        self._spilling = self._always  # whether what is accepted goes to the log
        self.next_number = 0  # of the next message
        self._since = 0.0  # the oldest message waits, or the last request was made
        self._proven = False  # the destination has taken something in this run
        self._counts: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._last_error = ""
        self._away = False  # whether requests fail whole
        if self._log is not None:
            self.next_number = self._log.next_number
            self._counts["resumed"] = self._log.resumed
            self._spilling |= self._log.resumed > 0

    # Taking messages

    def accept(self, key: str, data: bytes, now: float) -> int:
        """Take a message; its number. Raises `Unsendable` and `Full`: then it was not taken."""
        self._check(key, data)
        message = Message(key, data, self.next_number, self._run)
        if not self._spilling and not self._fits(message):
            self._begin_spilling()
        if self._spilling:
            self._spill(message, now)
        else:
            self._hold(message, now)
        self.next_number += 1
        self._counts["accepted"] += 1
        return message.number

    def _check(self, key: str, data: bytes) -> None:
        if len(key) > KEY_CHARACTERS_MAX or not (key.isascii() or _is_utf8(key)):
            raise Unsendable(
                f"a key of {len(key)} characters, or with half of a surrogate pair; a key has at "
                f"most {KEY_CHARACTERS_MAX}: use the device's name, or a digest of it"
            )
        self._destination.check(key, data)

    def _fits(self, message: Message) -> bool:
        return not self._held or self._held_bytes + memory_of(message) <= self._buffer_bytes

    def _hold(self, message: Message, now: float) -> None:
        self._held[message.number] = message
        self._held_bytes += memory_of(message)
        if not self._courier.messages:
            self._since = now
        self._courier.add(message)

    def _spill(self, message: Message, now: float) -> None:
        """To the log; and to memory too, if it is the next to be read and there is room."""
        assert self._log is not None  # noqa: S101  who spills has a log
        next_to_read = self._log.caught_up and self._fits(message)
        self._log.append(message, read=next_to_read)
        self._counts["spilled"] += 1
        if next_to_read:
            self._hold(message, now)

    def _begin_spilling(self) -> None:
        """Put what is in memory onto the disk, and from now on what comes. Raises `Full`."""
        if self._log is None:
            raise Full(
                f"{len(self._held)} messages of {self._held_bytes} bytes wait in memory, the most "
                f"it may take (buffer_bytes){self._because}: wait, drop what can be dropped, or "
                "give the producer a Spill"
            )
        held = sum(len(m.key.encode()) + len(m.data) for m in self._held.values())
        if not self._log.has_room(len(self._held), held):
            raise Full(
                f"memory holds {self._held_bytes} bytes, for which the spill has no room"
                f"{self._because}: give it more (bytes_max)"
            )
        for message in self._held.values():
            self._log.append(message, read=True)
        self._counts["spilled"] += len(self._held)
        self._spilling = True

    @property
    def _because(self) -> str:
        return f", and nothing can be sent ({self._last_error})" if self._last_error else ""

    # Sending them

    @property
    def unsent(self) -> int:
        counts = self._counts
        come = counts["accepted"] + counts["resumed"]
        return come - counts["acknowledged"] - self._failed.total()

    @property
    def done(self) -> int:
        """All messages with smaller numbers are acknowledged, or failed for good."""
        if self._held:
            return next(iter(self._held))
        unread = self._log is not None and not self._log.caught_up
        return self._log.acknowledged if self._log is not None and unread else self.next_number

    def due(self, now: float, *, hurry: bool = False) -> float | None:
        """Seconds until the next request is due, 0 if it is now; None if there is none.

        With `hurry` nothing waits for more messages to share its request.
        """
        unread = self._log is not None and not self._log.caught_up
        at_once = hurry or unread or self._courier.full
        at = self._courier.due(now if at_once else self._since + self._linger_seconds)
        if at is None:
            return 0.0 if unread else None
        return max(at - now, 0.0)

    def next_batch(self, now: float) -> list[Entry]:
        """The entries of the next request."""
        self._load(now)
        batch = self._courier.next_batch(now)
        self._since = now
        return batch

    def _load(self, now: float) -> None:
        """Messages from the log, while at least half of the memory is free."""
        while self._log is not None and not self._log.caught_up:
            if self._held and 2 * self._held_bytes > self._buffer_bytes:
                return
            lost = self._log.lost
            for message in self._log.read():
                self._hold(message, now)
            self._fail("damaged", self._log.lost - lost)

    def settle(
        self, batch: Sequence[Entry], answers: Sequence[Answer], now: float
    ) -> tuple[list[tuple[Entry, Position]], list[tuple[Message, Refusal]]]:
        """Take note of a request's answers: the entries that were taken, the messages refused."""
        settled = self._courier.settle(batch, answers, now)
        self._counts["calls"] += 1
        self._proven |= bool(settled.taken)
        refused = self._refused(settled, now)
        self._counts["retried"] += sum(len(entry.messages) for entry, _ in settled.failed)
        self._tell(settled)
        taken = [message for entry, _ in settled.taken for message in entry.messages]
        self._counts["acknowledged"] += len(taken)
        self._release(taken)
        if any(refusal.whole for _, refusal in settled.failed):
            self.rescue()
        return settled.taken, refused

    def _refused(self, settled: Settled, now: float) -> list[tuple[Message, Refusal]]:
        """Set aside what will never be taken, unless it cannot be told from a wrong setup.

        Where nothing was ever taken, the stream's name may be what is invalid: then it goes again.
        """
        gone: list[tuple[Message, Refusal]] = []
        for entry, refusal in settled.refused:
            if not self._proven or not self._set_aside(entry, refusal):
                self._courier.retry(entry, now)
                settled.failed.append((entry, refusal))
                continue
            self._fail(refusal.code, len(entry.messages))
            gone += [(message, refusal) for message in entry.messages]
            self._release(entry.messages)
        return gone

    def _set_aside(self, entry: Entry, refusal: Refusal) -> bool:
        """Whether the refused messages are kept; without a spill the callback has them."""
        if self._log is None:
            return True
        try:
            for message in entry.messages:
                self._log.set_aside(message, f"{refusal.code}: {refusal.detail}")
        except (Full, OSError) as error:
            self._last_error = str(error)
            return False
        return True

    def _fail(self, reason: str, messages: int) -> None:
        if messages:
            self._failed[reason] += messages
            log.error("producer: messages failed", extra={"reason": reason, "messages": messages})

    def _tell(self, settled: Settled) -> None:
        """Requests that fail whole are said once, and when that is over; throttles are counted."""
        told = [f"{refusal.code}: {refusal.detail}" for _, refusal in settled.failed][:1]
        self._last_error = told[0] if told else ""
        away = bool(told) and not settled.taken and settled.failed[0][1].whole
        if away and not self._away:
            log.warning("producer: nothing can be sent", extra={"error": self._last_error})
        if self._away and settled.taken:
            log.info("producer: messages can be sent again")
        self._away = away or (self._away and not settled.taken)

    def _release(self, messages: Sequence[Message]) -> None:
        """These are done with."""
        for message in messages:
            del self._held[message.number]
            self._held_bytes -= memory_of(message)
        if self._log is None or not self._spilling:
            return
        unread = not self._log.caught_up
        if self._held or not unread:
            self._log.acknowledge(next(iter(self._held), self._log.next_number))
        if not self._held and not unread:
            self._spilling = self._always

    # The disk

    def rescue(self) -> bool:
        """Put onto the disk what is only in memory; whether nothing is, any more."""
        if self._held and not self._spilling and self._log is not None:
            try:
                self._begin_spilling()
            except Full as error:
                self._last_error = str(error)
        return self._spilling or not self._held

    def tend(self, now: float) -> float | None:
        """Sync the log if that is due. Seconds until it is due next; None if nothing is to sync."""
        if self._log is None or self._sync_seconds is None or not self._log.unsynced:
            self._sync_at = now + (self._sync_seconds or 0.0)
            return None
        if now < self._sync_at:
            return self._sync_at - now
        self._log.sync()
        self._sync_at = now + self._sync_seconds
        return None

    def close(self) -> None:
        if self._log is not None:
            self._log.close()

    def counters(self) -> Counters:
        counts = {name: self._counts[name] for name in _COUNTED}
        return Counters(
            **counts,
            failed=dict(self._failed),
            unsent=self.unsent,
            spill_bytes=0 if self._log is None else self._log.bytes,
            damaged_bytes=0 if self._log is None else self._log.damaged_bytes,
            last_error=self._last_error,
        )


_COUNTED = ("accepted", "resumed", "acknowledged", "spilled", "retried", "calls")


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)
