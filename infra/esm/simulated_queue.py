"""An SQS queue in memory: visibility, receive counts, redrive, FIFO groups. Time is an argument."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infra.esm.queue import RECEIVE_MAX


@dataclass(eq=False)
class Held:
    """A message in a queue. `visible_at` is when it can be received (again)."""

    identifier: str
    body: str
    sent_at: float
    group: str | None
    visible_at: float
    receives: int = 0
    receipt: str = ""


class SimulatedQueue:
    """A queue, and its dead letters.

    `max_receive_count` 0 is no redrive. A standard queue gives messages out in the order they were
    sent, which SQS only tries to: what depends on order needs FIFO.
    """

    def __init__(
        self,
        *,
        visibility_seconds: float = 30.0,
        max_receive_count: int = 0,
        fifo: bool = False,
        retention_seconds: float = 345_600.0,
    ) -> None:
        self.visibility_seconds = visibility_seconds
        self.max_receive_count = max_receive_count
        self.fifo = fifo
        self.retention_seconds = retention_seconds
        self.messages: list[Held] = []
        self.dead_letters: list[Held] = []
        self.expired: list[Held] = []
        self._sent = 0

    def send(self, body: str, now: float, group: str | None = None) -> Held:
        """Send a message; FIFO needs a group."""
        if self.fifo and group is None:
            raise ValueError("a message to a FIFO queue has a message group")
        self._sent += 1
        held = Held(f"message-{self._sent}", body, now, group, now)
        self.messages.append(held)
        return held

    def receive(self, most: int, now: float, visibility: float | None = None) -> list[Held]:
        """Receive; what was received too often moves to the dead letters instead."""
        if not 1 <= most <= RECEIVE_MAX:
            raise ValueError(f"ReceiveMessage brings 1 to {RECEIVE_MAX} messages")
        self._expire(now)
        seconds = self.visibility_seconds if visibility is None else visibility
        blocked = {held.group for held in self.messages if self.fifo and held.visible_at > now}
        found: list[Held] = []
        for held in list(self.messages):
            if len(found) == most:
                break
            if held.visible_at > now or (self.fifo and held.group in blocked):
                continue
            if 0 < self.max_receive_count <= held.receives:
                self.messages.remove(held)
                self.dead_letters.append(held)
                continue
            held.receives += 1
            held.visible_at = now + seconds
            held.receipt = f"{held.identifier}/{held.receives}"
            found.append(held)
        return found

    def delete(self, receipts: Sequence[str]) -> None:
        """Delete by receipt handle. Of a message that was received again since, it does nothing."""
        done = set(receipts)
        self.messages[:] = [held for held in self.messages if held.receipt not in done]

    def change_visibility(self, receipt: str, seconds: float, now: float) -> None:
        """ChangeMessageVisibility: 0 makes a message visible at once [aws.md 3.2]."""
        for held in self.messages:
            if held.receipt == receipt:
                held.visible_at = now + seconds

    def next_visible(self, now: float) -> float | None:
        """When a message becomes visible next; None if nothing is left. FIFO groups block."""
        blocked: dict[str | None, float] = {}
        for held in self.messages if self.fifo else ():
            blocked[held.group] = max(blocked.get(held.group, now), held.visible_at)
        moments = (blocked.get(held.group, held.visible_at) for held in self.messages)
        return max(now, min(moments, default=now)) if self.messages else None

    def _expire(self, now: float) -> None:
        for held in list(self.messages):
            if held.sent_at + self.retention_seconds <= now:
                self.messages.remove(held)
                self.expired.append(held)


def received(held: Held) -> dict[str, Any]:
    """A message as ReceiveMessage returns it."""
    attributes = {
        "ApproximateReceiveCount": str(held.receives),
        "SentTimestamp": str(round(held.sent_at * 1_000)),
        "SenderId": "AIDAIENQZJOLO23YVJ4VO",
        "ApproximateFirstReceiveTimestamp": str(round(held.sent_at * 1_000)),
    }
    if held.group is not None:
        attributes["MessageGroupId"] = held.group
    return {
        "MessageId": held.identifier,
        "ReceiptHandle": held.receipt,
        "MD5OfBody": hashlib.md5(held.body.encode(), usedforsecurity=False).hexdigest(),
        "Body": held.body,
        "Attributes": attributes,
    }
