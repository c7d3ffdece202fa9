"""What a producer asks of where it sends to; `stream` and `queue` are the two kinds."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from ingest.producer.messages import Answer, Entry, Message


class Destination(Protocol):
    """Where messages go."""

    @property
    def name(self) -> str:
        """For people: in errors and logs."""

    @property
    def entries_max(self) -> int:
        """How many entries a request may have."""

    @property
    def call_bytes(self) -> int:
        """How many bytes a request may have."""

    @property
    def in_order(self) -> bool:
        """Whether a request has at most one entry of a group, and none behind one that failed."""

    def check(self, key: str, data: bytes) -> None:
        """Raises `Unsendable` for what would never be taken."""

    def full(self, messages: int, size: int) -> bool:
        """Whether so many messages, of so many bytes, are a request that need not wait for more."""

    def group(self, key: str) -> str:
        """What a key's messages keep their order with: a function of the key."""

    def pack(self, group: str, waiting: deque[Message], room: int) -> Entry | None:
        """The next entry of a group's messages, taken off them; None where it needs more room."""

    def send(self, entries: Sequence[Entry]) -> list[Answer]:
        """One request: an answer for each entry. Raises what the client raises."""
