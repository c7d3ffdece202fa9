"""The workflow's stages: each takes the state's pointers and answers with an outcome it can name.

A stage's answer holds its `account`: what the Delivery's source records would come to if the
workflow ended here. Weather and deadlines are outcomes; only death and defects raise.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from typing import Any

import pyarrow as pa

from ingest import breaker, feed, log
from ingest.settings import Context, Wiring
from sinks import hot, landing, raw, repair
from sinks.deadline import Deadline
from sinks.errors import SinkError
from sinks.repair import Debt
from transform.devices import Fleet
from transform.pipeline import Transform
from transform.records import Batch, ConservationError, Delivery, Outcome

ANSWER_SECONDS = 6.0  # kept back from a stage's time: a call begun just before may take 5 of them
CANARY_MICROS = 1_767_225_600_000_000  # 2026-01-01: a canary's event time and arrival
ENQUEUE_SECONDS = 8.0  # kept back of Hot's time to send debts: a put begun before may take 5
RETRY_RANGES_MAX = 1_000  # in the state: some 12 KB of 256; beyond, ranges are joined over gaps


def transform(state: dict[str, Any], wiring: Wiring, context: Context) -> dict[str, Any]:
    """Raw object to landing and quarantine objects; counts come from what was written."""
    started = time.perf_counter()
    deadline = _deadline(state, wiring, context)
    answer = {
        "outcome": "retry",
        "contract": wiring.contract.name,
        "version": 0,
        "generation": "",
        **vars(landing.Landed.nothing()),
        "hot_rows": 0,
    }
    try:
        deadline.check("transform")
        rules = wiring.transform(state["epoch"])
        answer["version"] = rules.generation.version
        answer["generation"] = rules.generation.digest
        rows = raw.read(wiring.bucket, state["raw_key"])
        if rows.num_rows != state["archived"]:
            raise ConservationError(f"raw holds {rows.num_rows} of {state['archived']} records")
        if (state["first"], state["received"]) != (0, rows.num_rows):
            rows = rows.slice(state["first"], state["received"])
        batch = _batch(state, rules, rows)
        back, told = _judged(state, rules, wiring, batch)
        if not back:
            if not state.get("unread"):  # then no rules were applied
                wiring.contracts.keep(wiring.bucket, rules, deadline)
            landed = landing.write(wiring.bucket, rules.contract, batch, deadline)
    except SinkError as error:
        log.warning("transform handed back", reason=error.reason, error=str(error))
        answer["account"] = _account(Outcome.all_retry(state["received"]), error.reason)
        return answer | {"millis": _millis_since(started)}
    answer |= told
    if back:
        answer["account"] = _account(Outcome.all_retry(state["received"]), back)
    else:
        counts = batch.counts
        outcome = Outcome(counts.received, counts.delivered, counts.dropped, counts.quarantined, ())
        answer |= {"outcome": "done", **vars(landed), "hot_rows": batch.hot_rows}
        answer |= feed.summary(batch.rejects, rules.contract)
        answer["account"] = _account(outcome, "")
    return answer | {"millis": _millis_since(started)}


def _batch(state: dict[str, Any], rules: Transform, rows: pa.Table) -> Batch:
    """What the rules make of the part's records; of a killer nothing, it is not opened (law 8)."""
    if state.get("canary"):
        canary(rules)
    if why := state.get("unread"):
        return rules.unread(rows, state["raw_key"], state["first"], why)
    return rules.apply(rows, state["raw_key"], state["first"])


def _judged(
    state: dict[str, Any], rules: Transform, wiring: Wiring, batch: Batch
) -> tuple[str, dict[str, Any]]:
    """Why all of the part goes back because of its rejects, if it does, and what is said of them.

    What an operator accepted is not counted (law 9).
    """
    rejects: breaker.Rejects = "write" if state.get("unread") else state.get("rejects", "judge")
    if rejects == "write":
        return "", {}
    limits, name = wiring.settings.breaker, rules.contract.name
    sample = breaker.Sample.of(name, batch, limits.keys_min)
    if sample.judged(limits) or (sample.rejected and rejects == "withhold"):
        word = breaker.accepted(wiring.bucket, wiring.settings.pipeline)
        if word is not None and word.contract == name:
            sample = breaker.Sample.of(name, batch, limits.keys_min, word.until_micros)
    if rejects == "withhold":
        return breaker.WITHHELD if sample.rejected else "", {"sample": sample.to_text()}
    found = sample.judged(limits)
    return (breaker.REASON, {"breaker": vars(found)}) if found else ("", {})


def canary(rules: Transform) -> None:
    """Apply the rules to a good message of their contract. Raises where it is not delivered.

    Of a contract with filters, lookups and the like no message is sure to be: there it only has to
    be judged.
    """
    fleet = Fleet(rules.contract, 0, CANARY_MICROS, CANARY_MICROS, 1, malformed=0, repeats=0)
    body = next(fleet.messages(1)).body
    made = Delivery("sqs", "canary", [""], ["0"], [None], [CANARY_MICROS], [None], [body])
    judged = rules.apply(made.table(), "")
    if rules.certain and judged.counts.delivered != 1:
        raise ConservationError("a good message of the contract was not delivered")


def write_hot(state: dict[str, Any], wiring: Wiring, context: Context) -> dict[str, Any]:
    """The landing object's hot columns to DynamoDB.

    What the table refuses becomes a debt, where the limits allow and the repair queue takes it in
    time; else it is handed back by index. Items are made by the contract that made the object.
    """
    started = time.perf_counter()
    own = wiring.contract
    deadline = _deadline(state, wiring, context)
    done = state["transform"]
    owed: tuple[Debt, ...] = ()
    try:
        deadline.check("hot")
        landed = landing.open_(wiring.bucket, done["landing_key"])
        contract = wiring.contracts.behind(wiring.bucket, landed, own)
        columns, parts = hot.columns_of(contract, landed.names), None
        if done["landing_rows"] <= hot.ROWS_AT_ONCE:
            rows = landed.rows(columns)
        else:
            rows = landed.placed(hot.key_columns_of(contract))
            parts = partial(landed.parts, columns, hot.ROWS_MAX)
        until = deadline.sooner(min(ENQUEUE_SECONDS, deadline.left / 4))
        result = hot.write(wiring.hot_table, rows, contract, until, wiring.waiting, parts)
        if result.written + result.refused != done["hot_rows"]:
            raise ConservationError(f"{result} of {done['hot_rows']} hot rows")
        account = state["account"]
        if result.refused:
            index = landed.rows(["_index"])["_index"].take(pa.array(result.rows)).to_pylist()
            owed = _owe(state, wiring, result, index, deadline)
            later = {place for debt in owed for place in debt.places}
            back = [i for place, i in zip(result.rows, index, strict=True) if place not in later]
            if back:
                account = _account(_without(state, wiring, back), "hot_refused")
    except SinkError as error:
        log.warning("hot handed back", reason=error.reason, error=str(error))
        result = hot.HotOutcome(0, done["hot_rows"], 0, ())
        account = _account(Outcome.all_retry(state["received"]), error.reason)
    return {
        "outcome": account["outcome"],
        "account": account,
        "written": result.written,
        "refused": result.refused,
        "repair_rows": sum(len(debt.places) for debt in owed),
        "repair": " ".join(debt.id for debt in owed),
        "items": result.items,
        "millis": _millis_since(started),
    }


def _owe(
    state: dict[str, Any],
    wiring: Wiring,
    result: hot.HotOutcome,
    index: list[int],
    deadline: Deadline,
) -> tuple[Debt, ...]:
    """The debts that the repair queue has taken for the refused rows; what it has not goes back."""
    queue = wiring.repair_queue
    if queue is None:
        return ()
    limits = wiring.settings.repair
    try:
        deadline.check("repair")
        if not repair.bearable(result.refused, state["transform"]["hot_rows"], queue, limits):
            return ()
        debts = repair.debts_of(
            wiring.settings.pipeline,
            state["transform"]["landing_key"],
            state["raw_key"],
            result.rows,
            index,
        )
        return repair.owe(queue, debts, deadline, wiring.waiting)
    except SinkError as error:
        log.warning("no debts taken", reason=error.reason, error=str(error))
        return ()


def _deadline(state: dict[str, Any], wiring: Wiring, context: Context) -> Deadline:
    """The Delivery's deadline, or the stage's own end where that is sooner.

    A stage that is killed tells nothing of what it had done, and all of it would be done again.
    """
    return min(
        Deadline.of_millis(state["deadline_ms"], wiring.clock),
        wiring.deadline(context, ANSWER_SECONDS),
        key=lambda deadline: deadline.at,
    )


def _without(state: dict[str, Any], wiring: Wiring, refused: Iterable[int]) -> Outcome:
    """The account when these source records must go back: retry is the worst of fates.

    Landing and quarantine number records as raw does, the account those of this part from 0.
    """
    first = state["first"]
    retry = ranges((index - first for index in refused), RETRY_RANGES_MAX)
    back = {index for low, high in retry for index in range(low, high)}
    done = state["transform"]
    quarantined, dropped = (
        {index - first for index in landing.indexes(wiring.bucket, done[key])}
        for key in ("quarantine_key", "dropped_key")
    )
    if dropped:  # of some records a rule dropped all rows, of others only some
        landed = landing.indexes(wiring.bucket, done["landing_key"])
        dropped -= quarantined | {index - first for index in landed}
    counted = state["account"]
    if (len(quarantined), len(dropped)) != (counted["quarantined"], counted["dropped"]):
        raise ConservationError(
            f"{len(quarantined)} of {counted['quarantined']} are set aside, "
            f"{len(dropped)} of {counted['dropped']} dropped"
        )
    return Outcome(
        received=state["received"],
        delivered=state["received"] - len(quarantined | dropped | back),
        dropped=len(dropped - back),
        quarantined=len(quarantined - back),
        retry=retry,
    )


def ranges(indexes: Iterable[int], most: int) -> tuple[tuple[int, int], ...]:
    """Ascending indexes as half-open ranges, at most `most`: the smallest gaps are closed first."""
    found: list[list[int]] = []
    for index in sorted(set(indexes)):
        if found and found[-1][1] == index:
            found[-1][1] = index + 1
        else:
            found.append([index, index + 1])
    if len(found) > most:
        gaps = sorted(b[0] - a[1] for a, b in pairwise(found))
        widest_closed = gaps[len(found) - most - 1]
        joined = [found[0]]
        for span in found[1:]:
            if span[0] - joined[-1][1] <= widest_closed:
                joined[-1][1] = span[1]
            else:
                joined.append(span)
        found = joined
    return tuple((low, high) for low, high in found)


def _account(outcome: Outcome, reason: str) -> dict[str, Any]:
    return {
        "outcome": "retry" if outcome.retry else "done",
        "reason": reason,
        "delivered": outcome.delivered,
        "dropped": outcome.dropped,
        "quarantined": outcome.quarantined,
        # As text: JSONata would take an array of one array apart.
        "retry": json.dumps(outcome.retry),
    }


def _millis_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 1)
