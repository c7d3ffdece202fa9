"""What ingest says of a Delivery: one log line and one metric flush, whatever its size.

Metrics are CloudWatch's embedded format (EMF) by Powertools, with one dimension, the service (which
is the pipeline's name): each further dimension is a metric to pay for. See `Metric` for them all.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.metrics.functions import is_metrics_disabled

from ingest import log
from ingest.breaker import Finding
from sinks.errors import SinkError
from transform.records import Delivery, Outcome

Metric = Literal[
    "Received",  # source records in the Delivery
    "Delivered",  # ... that are in landing, and in the hot store where they are hot
    "Dropped",  # ... that a rule of the contract dropped
    "Quarantined",  # ... set aside with their bytes and a reason
    "Retried",  # ... handed back to the mapping
    "Bytes",  # of bodies, decoded
    "IteratorAge",  # ms from the oldest arrival to the end of processing
    "Freshness",  # ms from the newest arrival to the end of processing
    "ArchiveDuration",  # ms to write the raw object
    "TransformDuration",  # ms in the Transform stage
    "HotDuration",  # ms in the Hot stage
    "TotalDuration",  # ms from reading the event to the answer
    "LandingBytes",  # of the landing object
    "HotRefused",  # rows the hot table had not taken at the deadline
    "HotOwed",  # ... of which the repair queue holds a debt, so that their records are delivered
    "Killers",  # records set aside unread because Transform dies of them: alarm on any
    "NotTold",  # rejects that the feed's bus would not take; quarantine has them
    "BreakerTripped",  # 1 where nearly everything was bad and the mapping is stopped: alarm on it
]

RepairMetric = Literal[
    "HotDebts",  # debts that the repair function was given
    "HotPaid",  # ... whose rows are all in the hot table, and marked so in the ledger
    "HotUnpaid",  # ... that went back to the queue; alarm on it together with the queue's age
    "HotRepaired",  # rows of paid debts that were put into the hot table
    "HotSkipped",  # rows of paid debts past their TTL, or made again by a reprocess
    "RepairDuration",  # ms of one invocation of the repair function
]

metrics = Metrics()


@dataclass(frozen=True)
class Timing:
    """When a Delivery was done (`now`, seconds since 1970) and how long it took."""

    now: float
    archive_ms: float
    total_ms: float


@dataclass
class Guarded:
    """What the guards found in a Delivery: killers (law 8), or that all of it is bad (law 9)."""

    killers: int = 0
    found: Finding | None = None

    def saw(self, output: dict[str, Any]) -> None:
        """Take in the output of a workflow that ran on the Delivery or on a part of it."""
        if found := output.get("transform", {}).get("breaker"):
            self.found = Finding(**found)


def record(  # noqa: PLR0913  all that is told of a Delivery is told here
    delivery: Delivery,
    outcome: Outcome,
    timing: Timing,
    output: dict[str, Any],
    failure: SinkError | None,
    *,
    guarded: Guarded,
) -> None:
    """Write the Delivery's log line and flush its metrics; `failure` is why it goes back whole."""
    if not len(delivery):
        return
    transform, hot = output.get("transform", {}), output.get("hot", {})
    now_ms = timing.now * 1000
    values: dict[Metric, float] = {
        "Received": outcome.received,
        "Delivered": outcome.delivered,
        "Dropped": outcome.dropped,
        "Quarantined": outcome.quarantined,
        "Retried": outcome.retried,
        "Bytes": sum(map(len, delivery.bodies)),
        "IteratorAge": max(now_ms - min(delivery.arrivals) / 1000, 0),
        "Freshness": max(now_ms - max(delivery.arrivals) / 1000, 0),
        "ArchiveDuration": round(timing.archive_ms, 1),
        "TransformDuration": transform.get("millis", 0),
        "HotDuration": hot.get("millis", 0),
        "TotalDuration": round(timing.total_ms, 1),
        "LandingBytes": transform.get("landing_bytes", 0),
        "HotRefused": hot.get("refused", 0),
        "HotOwed": hot.get("repair_rows", 0),
        "Killers": guarded.killers,
        "NotTold": transform.get("quarantine_rows", 0) if "not_told" in output else 0,
        "BreakerTripped": int(guarded.found is not None),
    }
    say = log.info if failure is None else log.warning
    if guarded.found is not None:
        say = log.error
    say(
        "delivery settled" if not outcome.retry else "delivery not settled",
        source=delivery.source,
        stream=delivery.stream,
        first=delivery.sequences[0],
        last=delivery.sequences[-1],
        raw_key=output.get("raw_key", ""),
        reason=output["account"]["reason"] if failure is None else failure.reason,
        error=str(guarded.found or failure or ""),
        not_told=output.get("not_told", ""),
        received=outcome.received,
        delivered=outcome.delivered,
        quarantined=outcome.quarantined,
        retried=outcome.retried,
    )
    flush(values)


@dataclass(frozen=True)
class Repaired:
    """What one invocation of the repair function came to: of debts, then of the paid ones' rows."""

    debts: int
    paid: int
    rows: int
    skipped: int
    millis: float


def repaired(repaired: Repaired, failure: str) -> None:
    """Write the invocation's log line and flush its metrics."""
    values: dict[RepairMetric, float] = {
        "HotDebts": repaired.debts,
        "HotPaid": repaired.paid,
        "HotUnpaid": repaired.debts - repaired.paid,
        "HotRepaired": repaired.rows,
        "HotSkipped": repaired.skipped,
        "RepairDuration": repaired.millis,
    }
    say = log.info if repaired.debts == repaired.paid else log.warning
    say("debts repaired", error=failure, **vars(repaired))
    flush(values)


def flush(values: Mapping[Metric, float] | Mapping[RepairMetric, float]) -> None:
    """Write one line of metrics, in Powertools' own format.

    Not by `add_metric`, which checks anew what is fixed here; and Powertools makes a line only once
    for each set of names, after which its values and its time change.
    """
    if is_metrics_disabled():
        return
    provider = metrics.provider
    made = _first_line(tuple(values), provider.namespace, provider.service)
    log.write(
        made
        | {"_aws": made["_aws"] | {"Timestamp": int(time.time() * 1000)}}
        | {name: [float(value)] for name, value in values.items()}
    )


@lru_cache(8)
def _first_line(names: tuple[str, ...], *_said_by: str | None) -> dict[str, Any]:
    """A line that Powertools makes of these metrics; the provider's names are in it."""
    made = {name: {"Unit": _UNITS.get(name, "Count"), "Value": [0.0]} for name in names}
    return dict(metrics.serialize_metric_set(made))


_UNITS = {
    "Bytes": MetricUnit.Bytes.value,
    "LandingBytes": MetricUnit.Bytes.value,
    **dict.fromkeys(
        (
            *("IteratorAge", "Freshness", "ArchiveDuration", "TransformDuration"),
            *("HotDuration", "TotalDuration", "RepairDuration"),
        ),
        MetricUnit.Milliseconds.value,
    ),
}
