"""What the guards must not have done, counted without them: order in a group, and the breaker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from infra.doubles.stepfunctions import Execution
from infra.simulation import contracts
from infra.simulation.oracle import VERSION_UNIT, Known, Row, Violation, micros, position_of
from ingest.breaker import RejectLimits
from transform.kpl import is_aggregate
from transform.kpl_reader import deaggregate

WORKFLOW_SECONDS = 200.0  # over the workflow's timeout: one begun before may hear the later word


def overtaken(known: Known) -> Iterator[Violation]:
    """Messages of a FIFO group that were settled before one that was sent before them."""
    for group, sent in known.groups.items():
        at = [known.settled_positions.get(position) for position in sent]
        for place, moment in enumerate(at):
            earlier = zip(sent[:place], at[:place], strict=True)
            for position, before in earlier:
                gone = position in known.parked_positions
                if moment is not None and not gone and (before is None or before > moment):
                    yield Violation("overtaken in its group", f"{position} in {group}")


def set_aside_by_the_world(
    known: Known,
    executions: Sequence[Execution],
    raw: Mapping[str, Sequence[Row]],
    limits: RejectLimits,
) -> Iterator[Violation]:
    """Law 9: of what is nearly all bad nothing is set aside before an operator has accepted it."""
    first_word = min(known.accepted, default=float("inf"))
    for execution in executions:
        if execution.status != "SUCCEEDED" or execution.input.get("unread"):
            continue
        asked, done = execution.input, execution.output["transform"]
        rows = raw.get(asked["raw_key"], [])[asked["first"] : asked["first"] + asked["received"]]
        bad = nearly_all_bad(known, rows, done, limits)
        if "breaker" in done and (done["landing_key"] or done["quarantine_key"]):
            yield Violation("set aside what the breaker handed back", execution.arn)
        if "breaker" in done and not bad:
            yield Violation("the breaker tripped over nothing", execution.arn)
        early = execution.started_at < first_word - WORKFLOW_SECONDS
        if bad and early and done["quarantine_key"]:
            yield Violation("nearly all was bad, and set aside", execution.arn)


def nearly_all_bad(
    known: Known, rows: Sequence[Row], done: Mapping[str, Any], limits: RejectLimits
) -> bool:
    """Whether a guard that counts by hand would trip: producers' records, and keys of the bad."""
    version = done["version"] // VERSION_UNIT
    if not version:  # it ended before it knew its rules
        return False
    records, rejected = 0, 0
    keys: set[object] = set()
    for row in rows:
        arrival, position = micros(row["_arrival"]), position_of(row)
        body: bytes = known.bodies.get(position) or row["_body"]
        own = row["_partition_key"] or position
        for key, member in deaggregate(body) if is_aggregate(body) else [(own, body)]:
            records += 1
            if not contracts.good(member, arrival, version):
                rejected += 1
                keys.add(key)
    many = records >= limits.records_min and len(keys) >= limits.keys_min
    return many and rejected > limits.ratio_max * records
