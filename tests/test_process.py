"""A Delivery is archived, run and accounted for, with one log line and one flush of metrics."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, get_args

import pytest
from botocore.config import Config

from ingest import telemetry
from ingest.process import ANSWER_SECONDS, account, process
from ingest.settings import Wiring
from ingest.telemetry import Metric
from ingest.workflow import BotoExecutions, ExecutionFailed, Workflow
from sinks import raw
from sinks.bucket import Bucket
from sinks.errors import DeadlinePassed, Misconfigured, SinkError, Unavailable
from tests.support import (
    NOON,
    SECOND,
    Answer,
    Clock,
    Cloud,
    Context,
    delivery,
    drop,
    loopback,
    reading,
    s3_error,
    stall,
)
from transform.records import ConservationError, Outcome

INGEST = Context(180_000)
ONCE = Config(
    connect_timeout=1,
    read_timeout=0.2,
    retries={"total_max_attempts": 1},
    s3={"addressing_style": "path"},
)


@dataclass
class Runs:
    """A workflow that answers as told."""

    answer: Callable[[dict[str, Any]], dict[str, Any]]
    states: list[dict[str, Any]] = field(default_factory=list)
    timeouts: list[float] = field(default_factory=list)

    def run(self, state: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
        self.states.append(state)
        self.timeouts.append(timeout_seconds)
        return self.answer(state)


def counts(
    delivered: int = 0, quarantined: int = 0, retry: str = "[]", reason: str = ""
) -> dict[str, Any]:
    return {
        "outcome": "done" if retry == "[]" else "retry",
        "reason": reason,
        "delivered": delivered,
        "dropped": 0,
        "quarantined": quarantined,
        "retry": retry,
    }


def all_delivered(state: dict[str, Any]) -> dict[str, Any]:
    stage = {"millis": 12.5, "landing_bytes": 4_096}
    hot = {"millis": 7.5, "refused": 0}
    return state | {"account": counts(state["received"]), "transform": stage, "hot": hot}


def failing(error: SinkError) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def answer(_state: dict[str, Any]) -> dict[str, Any]:
        raise error

    return answer


@pytest.fixture
def clock() -> Clock:
    return Clock(NOON / SECOND + 2)


@pytest.fixture
def wiring(account: Cloud, clock: Clock) -> Wiring:
    made = account.wiring(clock)
    made.workflow = Runs(all_delivered)
    return made


@pytest.fixture(autouse=True)
def said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[], tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """The log lines and the metric flushes since last asked."""
    monkeypatch.setattr(telemetry.metrics.provider, "service", "millrace-telemetry")

    def lines() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return [t for t in told if "_aws" not in t], [t for t in told if "_aws" in t]

    return lines


# Telling


@pytest.mark.parametrize("size", [1, 2, 2_000])
def test_one_log_line_and_one_flush_whatever_the_size(wiring: Wiring, said: Any, size: int):
    process(delivery([reading(seq=n) for n in range(size)]), wiring, INGEST)
    logs, flushes = said()
    assert len(logs) == len(flushes) == 1
    assert len(json.dumps(logs)) < 1_500
    assert logs[0]["received"] == logs[0]["delivered"] == size


def test_the_log_line_says_what_became_of_it(wiring: Wiring, said: Any):
    process(delivery([reading(), reading(seq=1)]), wiring, INGEST)
    (log,), _ = said()
    assert (log["level"], log["message"]) == ("INFO", "delivery settled")
    assert (log["source"], log["stream"]) == ("kinesis", "millrace")
    assert (log["first"], log["last"]) == ("100", "101")
    assert log["raw_key"] == wiring.workflow.states[0]["raw_key"]
    assert (log["reason"], log["error"]) == ("", "")
    assert (log["received"], log["delivered"], log["quarantined"], log["retried"]) == (2, 2, 0, 0)


def test_the_metrics_are_those_that_are_declared(wiring: Wiring, said: Any):
    old, new = reading(), reading(seq=1)
    made = delivery([old, new])
    made.arrivals[:] = [NOON - 3 * SECOND, NOON]
    process(made, wiring, INGEST)
    _, (flush,) = said()
    (directive,) = flush["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "Millrace"
    assert directive["Dimensions"] == [["service"]]
    names = {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]}
    assert set(names) == set(get_args(Metric))
    for name, unit in names.items():
        timed = name.endswith(("Duration", "Age", "Freshness"))
        sized = name in ("Bytes", "LandingBytes")
        assert unit == ("Milliseconds" if timed else "Bytes" if sized else "Count")
    values = {name: flush[name][0] for name in names}
    assert values.pop("ArchiveDuration") > 0
    assert values.pop("TotalDuration") > 0
    assert values == {
        "Received": 2,
        "Delivered": 2,
        "Dropped": 0,
        "Quarantined": 0,
        "Retried": 0,
        "Bytes": len(old) + len(new),
        "IteratorAge": 5_000,
        "Freshness": 2_000,
        "TransformDuration": 12.5,
        "HotDuration": 7.5,
        "LandingBytes": 4_096,
        "HotRefused": 0,
        "HotOwed": 0,
        "NotTold": 0,
        "Killers": 0,
        "BreakerTripped": 0,
    }


def test_metrics_are_what_powertools_would_write(said: Any, monkeypatch: pytest.MonkeyPatch):
    values: dict[Any, float]
    units = {"LandingBytes": "Bytes", "HotDuration": "Milliseconds", "IteratorAge": "Milliseconds"}
    for number in range(3):
        values = {"Received": 2, "LandingBytes": 4_096, "HotDuration": number / 2, "IteratorAge": 0}
        telemetry.flush(values)
        for name, value in values.items():
            telemetry.metrics.add_metric(name, units.get(name, "Count"), value)
        telemetry.metrics.flush_metrics()
        _, (own, theirs) = said()
        moments = [of["_aws"].pop("Timestamp") for of in (own, theirs)]
        assert 0 <= moments[1] - moments[0] < 60_000
        assert json.dumps(own) == json.dumps(theirs)
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
    telemetry.flush(values)
    assert said() == ([], [])


def test_each_flush_starts_from_nothing(wiring: Wiring, said: Any):
    for _ in range(3):
        process(delivery([reading()]), wiring, INGEST)
    _, flushes = said()
    assert [flush["Received"] for flush in flushes] == [[1.0]] * 3


def test_arrivals_ahead_of_the_clock_make_no_negative_age(wiring: Wiring, said: Any):
    process(delivery([reading()], arrival=NOON + 60 * SECOND), wiring, INGEST)
    _, (flush,) = said()
    assert flush["IteratorAge"] == flush["Freshness"] == [0]


# What is sent


def test_the_workflow_is_given_pointers_and_the_deadline(
    account: Cloud, wiring: Wiring, clock: Clock
):
    made = delivery([reading(), b"\xff"])
    assert process(made, wiring, INGEST) == Outcome(2, 2, 0, 0, ())
    (state,) = wiring.workflow.states
    assert raw.read(account.bucket, state["raw_key"]).equals(made.table())
    assert state["deadline_ms"] == round((clock.now + 180 - ANSWER_SECONDS) * 1000)
    assert wiring.workflow.timeouts == [pytest.approx(180 - ANSWER_SECONDS)]
    assert len(json.dumps(state)) < 1_000


def test_what_the_workflow_hands_back_is_handed_back(wiring: Wiring, said: Any):
    told = counts(2, 1, "[[1, 2], [4, 5]]", "hot_refused")
    wiring.workflow = Runs(lambda state: state | {"account": told})
    outcome = process(delivery([reading()] * 5), wiring, INGEST)
    assert outcome == Outcome(5, 2, 0, 1, ((1, 2), (4, 5)))
    (log,), (flush,) = said()
    assert (log["message"], log["reason"]) == ("delivery not settled", "hot_refused")
    assert flush["Retried"] == [2]


# Weather


@pytest.mark.parametrize(
    ("weather", "reason"),
    [
        (s3_error(503, "SlowDown"), "unavailable"),
        (stall, "unavailable"),
        (drop, "unavailable"),
        (s3_error(404, "NoSuchBucket"), "misconfigured"),
        (s3_error(403, "AccessDenied"), "misconfigured"),
    ],
)
def test_what_cannot_be_archived_is_handed_back_and_not_run(
    wiring: Wiring, said: Any, weather: Answer, reason: str
):
    with loopback(weather) as server:
        wiring.bucket = Bucket(server.client("s3", ONCE), "bucket")
        assert process(delivery([reading()] * 3), wiring, INGEST) == Outcome.all_retry(3)
    assert wiring.workflow.states == []
    (log,), (flush,) = said()
    assert (log["level"], log["message"]) == ("WARNING", "delivery not settled")
    assert (log["reason"], log["raw_key"], log["retried"]) == (reason, "", 3)
    assert log["error"].startswith("put s3://bucket/raw/")
    assert (flush["Received"], flush["Retried"], flush["Delivered"]) == ([3], [3], [0])


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Unavailable("no answer"), "unavailable"),
        (ExecutionFailed("TIMED_OUT"), "workflow_failed"),
        (Misconfigured("no such state machine"), "misconfigured"),
        (DeadlinePassed("too late"), "deadline"),
    ],
)
def test_a_workflow_that_fails_hands_everything_back(
    account: Cloud, wiring: Wiring, said: Any, error: SinkError, reason: str
):
    wiring.workflow = Runs(failing(error))
    assert process(delivery([reading()] * 3), wiring, INGEST) == Outcome.all_retry(3)
    (log,), (flush,) = said()
    assert [log["raw_key"]] == account.keys()
    assert (log["reason"], log["error"]) == (reason, str(error))
    assert flush["Retried"] == [3]


def test_the_time_of_a_failed_workflow_is_not_the_archives(wiring: Wiring, said: Any):
    def slow(_state: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.3)
        raise Unavailable("no answer")

    wiring.workflow = Runs(slow)
    process(delivery([reading()]), wiring, INGEST)
    _, (flush,) = said()
    assert flush["ArchiveDuration"][0] < 250
    assert flush["TotalDuration"][0] >= 300


# The deadline


@pytest.mark.parametrize("remaining_ms", [0, 2_999, 3_000])
def test_without_time_nothing_is_begun(
    account: Cloud, wiring: Wiring, said: Any, remaining_ms: int
):
    outcome = process(delivery([reading()]), wiring, Context(remaining_ms))
    assert outcome == Outcome.all_retry(1)
    assert account.keys() == []
    assert wiring.workflow.states == []
    (log,), _ = said()
    assert log["reason"] == "deadline"


def test_an_archive_that_took_all_the_time_is_not_followed_by_a_workflow(
    account: Cloud, wiring: Wiring, clock: Clock, said: Any
):
    class Slow:
        def put_object(self, **call: Any) -> None:
            clock.now += 100
            account.s3.put_object(**call)

        def get_object(self, **call: Any) -> Any:
            return account.s3.get_object(**call)

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("a client was made")

    wiring.bucket = Bucket(Slow(), wiring.bucket.name)
    wiring.workflow = Workflow(BotoExecutions(never), "arn")
    assert process(delivery([reading()]), wiring, Context(60_000)) == Outcome.all_retry(1)
    (log,), _ = said()
    assert (log["reason"], [log["raw_key"]]) == ("deadline", account.keys())


# Defects raise, so that the mapping retries the batch whole


@pytest.mark.parametrize(
    "told",
    [
        counts(2),
        counts(4),
        counts(0),
        counts(3, 1),
        counts(4, -1),
        counts(2, 0, "[[0, 2]]"),
        counts(2, 0, "[[3, 4]]"),
        counts(2, 0, "[[2, 2], [1, 2]]"),
        counts(1, 0, "[[1, 2], [0, 1]]"),
        counts(1, 0, "[[0, 1], [0, 1]]"),
    ],
)
def test_counts_that_do_not_add_up_raise(wiring: Wiring, told: dict[str, Any]):
    wiring.workflow = Runs(lambda state: state | {"account": told})
    with pytest.raises(ConservationError):
        process(delivery([reading()] * 3), wiring, INGEST)


@pytest.mark.parametrize("output", [{}, {"account": {}}, {"account": {"delivered": 1}}])
def test_an_output_without_an_account_raises(wiring: Wiring, output: dict[str, Any]):
    wiring.workflow = Runs(lambda _: output)
    with pytest.raises(KeyError):
        process(delivery([reading()]), wiring, INGEST)


def test_the_account_is_checked_against_what_was_received_here():
    told = {"received": 2, "account": counts(2)}
    assert account(told, 2) == Outcome(2, 2, 0, 0, ())
    with pytest.raises(ConservationError):
        account(told, 3)


def test_a_defect_of_the_workflow_is_not_taken_for_weather(wiring: Wiring):
    def defect(_state: dict[str, Any]) -> dict[str, Any]:
        raise ZeroDivisionError

    wiring.workflow = Runs(defect)
    with pytest.raises(ZeroDivisionError):
        process(delivery([reading()]), wiring, INGEST)
