"""What the guards must not have done, counted without them: order in a group, and the breaker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from infra.doubles.stepfunctions import Execution
from infra.simulation.drawn import member_key
from infra.simulation.known import Known, Row, Violation, position_of
from ingest.breaker import RejectLimits

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
        asked = execution.input
        judged = not asked.get("unread") and asked.get("rejects", "judge") == "judge"
        if execution.status != "SUCCEEDED" or not judged:
            continue
        done = execution.output["transform"]
        rows = raw.get(asked["raw_key"], [])[asked["first"] : asked["first"] + asked["received"]]
        bad = nearly_all_bad(known, rows, done["generation"], limits)
        if "breaker" in done and (done["landing_key"] or done["quarantine_key"]):
            yield Violation("set aside what the breaker handed back", execution.arn)
        if "breaker" in done and not bad:
            yield Violation("the breaker tripped over nothing", execution.arn)
        early = execution.started_at < first_word - WORKFLOW_SECONDS
        if bad and early and done["quarantine_key"]:
            yield Violation("nearly all was bad, and set aside", execution.arn)


def nearly_all_bad(
    known: Known, rows: Sequence[Row], generation: str, limits: RejectLimits
) -> bool:
    """Whether a guard that counts rows by hand would trip. Without rules nobody has judged."""
    counted = 0
    rejected: list[object] = []
    for row in rows:
        elements = known.elements(position_of(row), generation)
        counted += len(elements)
        rejected += [
            _key(known, row, sub)
            for (sub, _), element in elements.items()
            if element.fate == "quarantined"
        ]
    many = counted >= limits.records_min and len(set(rejected)) >= limits.keys_min
    return many and len(rejected) > limits.ratio_max * counted


def _key(known: Known, row: Row, number: int) -> object:
    """What tells a message's producer: in an aggregate each has a key of its own."""
    position = position_of(row)
    whole = position in known.aggregated
    return member_key(number) if whole else row["_partition_key"] or position
