"""Replay: what was set aside or parked runs again, under its own position and arrival."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ingest import audit
from ingest import replay as replays
from ingest.audit import Choice, resolved
from ingest.parking import Parking
from ingest.replay import Pace, Report, preview
from ingest.workflow import ExecutionFailed
from sinks import landing, ledger, raw
from tests.edge import HOT, SHARD, STREAM, WIDER, Crash, Edge, document, rules
from tests.support import (
    NOON,
    SECOND,
    client,
    reading,
)
from transform.kpl import aggregate


@pytest.fixture
def wider(tmp_path) -> str:
    """The telemetry contract, mended: it takes temperatures up to 500."""
    return rules(tmp_path, WIDER)


# Quarantine


def test_a_reject_passes_a_mended_contract_under_its_own_position_and_arrival(
    edge: Edge, wider: str
) -> None:
    edge.ingest([reading(seq=1), reading(seq=2, **HOT), b"no"], NOON + 7)
    edge.deploy(wider)
    edge.clock.now += 86_400
    report = edge.replay()
    assert (report.chosen, report.delivered, report.quarantined) == (2, 1, 1)
    rows = edge.delivered().sort_by("_sequence").to_pylist()
    assert [(row["_stream"], row["_shard"], row["_sequence"]) for row in rows] == [
        (STREAM, SHARD, "100"),
        (STREAM, SHARD, "101"),
    ]
    assert len({row["_arrival"] for row in rows}) == 1
    assert [row["_sequence"] for row in edge.open()] == ["102"]
    replayed = raw.read(edge.account.bucket, rows[1]["_raw"])
    assert replayed.column("_partition_key").to_pylist() == ["sensor", "sensor"]
    assert len(edge.account.items()) == 2
    assert resolved(edge.account.bucket) == {(STREAM, SHARD, "101"): "run-1"}


def test_an_aggregate_with_one_bad_element_stays_whole(edge: Edge, wider: str) -> None:
    members = [("k", reading(seq=n, **(HOT if n == 1 else {}))) for n in range(3)]
    edge.ingest([aggregate(members)])
    assert (edge.delivered().num_rows, len(edge.open())) == (2, 1)
    edge.deploy(wider)
    assert edge.replay().delivered == 1
    rows = edge.delivered()
    assert (sorted(rows.column("_sub").to_pylist()), edge.open()) == ([0, 1, 2], [])
    assert len(rows.column("_generation").unique()) == 1


def test_a_second_run_does_nothing(edge: Edge, wider: str) -> None:
    edge.ingest([reading(seq=1, **HOT), b"no"])
    edge.deploy(wider)
    edge.replay()
    before = edge.account.keys("raw/"), edge.account.keys("landing/")
    again = edge.replay("run-2")
    assert (again.chosen, again.skipped) == (0, 1)  # what these rules have judged is left alone
    assert (edge.account.keys("raw/"), edge.account.keys("landing/")) == before


def test_filters_choose_by_reason_field_arrival_and_number(edge: Edge, wider: str) -> None:
    edge.ingest([reading(seq=1, **HOT), b"no", reading(seq=-1)])
    edge.ingest([reading(seq=2, **HOT)], NOON + 60 * SECOND, first=200)
    edge.deploy(wider)

    def chosen(**choice: Any) -> int:
        rules = edge.wiring.transform(0)
        told = preview(edge.wiring, edge.parking(), Choice(**choice), rules)
        return int(told["chosen"])

    assert chosen() == 4
    assert chosen(reason="out_of_range") == 3
    assert chosen(field="temperature") == 2
    assert chosen(since=NOON + SECOND) == 1
    assert chosen(until=NOON + SECOND) == 3
    assert chosen(limit=2) == 2
    assert chosen(origins=("dead-letters",)) == 0


def test_a_dry_run_shows_what_changes_and_writes_nothing(edge: Edge, wider: str) -> None:
    edge.ingest([reading(seq=1, **HOT), b"no", reading(seq=-1, **HOT)])
    edge.park([reading(seq=9)])
    before = edge.account.keys()
    rules = edge.deploy(wider).transform(0)
    told = preview(edge.wiring, edge.parking(), Choice(), rules)
    assert edge.account.keys() == before
    assert len(edge.inputs) == 1  # the ingest's own
    assert (told["chosen"], told["would_pass"], told["would_fail"]) == (3, 1, 2)
    assert told["skipped"] == 1  # position 100 is parked, and has a fate besides
    changes = {change["before"]: change["now"] for change in told["changes"]}
    assert changes["check/out_of_range/temperature"] == "delivered"
    assert changes["decode/malformed_json"] == "decode/malformed_json"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_in_the_middle_is_gone_on_with(
    edge: Edge, wider: str, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr(replays, "CHUNK_RECORDS", 2)
    edge.ingest([reading(seq=n, **HOT) for n in range(6)])
    edge.deploy(wider)
    real: Callable[..., dict[str, Any]] = edge.workflow.run
    runs: list[str] = []

    def crashing(state: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
        runs.append(state["raw_key"])
        if when == "after":
            output = real(state, timeout_seconds)
        if len(runs) == 2:
            raise Crash
        return output if when == "after" else real(state, timeout_seconds)

    monkeypatch.setattr(edge.workflow, "run", crashing)
    with pytest.raises(Crash):
        edge.replay()
    report = edge.replay(limit=None)
    assert report.delivered == (2 if when == "after" else 4)
    assert (edge.delivered().num_rows, edge.open()) == (6, [])
    done = audit.choice_of(edge.account.bucket, "run-1")
    assert done == Choice()


def test_a_rate_is_kept_and_errors_stop_it(
    edge: Edge, wider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "CHUNK_RECORDS", 2)
    edge.ingest([reading(seq=n, **HOT) for n in range(6)] + [b"no"] * 6)
    edge.deploy(wider)
    began = edge.clock.now
    report = edge.replay(pace=Pace(per_second=2, errors_max=3))
    assert (report.delivered, report.quarantined) == (6, 4)
    assert report.stopped == "4 records were not delivered"
    assert edge.clock.now - began == pytest.approx(4.0)


def test_weather_hands_back_and_the_same_run_can_go_on(
    edge: Edge, wider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge.ingest([reading(seq=1, **HOT)])
    edge.deploy(wider)

    def failing(*_: Any, **__: Any) -> dict[str, Any]:
        raise ExecutionFailed("FAILED")

    with monkeypatch.context() as patch:
        patch.setattr(edge.workflow, "run", failing)
        report = edge.replay()
        assert (report.retry, report.delivered) == (1, 0)
        assert report.problems == ["handed back: workflow_failed"]
    assert resolved(edge.account.bucket) == {}
    assert edge.replay().delivered == 1


# Parked


def test_an_on_failure_object_is_replayed_once_and_stays(edge: Edge) -> None:
    key = edge.park([reading(seq=1), b"no", reading(seq=2)])
    report = edge.replay()
    assert (report.delivered, report.quarantined) == (2, 1)
    assert edge.account.keys("on-failure/") == [key]
    assert {row["_arrival"].timestamp() for row in edge.delivered().to_pylist()} == {NOON / SECOND}
    again = edge.replay("run-2")
    assert (again.chosen, again.skipped) == (0, 4)  # three have a fate, one is as it was judged


def test_what_only_landed_before_it_was_parked_is_run_again(edge: Edge) -> None:
    """An attempt that ended when it had landed told of nothing, and owes no hot item."""
    edge.land([reading()])
    edge.park([reading()])
    assert edge.fates().places() == {(STREAM, SHARD, "100")}
    assert edge.replay().delivered == 1
    assert len(edge.account.items()) == 1
    assert edge.replay("run-2").skipped == 1


def test_of_other_streams_nothing_is_taken(edge: Edge) -> None:
    told = document([reading()], payload=True)
    told["KinesisBatchInfo"]["streamArn"] = "arn:aws:kinesis:us-east-1:0:stream/other"
    edge.account.bucket.put("on-failure/x", json.dumps(told).encode())
    assert edge.replay().chosen == 0


def test_what_aws_did_not_write_is_named(edge: Edge) -> None:
    edge.account.bucket.put("on-failure/x", b"[]")
    assert edge.replay().problems == ["on-failure/x is no on-failure document"]


def test_dead_letters_are_deleted_only_after_a_fate(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqs = client("sqs")
    url = sqs.create_queue(QueueName="dead")["QueueUrl"]
    sent = [sqs.send_message(QueueUrl=url, MessageBody=reading(seq=n).decode()) for n in range(3)]
    sqs.send_message(QueueUrl=url, MessageBody="no")

    def run(name: str) -> Report:
        parking = edge.parking(sqs=sqs, letters={"millrace-telemetry": url})
        return replays.replay(edge.wiring, parking, Choice(), name)

    def waiting() -> int:
        name = "ApproximateNumberOfMessages"
        told = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])
        return int(told["Attributes"][name])

    def failing(*_: Any, **__: Any) -> dict[str, Any]:
        raise ExecutionFailed("FAILED")

    with monkeypatch.context() as patch:
        patch.setattr(edge.workflow, "run", failing)
        report = run("run-1")
        assert (report.retry, report.letters_deleted, waiting()) == (4, 0, 4)
    report = run("run-1")
    assert (report.delivered, report.quarantined, report.letters_deleted) == (3, 1, 4)
    assert waiting() == 0
    rows = edge.delivered().to_pylist()
    assert {row["_sequence"] for row in rows} == {one["MessageId"] for one in sent}
    assert {(row["_stream"], row["_shard"]) for row in rows} == {("millrace-telemetry", "")}


def test_a_crash_leaves_the_letters_and_the_next_run_deletes_them(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqs = client("sqs")
    attributes = {"VisibilityTimeout": "0"}
    url = sqs.create_queue(QueueName="dead", Attributes=attributes)["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody=reading().decode())
    monkeypatch.setattr("ingest.parking.HIDDEN_SECONDS", 0)

    def run(name: str) -> Report:
        parking = edge.parking(sqs=sqs, letters={"millrace-telemetry": url})
        return replays.replay(edge.wiring, parking, Choice(), name)

    def crash(*_: Any) -> int:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(Parking, "settle", crash)
        with pytest.raises(Crash):
            run("run-1")
    report = run("run-1")
    assert (report.delivered, report.skipped, report.letters_deleted) == (0, 1, 1)


@pytest.mark.parametrize("envelope", ["sqs", "sns"])
def test_what_a_letter_only_points_at_is_rescued_from_the_stream(edge: Edge, envelope: str) -> None:
    kinesis, sqs = client("kinesis"), client("sqs")
    kinesis.create_stream(StreamName=STREAM, ShardCount=1)
    put = [
        kinesis.put_record(StreamName=STREAM, Data=reading(seq=n), PartitionKey=f"key-{n}")
        for n in range(4)
    ]
    told = document([b""] * 2, payload=False)
    told["KinesisBatchInfo"] |= {
        "startSequenceNumber": put[1]["SequenceNumber"],
        "endSequenceNumber": put[2]["SequenceNumber"],
        "shardId": put[1]["ShardId"],
    }
    text = json.dumps(told)
    if envelope == "sns":
        text = json.dumps({"Type": "Notification", "Message": text})
    url = sqs.create_queue(QueueName="dead")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody=text)
    edge.clock.now = 4_000_000_000.0  # moto stamps arrivals by the machine's own clock
    parking = edge.parking(sqs=sqs, kinesis=kinesis, letters={"millrace-telemetry": url})
    report = replays.replay(edge.wiring, parking, Choice(), "run-1")
    assert (report.chosen, report.missing, report.letters_deleted) == (2, 0, 1)
    (key,) = edge.account.keys("raw/")
    rows = raw.read(edge.account.bucket, key).to_pylist()
    assert [row["_sequence"] for row in rows] == [one["SequenceNumber"] for one in put[1:3]]
    assert [row["_partition_key"] for row in rows] == ["key-1", "key-2"]
    assert [row["_source"] for row in rows] == ["kinesis"] * 2


def test_what_the_stream_no_longer_has_is_told_and_its_letter_stays(edge: Edge) -> None:
    kinesis, sqs = client("kinesis"), client("sqs")
    kinesis.create_stream(StreamName=STREAM, ShardCount=1)
    url = sqs.create_queue(QueueName="dead")["QueueUrl"]
    text = json.dumps(document([b""] * 2, payload=False))
    letter = sqs.send_message(QueueUrl=url, MessageBody=text)["MessageId"]
    parking = edge.parking(sqs=sqs, kinesis=kinesis, letters={"millrace-telemetry": url})
    report = replays.replay(edge.wiring, parking, Choice(), "run-1")
    assert (report.missing, report.letters_deleted) == (2, 0)
    assert report.problems == [
        f"dead letter {letter}: 2 of 2 records are no longer in {STREAM}",
    ]


def test_the_ledger_knows_every_replay(edge: Edge, wider: str) -> None:
    edge.ingest([reading(seq=1, **HOT)])
    edge.deploy(wider)
    edge.replay()
    told = [a.outcome for a in ledger.attempts(edge.account.ledger)]
    assert told == ["done", "done"]
    assert len(edge.account.keys("landing/")) == 1
    assert landing.read(edge.account.bucket, edge.account.keys("landing/")[0]).num_rows == 1
