"""The fuzzer itself: a few of its events in the ordinary suite, and that it would see a violation.

`make fuzz` runs 200,000.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from ingest import kinesis, stages
from sinks import landing
from tests import fuzz
from tests.fuzz import (
    ENOUGH_MS,
    LAYOUTS,
    Bend,
    Plan,
    Violation,
    check,
    deployed,
    layout_of,
    made,
    main,
    objects_as,
)
from transform.records import Outcome

EVENTS = 150  # some four seconds
PLAIN = Plan("kinesis", (1, 2), (), (), ENOUGH_MS, 60_000, 0)


@pytest.fixture(autouse=True)
def _deployed() -> Iterator[None]:
    with deployed("reading"):
        yield


@pytest.mark.parametrize("seed", [1, 2, fuzz.PARQUET_EVERY])
def test_no_crash_and_no_wrong_acknowledgement(seed: int):
    tally: Counter[str] = Counter()
    with deployed(layout_of(seed)), objects_as(seed):
        fuzz.fuzz(seed, EVENTS, tally)
    assert tally["events"] == EVENTS
    assert min(tally[name] for name in ("acknowledged", "handed_back", "event_error")) > 10
    told = {"fate_delivered", "fate_malformed_json", "fate_malformed_aggregate", "fate__marker"}
    assert told <= set(tally)


def test_a_plan_is_one_event_always():
    plan = Plan("kinesis_kpl", (0, 1), (Bend(15, 0, 7),), (Bend(9, 1, 3),), ENOUGH_MS, 60_000, 5)
    assert made(plan) == made(plan)


@pytest.mark.parametrize("golden", ["kinesis", "kinesis_kpl", "sqs", "sqs_fifo"])
def test_an_event_as_it_is_passes(golden: str):
    check(Plan(golden, (0, 1, 2), (), (), ENOUGH_MS, 60_000, 0))


# Broken on purpose, it is seen


def test_quarantine_that_is_not_written_is_seen(monkeypatch: pytest.MonkeyPatch):
    put = landing._put

    def forgetful(bucket: Any, prefix: str, table: Any, deadline: Any) -> Any:
        if prefix.startswith(landing.QUARANTINE):
            return landing._Object("quarantine/x", table.num_rows, 1)
        return put(bucket, prefix, table, deadline)

    monkeypatch.setattr(landing, "_put", forgetful)
    with pytest.raises(Violation, match="record 0 was acknowledged and is nowhere"):
        check(Plan("kinesis", (0, 1), (), (), ENOUGH_MS, 60_000, 0))


def test_an_answer_above_what_must_come_again_is_seen(monkeypatch: pytest.MonkeyPatch):
    respond = kinesis.respond

    def late(delivery: Any, outcome: Outcome) -> dict[str, Any]:
        answer = respond(delivery, outcome)
        if answer["batchItemFailures"]:
            return {"batchItemFailures": [{"itemIdentifier": max(delivery.sequences, key=int)}]}
        return answer

    monkeypatch.setattr("ingest.handlers.kinesis.respond", late)
    with pytest.raises(Violation, match="record 0 was acknowledged and is nowhere"):
        check(Plan("kinesis", (1, 2), (), (), 0, 60_000, 0))


def test_an_answer_of_a_stranger_is_seen(monkeypatch: pytest.MonkeyPatch):
    answer = {"batchItemFailures": [{"itemIdentifier": "7"}]}
    monkeypatch.setattr("ingest.handlers.kinesis.respond", lambda *_: answer)
    with pytest.raises(Violation, match="which is not in the batch"):
        check(PLAIN)


def test_a_stage_that_crashes_on_a_record_is_seen(monkeypatch: pytest.MonkeyPatch):
    def crash(*_: Any) -> Any:
        raise KeyError("temperature")

    monkeypatch.setattr(stages.landing, "write", crash)
    with pytest.raises(Violation, match="a stage raised KeyError"):
        check(PLAIN)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_hot_rows_that_are_not_written_are_seen(layout: str, monkeypatch: pytest.MonkeyPatch):
    def put_each(*_: Any, **__: Any) -> set[Any]:
        return set()

    monkeypatch.setattr("sinks.table.Table.put_each", put_each)
    with deployed(layout), pytest.raises(Violation, match="its item neither hot nor owed"):
        check(PLAIN)


def test_the_command_says_what_it_found(capsys: pytest.CaptureFixture[str]):
    assert main(["--events", "60", "--first-seed", "3", "--processes", "1"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("60 events, ")
    assert "seeds 3 to 3, 0 violations" in last
