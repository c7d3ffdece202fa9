"""What ingest does with a Delivery, whatever its source: archive, run the workflow, take account.

Weather at any point hands the Delivery back whole; nothing is acknowledged that is not durable.
"""

from __future__ import annotations

import time
from typing import Any

import orjson

from ingest import telemetry
from ingest.breaker import Mapping, Sample
from ingest.killers import Hunt, NothingDone
from ingest.settings import Context, Wiring
from ingest.workflow import TransformDied
from sinks import ledger, raw
from sinks.deadline import Deadline
from sinks.errors import SinkError
from transform.records import Delivery, Outcome

ANSWER_SECONDS = 3.0  # kept back from the function's time to write the answer


def process(delivery: Delivery, wiring: Wiring, context: Context) -> Outcome:
    """Archive the Delivery and run the workflow on it. Its log line and metrics are written here.

    Raises on defects (`ConservationError` among them), and `NothingDone` where Transform died of
    the Delivery: then the invocation fails and the mapping retries the batch, or its halves.
    """
    started = time.perf_counter()
    deadline = wiring.deadline(context, ANSWER_SECONDS)
    output: dict[str, Any] = {}
    guarded = telemetry.Guarded()
    archived: float | None = None
    failure: SinkError | None = None
    try:
        raw_key = raw.archive(wiring.bucket, delivery, deadline)
        archived = time.perf_counter()
        output = {"raw_key": raw_key}
        state = {
            "pipeline": wiring.settings.pipeline,
            "stream": delivery.stream,
            "shard": delivery.shards[0],
            # As text: JSONata keeps 15 digits of a number.
            "first_arrival": str(min(delivery.arrivals)),
            "last_arrival": str(max(delivery.arrivals)),
            "raw_key": raw_key,
            "archived": len(delivery),
            "first": 0,
            "received": len(delivery),
            "ledger_bucket": ledger.bucket_of(raw_key),
            "epoch": wiring.epoch(),
            "deadline_ms": int(deadline.at * 1000),
        }
        output = wiring.workflow.run(state, timeout_seconds=deadline.left)
        outcome = account(output, len(delivery))
        guarded.saw(output)
    except TransformDied as died:
        outcome, failure = _hunt(state, wiring, deadline, died, guarded), died
    except SinkError as error:
        outcome, failure = Outcome.all_retry(len(delivery)), error
    if guarded.found is not None:
        mapping = Mapping(
            delivery.source, delivery.stream, delivery.source_arn, context.function_name
        )
        wiring.breaker.trip(guarded.found, mapping, wiring.clock(), deadline)
    telemetry.record(
        delivery,
        outcome,
        telemetry.Timing(
            now=wiring.clock(),
            archive_ms=((archived or time.perf_counter()) - started) * 1000,
            total_ms=(time.perf_counter() - started) * 1000,
        ),
        output,
        failure,
        guarded=guarded,
    )
    nothing = isinstance(failure, TransformDied) and outcome.retried == len(delivery)
    if nothing and guarded.found is None:  # halves would be too small for the breaker
        raise NothingDone(f"Transform died of {len(delivery)} records and passed none") from failure
    return outcome


def _hunt(
    state: dict[str, Any],
    wiring: Wiring,
    deadline: Deadline,
    died: TransformDied,
    guarded: telemetry.Guarded,
) -> Outcome:
    """What can be done of a Delivery that Transform died of (law 8)."""

    def run(first: int, received: int, more: dict[str, Any]) -> tuple[Outcome, Sample | None]:
        part = state | {"first": first, "received": received} | more
        output = wiring.workflow.run(part, timeout_seconds=deadline.left)
        sample = output["transform"].get("sample")
        return account(output, received), Sample.of_text(sample) if sample else None

    settings = wiring.settings
    hunt = Hunt(run, wiring.parallel, deadline, settings.transform_seconds, settings.breaker)
    outcome = hunt.through(state["received"], str(died))
    guarded.killers, guarded.found = hunt.killers, hunt.found
    return outcome


def account(output: dict[str, Any], received: int) -> Outcome:
    """The Outcome in a workflow's output, checked against what ingest itself received."""
    counted = output["account"]
    return Outcome(
        received=received,
        delivered=counted["delivered"],
        dropped=counted["dropped"],
        quarantined=counted["quarantined"],
        retry=tuple((low, high) for low, high in orjson.loads(counted["retry"])),
    )
