"""A shard of a Kinesis mapping on a real endpoint: a thread that drives its state machine."""

from __future__ import annotations

import json
import queue
import time
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.esm.events import Place, kinesis_event, record
from infra.esm.on_failure import document, object_key
from infra.esm.shard import ShardMachine
from infra.esm.stream import Checkpoint, Command, Discard, Invoke, StreamRules
from infra.local import delivery as pace
from infra.local.delivery import Answered, Delivery, invoke_aside
from infra.topology import StreamMapping

GET_RECORDS_MAX = 10_000  # Kinesis GetRecords: records a call

Park = Callable[[str, bytes], None]
"""Write an object of the on-failure destination: its key, its bytes. Returns when it is durable."""


def rules_of(mapping: StreamMapping) -> StreamRules:
    """The state machine's settings of a mapping."""
    return StreamRules(
        batch_size=mapping.batch_size,
        window_seconds=mapping.window_seconds,
        bisect=mapping.bisect,
        maximum_retry_attempts=mapping.maximum_retry_attempts,
        maximum_record_age_seconds=mapping.maximum_record_age_seconds,
        parallelization_factor=mapping.parallelization_factor,
        backoff_first_seconds=pace.BACKOFF_FIRST_SECONDS,
        backoff_max_seconds=pace.BACKOFF_MAX_SECONDS,
    )


@dataclass(frozen=True)
class Ends:
    """Where a shard's records go besides its function: its checkpoints, the discarded, its end.

    `park` None drops what is discarded, as a mapping without a destination does.
    """

    checkpoints: Path
    park: Park | None
    ended: Callable[[str], None]


class ShardDriver:
    """One shard. Its checkpoint is kept in a file, so that a restart goes on there.

    Retry counts are not kept: a restart begins them anew, as it does not matter to age limits.
    """

    def __init__(
        self, kinesis: Any, mapping: StreamMapping, place: Place, delivery: Delivery, ends: Ends
    ) -> None:
        self._kinesis, self._mapping, self._place = kinesis, mapping, place
        self._delivery, self._ends = delivery, ends
        self._file = ends.checkpoints / f"{mapping.stream}.{place.shard}"
        self._machine = ShardMachine(rules_of(mapping))
        self._inbox: Answered = queue.SimpleQueue()
        self._under_way: dict[int, Invoke] = {}
        self._due: deque[Command] = deque()
        self._iterator = ""
        self._after = ""
        self._poll_at = 0.0

    def run(self) -> None:
        """Go on until told to stop or the shard has ended; invocations under way are waited for.

        An error of the source, of the checkpoint's disk or of the destination is tried again.
        """
        stop = self._delivery.stop
        pause = pace.BACKOFF_FIRST_SECONDS
        while self._under_way or not stop.is_set():
            try:
                if self._machine.ended and not self._due:
                    self._ends.ended(self._place.shard)
                    return
                if not stop.is_set():
                    if not self._delivery.enabled():
                        self._listen(pace.IDLE_SECONDS)
                        continue
                    self._poll()
                self._due.extend(self._machine.take(time.time()))
                self._obey()
                pause = pace.BACKOFF_FIRST_SECONDS
                self._listen(self._idle_seconds())
            except Exception as error:  # noqa: BLE001  a driver that ended would lose its shard
                self._delivery.tally.last_error = str(error)
                self._iterator = ""
                self._listen(pause)
                pause = min(2 * pause, pace.BACKOFF_MAX_SECONDS)
        with suppress(Exception):  # what is not checkpointed comes again
            self._due.extend(self._machine.take(time.time()))
            self._obey()

    def _poll(self) -> None:
        if not self._machine.hungry or time.time() < self._poll_at:
            return
        self._iterator = self._iterator or self._open()
        answer = self._kinesis.get_records(ShardIterator=self._iterator, Limit=GET_RECORDS_MAX)
        records = answer["Records"]
        self._machine.read(
            (
                record(
                    each["SequenceNumber"],
                    each["PartitionKey"],
                    each["Data"],
                    each["ApproximateArrivalTimestamp"].timestamp(),
                )
                for each in records
            ),
            time.time(),
        )
        if records:
            self._after = records[-1]["SequenceNumber"]
        behind = answer.get("MillisBehindLatest", 0)
        self._delivery.tally.behind_ms = behind
        self._poll_at = 0.0 if records and behind else time.time() + pace.IDLE_SECONDS
        self._iterator = answer.get("NextShardIterator") or ""
        if not self._iterator:
            self._machine.close()

    def _open(self) -> str:
        """An iterator behind what was read, else behind the checkpoint, else at the start."""
        if not self._after and self._file.exists():
            self._after = self._file.read_text()
        where = {"ShardIteratorType": "TRIM_HORIZON"}
        if self._after:
            where = {
                "ShardIteratorType": "AFTER_SEQUENCE_NUMBER",
                "StartingSequenceNumber": self._after,
            }
        answer = self._kinesis.get_shard_iterator(
            StreamName=self._mapping.stream, ShardId=self._place.shard, **where
        )
        return str(answer["ShardIterator"])

    def _obey(self) -> None:
        """Do what is due. What raises stays due, and what follows it waits."""
        while self._due:
            match self._due[0]:
                case Checkpoint(identifier):
                    self._checkpoint(identifier)
                case Discard() as discard:
                    self._discard(discard)
                case Invoke() as invoke if not self._delivery.stop.is_set():
                    self._under_way[invoke.lane] = invoke
                    payload = kinesis_event(invoke.records, self._place)
                    invoke_aside(self._delivery, invoke.lane, payload, self._inbox)
            self._due.popleft()

    def _listen(self, seconds: float) -> None:
        """Wait so long for a result, at most until told to stop."""
        if not self._under_way:
            self._delivery.stop.wait(seconds)
            return
        try:
            lane, result = self._inbox.get(timeout=max(seconds, 0.001))
        except queue.Empty:
            return
        records = self._under_way.pop(lane).records
        meant = self._machine.result(lane, result, time.time())
        first = min(map(int, meant.failed), default=records[-1].sequence + 1)
        taken = sum(each.sequence < first for each in records)
        self._delivery.told(meant, taken, len(records) - taken)

    def _idle_seconds(self) -> float:
        now = time.time()
        wake = self._machine.wake(now)
        moments = [now + pace.IDLE_SECONDS, *([wake] if wake is not None else [])]
        if self._machine.hungry:
            moments.append(self._poll_at)
        return max(min(moments) - now, 0.0)

    def _discard(self, discard: Discard) -> None:
        if self._ends.park is not None:
            now, unique = time.time(), str(uuid.uuid4())
            told = document(discard, self._place, now, unique, payload=True)
            key = object_key(self._mapping.function, self._place.shard, now, unique)
            self._ends.park(key, json.dumps(told).encode())
        with self._delivery.lock:
            self._delivery.tally.discarded += len(discard.records)
        self._machine.discarded(discard.lane)

    def _checkpoint(self, number: str) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(number)
        fresh.replace(self._file)
