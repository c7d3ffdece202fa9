"""An SQS queue to send to, standard or FIFO."""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ingest.producer.messages import Answer, Entry, Message, Position, Refusal, Unsendable
from sinks.errors import SETUP, THROTTLES

SEND_MAX = 10  # SendMessageBatch: entries a call
SEND_BYTES_MAX = 1_048_576  # SendMessageBatch: the sum of its bodies, and a single one
GROUP = re.compile(r"[!-~]{1,128}")  # a FIFO queue's message group: printable ASCII, no space
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # SendMessage


@dataclass(frozen=True)
class Queue:
    """An SQS queue, by its URL; `client` is boto3's. Bodies are UTF-8 text.

    In a FIFO queue the key is the message group, or where it cannot be one, its digest is. A
    group's order is kept whatever fails, for a request has one message of it. A message's
    deduplication id stays with it, also through the spill, so that one whose answer was lost does
    not count twice (within SQS's five minutes).

    `bytes_max` is the queue's MaximumMessageSize.
    """

    client: Any
    url: str
    bytes_max: int = SEND_BYTES_MAX

    entries_max = SEND_MAX
    call_bytes = SEND_BYTES_MAX

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def in_order(self) -> bool:
        return self.url.endswith(".fifo")

    def full(self, messages: int, size: int) -> bool:
        return messages >= SEND_MAX or size >= SEND_BYTES_MAX

    def check(self, key: str, data: bytes) -> None:  # noqa: ARG002  any key will do
        check_body(data, self.bytes_max)

    def group(self, key: str) -> str:
        if not self.in_order:
            return ""
        fits = GROUP.fullmatch(key)
        return key if fits else hashlib.blake2b(key.encode(), digest_size=16).hexdigest()

    def pack(self, group: str, waiting: deque[Message], room: int) -> Entry | None:
        size = len(waiting[0].data)
        if size > room:
            return None
        message = waiting.popleft()
        return Entry(group, message.key, message.data, size, [message])

    def send(self, entries: Sequence[Entry]) -> list[Answer]:
        requests = [self._request(place, entry) for place, entry in enumerate(entries)]
        answer = self.client.send_message_batch(QueueUrl=self.url, Entries=requests)
        told: dict[str, Answer] = {}
        for success in answer.get("Successful", []):
            told[success["Id"]] = Position(self.name, "", success["MessageId"])
        for failure in answer.get("Failed", []):
            told[failure["Id"]] = _refusal(failure)
        unknown = Refusal("NoAnswer", "the answer does not speak of this entry")
        return [told.get(request["Id"], unknown) for request in requests]

    def _request(self, place: int, entry: Entry) -> dict[str, str]:
        request = {"Id": str(place), "MessageBody": entry.data.decode()}
        if self.in_order:
            (message,) = entry.messages
            once = f"{message.run.hex()}-{message.number}"
            request |= {"MessageGroupId": entry.group, "MessageDeduplicationId": once}
        return request


def check_body(data: bytes, bytes_max: int = SEND_BYTES_MAX) -> None:
    """Raises `Unsendable` for what no queue would take."""
    if len(data) > bytes_max:
        raise Unsendable(
            f"a message of {len(data)} bytes; a queue takes {bytes_max}: split it, or put "
            "it into S3 and send its address"
        )
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise Unsendable(
            f"a message that is not UTF-8 ({error.reason} at byte {error.start}); SQS takes "
            "text only: send it to a stream, or as base64"
        ) from None
    if not text or FORBIDDEN.search(text):
        raise Unsendable(
            "a message that is empty or has control characters, which SQS does not take: send "
            "it to a stream, or as base64"
        )


def _refusal(failure: dict[str, Any]) -> Refusal:
    """SenderFault is said of throttles and of keys without permission too: those may pass."""
    code = failure.get("Code", "")
    passing = code in THROTTLES | SETUP or code.upper().startswith("KMS")
    final = bool(failure.get("SenderFault")) and not passing
    return Refusal(code, failure.get("Message", ""), final)
