"""An SQS mapping on a real endpoint: a thread that drives its state machine."""

from __future__ import annotations

import queue
import time
from collections import deque
from typing import Any

from infra.esm.events import Message, Place, message, sqs_event
from infra.esm.queue import RECEIVE_MAX, Delete, Drop, Invoke, QueueMachine, QueueRules
from infra.local import delivery as pace
from infra.local.delivery import Answered, Delivery, invoke_aside


class QueueDriver:
    """One queue. Messages that are not deleted come back by themselves."""

    def __init__(
        self, sqs: Any, rules: QueueRules, place: Place, url: str, delivery: Delivery
    ) -> None:
        self._sqs, self._place, self._url, self._delivery = sqs, place, url, delivery
        self._invisible_seconds = rules.invisible_seconds
        self._machine = QueueMachine(rules, started=time.time())
        self._inbox: Answered = queue.SimpleQueue()
        self._under_way: dict[int, Invoke] = {}
        self._deletes: deque[Message] = deque()

    def run(self) -> None:
        """Go on until told to stop; what was received by then is still delivered.

        Otherwise it would stay invisible until the queue's timeout. An error of the queue is tried
        again.
        """
        stop = self._delivery.stop
        pause = pace.BACKOFF_FIRST_SECONDS
        while not (stop.is_set() and self._machine.idle and not self._deletes):
            try:
                self._take()
                paused = stop.is_set() or not self._delivery.enabled()
                received = 0 if paused else self._receive()
                self._take()
                pause = pace.BACKOFF_FIRST_SECONDS
                self._listen(0.0 if received else self._idle_seconds())
            except Exception as error:  # noqa: BLE001  a driver that ended would lose its queue
                self._delivery.tally.last_error = str(error)
                self._listen(pause)
                pause = min(2 * pause, pace.BACKOFF_MAX_SECONDS)

    def _receive(self) -> int:
        most = self._machine.ask(time.time())
        if not most:
            return 0
        asked_at = time.time()  # visibility counts from about here, not from the answer
        answer = self._sqs.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=most,
            VisibilityTimeout=round(self._invisible_seconds),
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        messages = answer.get("Messages", [])
        self._machine.received((message(one, self._place) for one in messages), asked_at)
        return len(messages)

    def _take(self) -> None:
        for command in self._machine.take(time.time(), flush=self._delivery.stop.is_set()):
            match command:
                case Invoke(batch, messages):
                    self._under_way[batch] = command
                    invoke_aside(self._delivery, batch, sqs_event(messages), self._inbox)
                case Delete(messages):
                    self._deletes.extend(messages)
                case Drop(messages):
                    with self._delivery.lock:
                        self._delivery.tally.discarded += len(messages)
        self._delete()

    def _delete(self) -> None:
        """Delete what is to be deleted; what raises is tried again."""
        while self._deletes:
            some = [self._deletes[n] for n in range(min(RECEIVE_MAX, len(self._deletes)))]
            self._sqs.delete_message_batch(
                QueueUrl=self._url,
                Entries=[
                    {"Id": str(number), "ReceiptHandle": one.receipt}
                    for number, one in enumerate(some)
                ],
            )
            for _ in some:
                self._deletes.popleft()

    def _listen(self, seconds: float) -> None:
        """Wait so long for a result, at most until told to stop."""
        if not self._under_way:
            self._delivery.stop.wait(seconds)
            return
        try:
            batch, result = self._inbox.get(timeout=max(seconds, 0.001))
        except queue.Empty:
            return
        messages = self._under_way.pop(batch).messages
        meant = self._machine.result(batch, result, time.time())
        back = len(set(meant.failed))
        self._delivery.told(meant, len(messages) - back, back)

    def _idle_seconds(self) -> float:
        now = time.time()
        wake = self._machine.wake(now)
        return min(pace.IDLE_SECONDS, pace.IDLE_SECONDS if wake is None else max(wake - now, 0.0))
