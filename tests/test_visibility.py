"""Messages that were handed back come again soon, later with each receive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ingest import sqs
from ingest.handlers import sqs as handler
from ingest.killers import NothingDone
from ingest.settings import Wiring
from ingest.visibility import FIRST_SECONDS, MAX_SECONDS, hasten
from ingest.workflow import TransformDied
from sinks.table import Waiting
from tests.support import TOPOLOGY, Cloud, Context, client, cloud, reading
from transform.records import Delivery, Outcome


@dataclass
class Queue:
    """A real queue on a mocked account, and the wiring of the function that reads it."""

    account: Cloud
    sqs: Any
    url: str
    wiring: Wiring
    draws: list[tuple[float, float]] = field(default_factory=list)

    def receive(self, *bodies: bytes, visibility: int = 600) -> dict[str, Any]:
        """Send and receive: the event of the mapping."""
        for body in bodies:
            self.sqs.send_message(QueueUrl=self.url, MessageBody=body.decode())
        received = self.sqs.receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=10,
            VisibilityTimeout=visibility,
            MessageSystemAttributeNames=["All"],
        )["Messages"]
        return {
            "Records": [
                {
                    "messageId": m["MessageId"],
                    "receiptHandle": m["ReceiptHandle"],
                    "body": m["Body"],
                    "attributes": m["Attributes"],
                    "eventSource": "aws:sqs",
                    "eventSourceARN": f"arn:aws:sqs:us-east-1:0:{TOPOLOGY.queue.name}",
                }
                for m in received
            ]
        }

    def visible(self) -> int:
        counted = self.sqs.get_queue_attributes(
            QueueUrl=self.url, AttributeNames=["ApproximateNumberOfMessages"]
        )
        return int(counted["Attributes"]["ApproximateNumberOfMessages"])


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    """The wiring draws the shortest wait there is, 0 s, so that what was shortened is visible."""
    with cloud() as account:
        real = client("sqs")
        url = real.create_queue(QueueName=TOPOLOGY.queue.name)["QueueUrl"]
        wiring = account.wiring()
        wiring.sqs = real
        made = Queue(account, real, url, wiring)

        def shortest(low: float, high: float) -> float:
            made.draws.append((low, high))
            return 0

        wiring.waiting = Waiting(lambda _: None, shortest)
        monkeypatch.setattr(handler, "wiring", lambda: wiring)
        yield made


class Ends:
    """A workflow that ends as told."""

    def __init__(self, end: Outcome | Exception) -> None:
        self._end = end

    def run(self, state: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
        assert timeout_seconds > 0
        if isinstance(self._end, Exception):
            raise self._end
        counts = {"delivered": self._end.delivered, "dropped": 0, "quarantined": 0}
        retry = str([list(span) for span in self._end.retry])
        return state | {"account": {"reason": "hot_refused", **counts, "retry": retry}}


def test_what_failed_is_visible_again_and_nothing_else(queue: Queue):
    event = queue.receive(*(reading(seq=n) for n in range(3)))
    queue.wiring.workflow = Ends(Outcome(3, 2, 0, 0, ((1, 2),)))  # type: ignore[assignment]
    answer = handler.handler(event, Context())
    assert answer["batchItemFailures"] == [{"itemIdentifier": event["Records"][1]["messageId"]}]
    assert queue.visible() == 1
    assert queue.receive()["Records"][0]["messageId"] == event["Records"][1]["messageId"]


def test_total_success_asks_for_nothing(queue: Queue):
    event = queue.receive(reading())
    queue.wiring.workflow = Ends(Outcome(1, 1, 0, 0, ()))  # type: ignore[assignment]
    del queue.wiring.sqs
    queue.wiring.sqs = None  # type: ignore[assignment]  # whoever asked it would fail
    assert handler.handler(event, Context()) == {"batchItemFailures": []}


def test_all_come_back_soon_when_ingest_raises(queue: Queue):
    event = queue.receive(reading(), reading(seq=1))
    queue.wiring.workflow = Ends(TransformDied("FAILED"))  # type: ignore[assignment]
    with pytest.raises(NothingDone):
        handler.handler(event, Context(180_000))
    assert queue.visible() == 2


def test_the_wait_doubles_with_each_receive_up_to_a_quarter_of_an_hour(queue: Queue):
    made = delivered(receives=[1, 2, 3, 9, 200])
    hasten(made, sqs.respond(made, Outcome.all_retry(5)), queue.wiring, Context())
    assert [high for _, high in queue.draws] == [
        *(2 * FIRST_SECONDS, 4 * FIRST_SECONDS, 8 * FIRST_SECONDS, MAX_SECONDS, MAX_SECONDS),
    ]
    assert {low for low, _ in queue.draws} == {1}


def test_a_fifo_group_comes_back_together(queue: Queue):
    asked: list[dict[str, Any]] = []
    queue.wiring.sqs = Recorder(asked)  # type: ignore[assignment]
    queue.wiring.waiting = Waiting(lambda _: None, lambda _, high: high)
    made = delivered(receives=[1, 2, 3, 4], groups=["a", "b", "a", "b"])
    hasten(made, sqs.respond(made, Outcome.all_retry(4)), queue.wiring, Context())
    assert [entry["VisibilityTimeout"] for call in asked for entry in call["Entries"]] == [
        *(4, 8, 4, 8),
    ]


def test_ten_at_a_time_and_none_when_the_function_must_answer(queue: Queue):
    asked: list[dict[str, Any]] = []
    queue.wiring.sqs = Recorder(asked)  # type: ignore[assignment]
    made = delivered(receives=[1] * 25)
    answer = sqs.respond(made, Outcome.all_retry(25))
    hasten(made, answer, queue.wiring, Context())
    assert [len(call["Entries"]) for call in asked] == [10, 10, 5]
    hasten(made, answer, queue.wiring, Context(999))
    assert len(asked) == 3


def test_a_queue_that_refuses_changes_no_answer(queue: Queue):
    queue.wiring.workflow = Ends(Outcome.all_retry(1))  # type: ignore[assignment]
    event = queue.receive(reading())
    queue.wiring.sqs = Recorder([], "ReceiptHandleIsInvalid")  # type: ignore[assignment]
    answer = handler.handler(event, Context())
    assert len(answer["batchItemFailures"]) == 1


class Recorder:
    """A queue's client that keeps what it was asked, or refuses."""

    def __init__(self, asked: list[dict[str, Any]], refusal: str = "") -> None:
        self._asked, self._refusal = asked, refusal

    def get_queue_url(self, **_: Any) -> dict[str, str]:
        return {"QueueUrl": "http://127.0.0.1/queue"}

    def change_message_visibility_batch(self, **asked: Any) -> None:
        if self._refusal:
            raise ClientError({"Error": {"Code": self._refusal}}, "ChangeMessageVisibilityBatch")
        self._asked.append(asked)


def delivered(receives: list[int], groups: list[str] | None = None) -> Delivery:
    count = len(receives)
    return Delivery(
        source="sqs",
        stream=TOPOLOGY.queue.name,
        shards=[""] * count,
        sequences=[f"id-{n}" for n in range(count)],
        groups=list(groups or [None] * count),
        arrivals=[0] * count,
        attributes=[None] * count,
        bodies=[b"{}"] * count,
        receipts=[f"receipt-{n}" for n in range(count)],
        receives=receives,
    )
