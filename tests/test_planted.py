"""Broken on purpose, it is caught: each fault here is planted in the code and found by seeds.

The faults are those of this field: each has lost somebody's records somewhere. They live in this
file only.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
import pytest

import infra.simulation.account
import ingest.feed
import ingest.handlers.kinesis
import ingest.handlers.sqs
import ingest.killers
import ingest.process
import ingest.replay
import ingest.stages
import ingest.sweep
import sinks.bucket
import sinks.distinct
import sinks.hot
import sinks.lake.watermark
import sinks.landing
import sinks.repair
import sinks.table
import sinks.writes
import transform.pipeline
from infra.simulation.many import Found, many
from sinks.distinct import Tables
from sinks.errors import SinkError
from sinks.ledger import Attempt
from transform.records import DIGEST_BYTES, Batch, Delivery, Outcome

SEEDS_MAX = 500
CHUNK_SEEDS = 10

Plant = Callable[[pytest.MonkeyPatch], None]


def checkpoint_off_by_one(patch: pytest.MonkeyPatch) -> None:
    """The answer names the record behind the first that is to be retried."""

    def respond(delivery: Delivery, outcome: Outcome) -> dict[str, Any]:
        retry = sorted(int(delivery.sequences[index]) for index in outcome.retry_indexes())[1:]
        return {"batchItemFailures": [{"itemIdentifier": str(number)} for number in retry[:1]]}

    patch.setattr(ingest.handlers.kinesis, "respond", respond)


def sequence_numbers_as_text(patch: pytest.MonkeyPatch) -> None:
    """The lowest sequence number is looked for in text, where 10 comes before 9."""

    def respond(delivery: Delivery, outcome: Outcome) -> dict[str, Any]:
        retry = [delivery.sequences[index] for index in outcome.retry_indexes()]
        return {"batchItemFailures": [{"itemIdentifier": min(retry)}] if retry else []}

    patch.setattr(ingest.handlers.kinesis, "respond", respond)


def empty_answer_on_error(patch: pytest.MonkeyPatch) -> None:
    """When the world fails, ingest answers with no failures: all is taken."""

    class Optimist(Outcome):
        @classmethod
        def all_retry(cls, received: int) -> Outcome:
            return Outcome(received, received, 0, 0, ())

    patch.setattr(ingest.process, "Outcome", Optimist)


def answer_before_quarantine_is_durable(patch: pytest.MonkeyPatch) -> None:
    """What is set aside is written on the side, and nobody waits for it."""
    real = sinks.landing._put

    def put(bucket: Any, prefix: str, table: Any, deadline: Any) -> Any:
        try:
            return real(bucket, prefix, table, deadline)
        except SinkError:
            if not prefix.startswith("quarantine"):
                raise
            return sinks.landing._Object("quarantine/soon", table.num_rows, 1)

    patch.setattr(sinks.landing, "_put", put)


def key_by_range(patch: pytest.MonkeyPatch) -> None:
    """An object is named by its first and last record, and a name that is taken means written."""
    real = sinks.landing._put

    def put(bucket: Any, prefix: str, table: Any, deadline: Any) -> Any:
        if not table.num_rows:
            return sinks.landing._Object()
        numbers = sorted(table.column("_sequence").to_pylist())
        digest = hashlib.sha256(f"{numbers[0]}-{numbers[-1]}".encode())
        patch.setattr(sinks.bucket.hashlib, "sha256", lambda _: digest, raising=True)
        try:
            return real(bucket, prefix, table, deadline)
        finally:
            patch.setattr(sinks.bucket.hashlib, "sha256", SHA256)

    patch.setattr(sinks.landing, "_put", put)


SHA256 = hashlib.sha256


def key_from_the_clock(patch: pytest.MonkeyPatch) -> None:
    """An object lies under the hour it was written in."""
    real = sinks.bucket.Bucket.put_once

    def put_once(bucket: Any, prefix: str, arrival: int, data: bytes, deadline: Any = None) -> str:
        if deadline is not None:  # else it is a replay's, which has no clock
            arrival = round((deadline.clock() + 3_000) * 1_000_000)
        return real(bucket, prefix, arrival, data, deadline)

    patch.setattr(sinks.bucket.Bucket, "put_once", put_once)


def verdict_from_the_clock(patch: pytest.MonkeyPatch) -> None:
    """Too far ahead is judged by the clock: a second attempt passes what the first did not."""
    real = transform.pipeline._Judged.__init__

    def judged_now(judged: Any, rules: Any, raw: pa.Table) -> None:
        now = round(vars(rules).get("clock", time.time)() * 1_000_000)
        place = raw.schema.get_field_index("_arrival")
        arrivals = pa.array([now] * raw.num_rows, raw.schema.field(place).type)
        real(judged, rules, raw.set_column(place, raw.schema.field(place), arrivals))

    patch.setattr(transform.pipeline._Judged, "__init__", judged_now)


def repeats_by_id_alone(patch: pytest.MonkeyPatch) -> None:
    """Two readings of one id are taken for one, whatever their bytes."""
    real = sinks.distinct.Tables.records

    def records(tables: Tables) -> str:
        return real(tables).replace("_record_id, _digest", "_record_id")

    patch.setattr(sinks.distinct.Tables, "records", records)


def identity_from_the_messages_bytes(patch: pytest.MonkeyPatch) -> None:
    """A reading's digest is of the whole record it came in: in another batch it is another one."""
    real = transform.pipeline.Transform.apply

    def apply(rules: Any, raw: pa.Table, raw_key: str, first: int = 0) -> Batch:
        batch = real(rules, raw, raw_key, first)
        bodies = raw.column("_body").to_pylist()
        digests = [
            hashlib.blake2b(bodies[index - first], digest_size=DIGEST_BYTES).digest()
            for index in batch.rows.column("_index").to_pylist()
        ]
        place = batch.rows.schema.get_field_index("_digest")
        field = batch.rows.schema.field(place)
        rows = batch.rows.set_column(place, field, pa.array(digests, field.type))
        return dataclasses.replace(batch, rows=rows)

    patch.setattr(transform.pipeline.Transform, "apply", apply)


def two_fates_for_one_position(patch: pytest.MonkeyPatch) -> None:
    """Whatever landed counts, and whatever was set aside counts as well."""

    def fates(_: Tables, table: str) -> str:
        element = sinks.distinct.ELEMENT
        return (
            f"SELECT * FROM {table} "  # noqa: S608  names of our own
            f"QUALIFY row_number() OVER (PARTITION BY {element} ORDER BY _raw, _index) = 1"
        )

    patch.setattr(sinks.distinct.Tables, "_members", fates)


def a_zombie_overwrites_the_ledger(patch: pytest.MonkeyPatch) -> None:
    """An attempt's item is named by its raw object: the last attempt replaces the others."""
    definition = copy.deepcopy(infra.simulation.account.definition())
    arguments = definition["States"]["Settle"]["Arguments"]
    del arguments["ConditionExpression"]
    arguments["Item"]["pk"] = {"S": "{% $states.input.raw_key %}"}
    arguments["Item"]["sk"] = {"S": "attempt"}
    patch.setattr(infra.simulation.account, "definition", lambda: definition)


def repair_enqueued_after_the_answer(patch: pytest.MonkeyPatch) -> None:
    """A debt is sent in the background: when the process that owes it is used again, if it is."""
    real, frozen = sinks.repair.owe, list[Any]()

    def owe(queue: Any, debts: Any, deadline: Any, waiting: Any) -> Any:
        late, frozen[:] = list(frozen), debts
        real(queue, late, deadline, waiting)
        return tuple(debts)

    patch.setattr(sinks.repair, "owe", owe)


def killers_without_a_control(patch: pytest.MonkeyPatch) -> None:
    """Whatever Transform dies of is set aside, even if Transform dies of everything."""
    patch.setattr(ingest.killers.Hunt, "_canary_passes", lambda _: True)


def unprocessed_items_ignored(patch: pytest.MonkeyPatch) -> None:
    """What DynamoDB did not take of a batch is forgotten."""
    real = sinks.table._attempt

    def attempt(writes: Any, pending: list[Any]) -> list[Any]:
        left = real(writes, pending)
        return left if len(left) == len(pending) else []

    patch.setattr(sinks.table, "_attempt", attempt)


def an_answer_is_success(patch: pytest.MonkeyPatch) -> None:
    """An execution that failed is taken for one that did its work: it answered with a 200."""

    def account(output: dict[str, Any], received: int) -> Outcome:
        del output
        return Outcome(received, received, 0, 0, ())

    patch.setattr(ingest.process, "account", account)


def hot_items_named_by_arrival(patch: pytest.MonkeyPatch) -> None:
    """A hot item's key has the moment its record arrived: a repeat is another item."""
    real = sinks.hot.key_attributes

    def key_attributes(rows: Any, contract: Any, _time: Any = None) -> Any:
        place = rows.schema.get_field_index(contract.event_time)
        moved = rows.set_column(place, contract.event_time, rows.column("_arrival"))
        return real(moved, contract)

    patch.setattr(sinks.hot, "key_attributes", key_attributes)


def an_older_reading_overwrites_the_newest(patch: pytest.MonkeyPatch) -> None:
    """In layout `latest` an item is put whatever is there."""

    def write(writes: Any, puts: Any) -> list[bytes]:
        return sinks.writes.BotoWrites(writes.client, writes.name).write(puts)

    patch.setattr(sinks.writes.BotoNewest, "write", write)


def a_refused_event_fails_the_delivery(patch: pytest.MonkeyPatch) -> None:
    """Producers must have been told: or else what is settled goes back."""
    definition = copy.deepcopy(infra.simulation.account.definition())
    del definition["States"]["Tell producers"]["Catch"]
    patch.setattr(infra.simulation.account, "definition", lambda: definition)


def half_of_the_rejects_told(patch: pytest.MonkeyPatch) -> None:
    """An event counts its examples for all there are."""
    real = ingest.feed._event

    def event(rejects: Any, rows: Any, contract: Any) -> Any:
        return real(rejects, rows[:1], contract)

    patch.setattr(ingest.feed, "_event", event)


def nobody_sweeps(patch: pytest.MonkeyPatch) -> None:
    """What landed and was settled otherwise has no hot item, and nobody looks for it."""
    patch.setattr(ingest.sweep, "due", lambda _: [])


def a_sweep_of_all_that_landed(patch: pytest.MonkeyPatch) -> None:
    """A sweep owes what landed, whether it counts or not."""
    every = "SELECT _object, _row FROM landed -- {kept}"
    patch.setattr(ingest.sweep, "_DUE", every)
    patch.setattr(ingest.sweep._SeenTo, "whole", set(), raising=False)
    patch.setattr(ingest.sweep._SeenTo, "open_rows", lambda _, landed, __: landed)


def a_breaker_that_only_tells(patch: pytest.MonkeyPatch) -> None:
    """When nearly all is bad it is set aside all the same."""
    patch.setattr(ingest.stages, "_judged", lambda *_: ("", {}))


def fifo_answered_as_standard(patch: pytest.MonkeyPatch) -> None:
    """Of a FIFO group only the failed message comes again: what came behind it overtakes it."""

    def respond(delivery: Delivery, outcome: Outcome) -> dict[str, Any]:
        failed = [delivery.sequences[index] for index in outcome.retry_indexes()]
        return {"batchItemFailures": [{"itemIdentifier": name} for name in failed]}

    patch.setattr(ingest.handlers.sqs, "respond", respond)


def a_replay_under_new_positions(patch: pytest.MonkeyPatch) -> None:
    """What is replayed comes as if it were new: the old reject stays open."""
    real = ingest.audit.delivery_of

    def delivery(chunk: Any) -> Delivery:
        made = real(chunk)
        return dataclasses.replace(made, sequences=[f"{n}0" for n in made.sequences])

    patch.setattr(ingest.audit, "delivery_of", delivery)


def a_part_that_counts_as_the_whole(patch: pytest.MonkeyPatch) -> None:
    """A shard is said to be as far as the newest Delivery of which anything is settled."""

    def settled(attempts: Iterable[Attempt]) -> dict[tuple[str, str], int]:
        return {(made.stream, made.shard): made.last_arrival for made in attempts if made.shard}

    patch.setattr(sinks.lake.watermark, "settled", settled)


PLANTED: dict[str, Plant] = {
    plant.__name__: plant
    for plant in (
        a_part_that_counts_as_the_whole,
        checkpoint_off_by_one,
        sequence_numbers_as_text,
        empty_answer_on_error,
        answer_before_quarantine_is_durable,
        key_by_range,
        key_from_the_clock,
        verdict_from_the_clock,
        repeats_by_id_alone,
        identity_from_the_messages_bytes,
        two_fates_for_one_position,
        a_zombie_overwrites_the_ledger,
        repair_enqueued_after_the_answer,
        killers_without_a_control,
        unprocessed_items_ignored,
        an_answer_is_success,
        hot_items_named_by_arrival,
        an_older_reading_overwrites_the_newest,
        a_refused_event_fails_the_delivery,
        half_of_the_rejects_told,
        nobody_sweeps,
        a_sweep_of_all_that_landed,
        a_breaker_that_only_tells,
        fifo_answered_as_standard,
        a_replay_under_new_positions,
    )
}


UNFIT = {"AttributeError", "NameError", "TypeError", "KeyError"}
"""What a plant raises that no longer fits where it is planted: it would be found for that."""


def raised(found: Found) -> set[str]:
    """The names of what functions raised."""
    wrong = [one for report in found.failing for one in report.violations]
    return {one.detail.split(": ")[1] for one in wrong if one.kind == "a function raised"}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED[name](monkeypatch)
    for first in range(0, SEEDS_MAX, CHUNK_SEEDS):
        found = many(range(first, first + CHUNK_SEEDS))
        if found.failing:
            assert UNFIT.isdisjoint(raised(found))
            return
    pytest.fail(f"{name} was not found in {SEEDS_MAX} seeds")
