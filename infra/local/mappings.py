"""Event source mappings on real endpoints: threads that drive the state machines of `infra.esm`.

One thread for each shard and one for each queue; invocations have threads of their own, as many as
the machines allow: a shard's parallelization factor, a queue's maximum concurrency.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from infra.esm.events import Place
from infra.esm.queue import QueueRules
from infra.esm.reshard import Lineage
from infra.local.delivery import Delivery, Invoke, NotInvoked, Tally
from infra.local.emulator import ACCOUNT, REGION
from infra.local.queue_driver import QueueDriver
from infra.local.shard_driver import Ends, Park, ShardDriver
from infra.topology import QueueMapping, StreamMapping

__all__ = ["Mappings", "NotInvoked", "Tally"]

PARENTS = ("ParentShardId", "AdjacentParentShardId")


class Mappings:
    """The mappings of a pipeline, each in threads of its own.

    `enabled` is asked, by function, before each look into a source.
    """

    def __init__(
        self, invoke: Invoke, enabled: Callable[[str], bool] = lambda _function: True
    ) -> None:
        self._invoke, self._enabled = invoke, enabled
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.tallies: dict[str, Tally] = {}

    def poll_stream(
        self, kinesis: Any, mapping: StreamMapping, checkpoints: Path, park: Park | None = None
    ) -> None:
        """Start with the stream's shards; children follow when their parents are done.

        `park` writes what the mapping gives up to its on-failure destination.
        """
        checkpoints.mkdir(parents=True, exist_ok=True)
        delivery = self._delivery("kinesis", mapping.function)
        lineage, lock = Lineage(), threading.Lock()

        def begin() -> None:
            lineage.learn(shards_of(kinesis, mapping.stream))
            for shard in lineage.ready():
                place = _place(
                    f"kinesis:{REGION}:{ACCOUNT}:stream/{mapping.stream}", mapping, shard
                )
                self._start(ShardDriver(kinesis, mapping, place, delivery, ends).run)

        def ended(shard: str) -> None:
            with lock:
                lineage.end(shard)
                begin()

        ends = Ends(checkpoints, park, ended)
        with lock:
            begin()

    def poll_queue(  # noqa: PLR0913  a queue, and how long it and its function take
        self,
        sqs: Any,
        mapping: QueueMapping,
        url: str,
        *,
        visibility_seconds: float = 30.0,
        timeout_seconds: float = 3.0,
        tally: str = "sqs",
    ) -> None:
        """Start with a queue. Its visibility and the function's timeout bound what is retried.

        What it does is counted under `tally`.
        """
        rules = QueueRules(
            batch_size=mapping.batch_size,
            window_seconds=mapping.window_seconds,
            maximum_concurrency=mapping.maximum_concurrency,
            visibility_seconds=visibility_seconds,
            timeout_seconds=timeout_seconds,
            fifo=mapping.queue.endswith(".fifo"),
        )
        place = _place(f"sqs:{REGION}:{ACCOUNT}:{mapping.queue}", mapping)
        delivery = self._delivery(tally, mapping.function)
        self._start(QueueDriver(sqs, rules, place, url, delivery).run)

    def stop(self, timeout_seconds: float) -> None:
        """Let invocations in flight end, at most so long. Idempotent."""
        self._stop.set()
        until = time.monotonic() + timeout_seconds
        for thread in list(self._threads):
            thread.join(max(until - time.monotonic(), 0))

    def _delivery(self, tally: str, function: str) -> Delivery:
        delivery = Delivery(function, self._invoke, self._stop, partial(self._enabled, function))
        self.tallies[tally] = delivery.tally
        return delivery

    def _start(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()


def _place(source: str, mapping: StreamMapping | QueueMapping, shard: str = "") -> Place:
    function = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{mapping.function}"
    role = f"arn:aws:iam::{ACCOUNT}:role/millrace-local"
    return Place(f"arn:aws:{source}", function, REGION, role, shard)


def shards_of(kinesis: Any, stream: str) -> dict[str, list[str]]:
    """The stream's shards and the parents of each."""
    asked: dict[str, Any] = {"StreamName": stream}
    shards: dict[str, list[str]] = {}
    while True:
        answer = kinesis.list_shards(**asked)
        for shard in answer["Shards"]:
            shards[shard["ShardId"]] = [shard[name] for name in PARENTS if shard.get(name)]
        if not answer.get("NextToken"):
            return shards
        asked = {"NextToken": answer["NextToken"]}
