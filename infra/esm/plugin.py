"""The pytest fixture `millrace_esm`: point a Lambda handler at an event source mapping.

    def test_a_poison_record_is_set_aside(millrace_esm):
        esm = millrace_esm.kinesis(handler, records=[b"good", b"poison", b"good"],
                                   bisect=True, retries=3, on_failure="s3")
        result = esm.run()
        assert len(result.parked) == 1 and not result.lost

Installed with the package (entry point `pytest11`); without, `pytest -p infra.esm.plugin`. Time is
simulated: a week of retries takes milliseconds. A seed gives the same faults again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from infra.esm.answers import SETTLED, Undocumented
from infra.esm.queue import QueueRules
from infra.esm.simulate import Faults, Function, Handler
from infra.esm.simulate_kinesis import KinesisSimulation
from infra.esm.simulate_sqs import SqsSimulation
from infra.esm.simulated_queue import SimulatedQueue
from infra.esm.simulated_stream import SimulatedStream
from infra.esm.stream import StreamRules

Body = bytes | str | dict[str, Any]
"""A record's or a message's data; a dict is sent as JSON."""

DESTINATIONS = ("s3", "sqs", "sns")


class EsmFactory:
    """Makes simulated event source mappings. Every setting has AWS's default.

    Common to both kinds: `faults` (`Faults`: a script, then probabilities), `seed`, the function's
    `timeout` and `seconds` (how long an invocation takes), `reserved_concurrency`, `reports`
    (ReportBatchItemFailures; on by default, which AWS's is not), `undocumented` (what AWS leaves
    open: try each of `Undocumented.every()`). `Faults` is in `infra.esm.simulate`, `Undocumented`
    in `infra.esm.answers`.
    """

    def kinesis(  # noqa: PLR0913  one argument for each of AWS's settings
        self,
        handler: Handler,
        records: Iterable[Body | tuple[str, Body]] = (),
        *,
        batch_size: int = 100,
        window: float = 0.0,
        bisect: bool = False,
        retries: int = -1,
        max_age: int = -1,
        parallelization_factor: int = 1,
        on_failure: str | None = None,
        shards: int = 1,
        retention: float = 86_400.0,
        reports: bool = True,
        faults: Faults | None = None,
        timeout: float = 3.0,
        seconds: float = 0.1,
        reserved_concurrency: int | None = None,
        undocumented: Undocumented = SETTLED,
        seed: int = 0,
    ) -> KinesisSimulation:
        """A handler behind a Kinesis stream, with these records in it at the start.

        A record is its data, or a partition key and its data; without a key it is "key". More
        come with `.put(key, data, at=seconds)`; `.at(seconds, event)` does anything at a time, as
        `.stream.split(shard)`. `.run()` returns a `StreamOutcome`. Sequence numbers begin with 8,
        so that a handler that compares them as text is found out at once.
        """
        if on_failure is not None and on_failure not in DESTINATIONS:
            raise ValueError(f"on_failure is one of {DESTINATIONS} or None, not {on_failure!r}")
        made = KinesisSimulation(
            _function(handler, faults, timeout, seconds, reserved_concurrency, seed),
            StreamRules(
                batch_size=batch_size,
                window_seconds=window,
                bisect=bisect,
                maximum_retry_attempts=retries,
                maximum_record_age_seconds=max_age,
                parallelization_factor=parallelization_factor,
                reports=reports,
            ),
            SimulatedStream(shards, retention),
            on_failure,
            undocumented,
        )
        for record in records:
            key, data = record if isinstance(record, tuple) else ("key", record)
            made.put(key, _bytes(data))
        return made

    def sqs(  # noqa: PLR0913  one argument for each of AWS's settings
        self,
        handler: Handler,
        messages: Iterable[Body | tuple[str, Body]] = (),
        *,
        batch_size: int = 10,
        window: float = 0.0,
        maximum_concurrency: int | None = None,
        visibility: float = 30.0,
        max_receive_count: int = 0,
        fifo: bool = False,
        retention: float = 345_600.0,
        reports: bool = True,
        faults: Faults | None = None,
        timeout: float = 3.0,
        seconds: float = 0.1,
        reserved_concurrency: int | None = None,
        undocumented: Undocumented = SETTLED,
        seed: int = 0,
    ) -> SqsSimulation:
        """A handler behind an SQS queue, with these messages in it at the start.

        A message is its body, or a message group and its body; without a group it is "group" in a
        FIFO queue. More come with `.send(body, group, at=seconds)`. `max_receive_count` 0 is a
        queue without dead letters. `.run()` returns a `QueueOutcome`.
        """
        made = SqsSimulation(
            _function(handler, faults, timeout, seconds, reserved_concurrency, seed),
            QueueRules(
                batch_size=batch_size,
                window_seconds=window,
                maximum_concurrency=maximum_concurrency,
                visibility_seconds=visibility,
                timeout_seconds=timeout,
                fifo=fifo,
                reports=reports,
            ),
            SimulatedQueue(
                visibility_seconds=visibility,
                max_receive_count=max_receive_count,
                fifo=fifo,
                retention_seconds=retention,
            ),
            undocumented,
        )
        for message in messages:
            default = "group" if fifo else None
            group, body = message if isinstance(message, tuple) else (default, message)
            made.send(_bytes(body).decode(), group)
        return made


@pytest.fixture
def millrace_esm() -> EsmFactory:
    """Simulated event source mappings: `.kinesis(handler, ...)` and `.sqs(handler, ...)`."""
    return EsmFactory()


def _function(  # noqa: PLR0913, PLR0917  what both kinds say of their function
    handler: Handler,
    faults: Faults | None,
    timeout: float,
    seconds: float,
    reserved_concurrency: int | None,
    seed: int,
) -> Function:
    return Function(
        handler,
        faults or Faults(),
        timeout_seconds=timeout,
        seconds=seconds,
        reserved_concurrency=reserved_concurrency,
        seed=seed,
    )


def _bytes(body: Body) -> bytes:
    if isinstance(body, dict):
        return json.dumps(body).encode()
    return body.encode() if isinstance(body, str) else body
