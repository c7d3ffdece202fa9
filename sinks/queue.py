"""SQS, the little of it that Millrace uses: messages sent in batches, and how many there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sinks.deadline import Deadline
from sinks.errors import Unavailable, translated
from sinks.table import BACKOFF_FIRST_SECONDS, BACKOFF_MAX_SECONDS, Waiting

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

BATCH_MESSAGES_MAX = 10  # SendMessageBatch: messages a call
BATCH_BYTES_MAX = 262_144  # SendMessageBatch: of all bodies together; some endpoints take 1 MiB

_COUNTS = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


@dataclass(frozen=True)
class Queue:
    """One SQS queue, by its name or its URL."""

    client: SQSClient
    name: str

    @cached_property
    def url(self) -> str:
        if "://" in self.name:
            return self.name
        with translated(f"find the queue {self.name}"):
            return self.client.get_queue_url(QueueName=self.name)["QueueUrl"]

    def send_all(self, bodies: Sequence[str], deadline: Deadline, waiting: Waiting) -> set[int]:
        """Send every body; returns the places of those not acknowledged by the deadline.

        Throttles and partial failures are tried again with full jitter; after a lost answer a
        message may be there twice. Raises `Misconfigured`, and `Refused` for a request that SQS can
        never accept.
        """
        pending = list(range(len(bodies)))
        pause = BACKOFF_FIRST_SECONDS
        while pending and deadline.left > 0:
            refused: list[int] = []
            for batch in _batches(pending, bodies):
                refused += self._attempt(batch, bodies) if deadline.left > 0 else batch
            if refused:
                waiting.sleep(min(waiting.uniform(0, pause), max(deadline.left, 0)))
                pause = min(2 * pause, BACKOFF_MAX_SECONDS)
            pending = refused
        return set(pending)

    def messages(self) -> int:
        """About how many messages there are, received ones included. Raises `Unavailable`."""
        names: Any = list(_COUNTS)
        with translated(f"count the messages of {self.name}"):
            found = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)
        counts: Any = found.get("Attributes", {})
        if "ApproximateNumberOfMessages" not in counts:
            raise Unavailable(f"count the messages of {self.name}: the answer has no counts")
        return sum(int(counts.get(name, 0)) for name in _COUNTS)

    def _attempt(self, batch: list[int], bodies: Sequence[str]) -> list[int]:
        """One call; what it did not acknowledge."""
        entries: list[Any] = [{"Id": str(place), "MessageBody": bodies[place]} for place in batch]
        try:
            with translated(f"send to {self.name}"):
                answer = self.client.send_message_batch(QueueUrl=self.url, Entries=entries)
        except Unavailable:
            return batch
        taken = {entry["Id"] for entry in answer.get("Successful", [])}
        return [place for place in batch if str(place) not in taken]


def _batches(places: Sequence[int], bodies: Sequence[str]) -> list[list[int]]:
    """The places in as few calls as both limits allow."""
    batches: list[list[int]] = []
    size = 0
    for place in places:
        own = len(bodies[place].encode())
        if not batches or len(batches[-1]) == BATCH_MESSAGES_MAX or size + own > BATCH_BYTES_MAX:
            batches.append([])
            size = 0
        batches[-1].append(place)
        size += own
    return batches
