"""SQS in memory, on `SimulatedQueue`: batches, visibility, receive counts, dead letters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.doubles.world import Call, World, refused
from infra.esm.simulated_queue import SimulatedQueue, received

BATCH_MAX = 10  # SendMessageBatch and its like: entries a call
BODY_BYTES_MAX = 1_048_576  # and of all bodies of a batch
VISIBILITY_MAX_SECONDS = 43_200


@dataclass
class Sqs:
    """A client of the account whose queues are `queues`, by URL: clients may share them."""

    world: World
    queues: dict[str, SimulatedQueue] = field(default_factory=dict)

    def send_message(
        self,
        *,
        QueueUrl: str,  # noqa: N803  as boto3
        MessageBody: str,  # noqa: N803
        MessageGroupId: str | None = None,  # noqa: N803
        **_: Any,
    ) -> dict[str, Any]:
        call = Call("sqs", "SendMessage", QueueUrl)

        def act() -> dict[str, Any]:
            queue = self._queue(call, QueueUrl)
            _fits(call, [MessageBody])
            held = queue.send(MessageBody, self.world.clock(), MessageGroupId)
            return {"MessageId": held.identifier, "MD5OfMessageBody": received(held)["MD5OfBody"]}

        return self.world.effect(call, act)

    def send_message_batch(
        self,
        *,
        QueueUrl: str,  # noqa: N803  as boto3
        Entries: Sequence[dict[str, Any]],  # noqa: N803
    ) -> dict[str, Any]:
        def one(queue: SimulatedQueue, entry: dict[str, Any]) -> dict[str, Any]:
            group = entry.get("MessageGroupId")
            held = queue.send(entry["MessageBody"], self.world.clock(), group)
            return {"MessageId": held.identifier}

        call = Call("sqs", "SendMessageBatch", QueueUrl)
        bodies = [entry["MessageBody"] for entry in Entries]
        return self._batch(call, QueueUrl, Entries, one, lambda: _fits(call, bodies))

    def receive_message(
        self,
        *,
        QueueUrl: str,  # noqa: N803  as boto3
        MaxNumberOfMessages: int = 1,  # noqa: N803
        VisibilityTimeout: int | None = None,  # noqa: N803
        **_: Any,
    ) -> dict[str, Any]:
        call = Call("sqs", "ReceiveMessage", QueueUrl)

        def act() -> dict[str, Any]:
            queue = self._queue(call, QueueUrl)
            found = queue.receive(MaxNumberOfMessages, self.world.clock(), VisibilityTimeout)
            return {"Messages": [received(held) for held in found]} if found else {}

        return self.world.effect(call, act)

    def delete_message(self, *, QueueUrl: str, ReceiptHandle: str) -> dict[str, Any]:  # noqa: N803
        call = Call("sqs", "DeleteMessage", QueueUrl)

        def act() -> dict[str, Any]:
            self._queue(call, QueueUrl).delete([ReceiptHandle])
            return {}

        return self.world.effect(call, act)

    def delete_message_batch(
        self,
        *,
        QueueUrl: str,  # noqa: N803  as boto3
        Entries: Sequence[dict[str, Any]],  # noqa: N803
    ) -> dict[str, Any]:
        def one(queue: SimulatedQueue, entry: dict[str, Any]) -> dict[str, Any]:
            queue.delete([entry["ReceiptHandle"]])
            return {}

        return self._batch(Call("sqs", "DeleteMessageBatch", QueueUrl), QueueUrl, Entries, one)

    def change_message_visibility(
        self,
        *,
        QueueUrl: str,  # noqa: N803  as boto3
        ReceiptHandle: str,  # noqa: N803
        VisibilityTimeout: int,  # noqa: N803
    ) -> dict[str, Any]:
        call = Call("sqs", "ChangeMessageVisibility", QueueUrl)

        def act() -> dict[str, Any]:
            queue = self._queue(call, QueueUrl)
            self._change(call, queue, ReceiptHandle, VisibilityTimeout)
            return {}

        return self.world.effect(call, act)

    def change_message_visibility_batch(
        self,
        *,
        QueueUrl: str,  # noqa: N803  as boto3
        Entries: Sequence[dict[str, Any]],  # noqa: N803
    ) -> dict[str, Any]:
        def one(queue: SimulatedQueue, entry: dict[str, Any]) -> dict[str, Any]:
            self._change(call, queue, entry["ReceiptHandle"], entry["VisibilityTimeout"])
            return {}

        call = Call("sqs", "ChangeMessageVisibilityBatch", QueueUrl)
        return self._batch(call, QueueUrl, Entries, one)

    def _change(self, call: Call, queue: SimulatedQueue, receipt: str, seconds: int) -> None:
        if not 0 <= seconds <= VISIBILITY_MAX_SECONDS:
            raise refused(call, "InvalidParameterValue")
        if not any(held.receipt == receipt for held in queue.messages):
            raise refused(call, "InvalidParameterValue")
        queue.change_visibility(receipt, seconds, self.world.clock())

    def get_queue_url(self, *, QueueName: str) -> dict[str, Any]:  # noqa: N803  as boto3
        call = Call("sqs", "GetQueueUrl", QueueName)

        def act() -> dict[str, Any]:
            for url in self.queues:
                if url.rpartition("/")[2] == QueueName:
                    return {"QueueUrl": url}
            raise _unknown(call)

        return self.world.effect(call, act)

    def get_queue_attributes(
        self,
        *,
        QueueUrl: str,  # noqa: N803  as boto3
        AttributeNames: Sequence[str] = (),  # noqa: N803
    ) -> dict[str, Any]:
        call = Call("sqs", "GetQueueAttributes", QueueUrl)

        def act() -> dict[str, Any]:
            queue, now = self._queue(call, QueueUrl), self.world.clock()
            visible = sum(held.visible_at <= now for held in queue.messages)
            known = {
                "ApproximateNumberOfMessages": str(visible),
                "ApproximateNumberOfMessagesNotVisible": str(len(queue.messages) - visible),
                "ApproximateNumberOfMessagesDelayed": "0",
                "VisibilityTimeout": str(round(queue.visibility_seconds)),
            }
            asked = known if "All" in AttributeNames else AttributeNames
            return {"Attributes": {name: known[name] for name in asked if name in known}}

        return self.world.effect(call, act)

    def _batch(
        self,
        call: Call,
        url: str,
        entries: Sequence[dict[str, Any]],
        one: Callable[[SimulatedQueue, dict[str, Any]], dict[str, Any]],
        check: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """Each entry for itself: some may fail where others succeed."""

        def act() -> dict[str, Any]:
            queue = self._queue(call, url)
            names = [entry["Id"] for entry in entries]
            if not entries:
                raise refused(call, "AWS.SimpleQueueService.EmptyBatchRequest")
            if len(entries) > BATCH_MAX:
                raise refused(call, "AWS.SimpleQueueService.TooManyEntriesInBatchRequest")
            if len(set(names)) < len(names):
                raise refused(call, "AWS.SimpleQueueService.BatchEntryIdsNotDistinct")
            check()
            answer: dict[str, list[Any]] = {"Successful": [], "Failed": []}
            for entry in entries:
                try:
                    answer["Successful"].append({"Id": entry["Id"], **one(queue, entry)})
                except Exception as error:  # noqa: BLE001  an entry's own failure
                    code = getattr(error, "response", {}).get("Error", {}).get("Code", "Error")
                    answer["Failed"].append({"Id": entry["Id"], "Code": code, "SenderFault": True})
            return {name: found for name, found in answer.items() if found}

        return self.world.effect(call, act)

    def _queue(self, call: Call, url: str) -> SimulatedQueue:
        if url not in self.queues:
            raise _unknown(call)
        return self.queues[url]


def _unknown(call: Call) -> Exception:
    return refused(call, "AWS.SimpleQueueService.NonExistentQueue")


def _fits(call: Call, bodies: Sequence[str]) -> None:
    if sum(len(body.encode()) for body in bodies) > BODY_BYTES_MAX:
        raise refused(call, "AWS.SimpleQueueService.BatchRequestTooLong")
