"""Law 9: when nearly everything is bad, nothing is quarantined and the mapping stops."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from operator import add
from typing import Any

import pyarrow as pa
import pytest
from botocore.config import Config
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest import breaker, kinesis, sqs
from ingest.breaker import Accepted, Breaker, Finding, Mapping, RejectLimits, Sample, Tripped
from ingest.environment import SettingsError
from ingest.process import process
from ingest.settings import Settings, Wiring
from ingest.stages import transform, write_hot
from sinks.deadline import Deadline
from tests.support import (
    NOON,
    SECOND,
    TOPOLOGY,
    Clock,
    Cloud,
    Context,
    InProcessWorkflow,
    answer,
    delivery,
    json_error,
    loopback,
    reading,
)
from transform.contract_file import load_contract
from transform.kpl import aggregate
from transform.pipeline import Transform
from transform.records import Delivery, Outcome

INGEST = Context(180_000)
ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/millrace"
PIPELINE = "millrace-telemetry"
RULES = Transform(load_contract("telemetry"))
BAD = reading(device_id=7)
ONCE = Config(retries={"total_max_attempts": 1})
MAPPING = Mapping("kinesis", "millrace", ARN, TOPOLOGY.ingest_stream.name)
ON = "00000000-0000-0000-0000-000000000001"
LISTED = json.dumps(
    {
        "EventSourceMappings": [
            {"UUID": ON, "State": "Enabled"},
            {"UUID": "off", "State": "Disabled"},
            {"UUID": "going", "State": "Disabling"},
        ]
    }
).encode()


def some(bad: int, good: int = 0, keys: int = 10, arrival: int = NOON) -> Delivery:
    """So many bad and good records, dealt to so many partition keys."""
    made = delivery([BAD] * bad + [reading(seq=n) for n in range(good)], arrival)
    made.groups[:] = [f"device-{number % keys}" for number in range(len(made))]
    return Delivery(**{**vars(made), "source_arn": ARN})


def sample(made: Delivery, since: int = 0, first: int = 0) -> Sample:
    return Sample.of("telemetry", RULES.apply(made.table(), "raw", first), 10, since)


def judged(made: Delivery, limits: RejectLimits | None = None, since: int = 0) -> Finding | None:
    return sample(made, since).judged(limits or RejectLimits())


# The judgement


@pytest.mark.parametrize(
    ("bad", "good", "keys", "trips"),
    [
        (1, 0, 1, False),
        (199, 0, 199, False),
        (200, 0, 9, False),
        (200, 0, 10, True),
        (100, 100, 10, False),
        (101, 100, 10, True),
        (0, 5_000, 10, False),
        (2_501, 2_499, 1_000, True),
    ],
)
def test_where_the_breaker_trips(bad: int, good: int, keys: int, trips: bool):  # noqa: FBT001
    found = judged(some(bad, good, keys))
    want = Finding("telemetry", bad + good, bad, "wrong_type (device_id)")
    assert found == (want if trips else None)


def test_the_limits_are_settings():
    assert judged(some(2, 8), RejectLimits(0.2, 10, 10)) is None
    assert judged(some(3, 7), RejectLimits(0.2, 10, 3)) is not None
    assert judged(some(3, 7), RejectLimits(0.2, 10, 4)) is None
    assert judged(some(3, 6), RejectLimits(0.2, 10, 3)) is None
    assert judged(some(10), RejectLimits(1.0, 1, 1)) is None


def test_a_queue_has_no_partition_keys_and_each_message_counts():
    made = some(200)
    made.groups[:] = [None] * 200
    assert judged(made) is not None
    made.groups[:] = ["group"] * 200
    assert judged(made) is None


def packed(bad: int, good: int, records: int, keys: int = 10) -> Delivery:
    """KPL aggregates, each of so many bad and good members of so many devices."""
    bodies = [BAD] * bad + [reading(seq=n) for n in range(good)]
    members = [(f"device-{n % keys}", body) for n, body in enumerate(bodies)]
    return delivery([aggregate(members)] * records)


@pytest.mark.parametrize(
    ("made", "trips"),
    [
        (packed(100, 0, 2), True),
        (packed(100, 0, 1), False),
        (packed(200, 0, 1, keys=9), False),
        (packed(200, 0, 1, keys=200), True),
        (packed(1, 99, 300), False),
        (packed(60, 40, 300), True),
    ],
)
def test_of_aggregates_the_producers_records_count_and_their_keys(made: Delivery, trips: bool):  # noqa: FBT001
    assert (judged(made) is not None) == trips


def test_one_device_that_sends_nothing_but_rejects_is_no_broken_world():
    made = some(300, 100)
    made.groups[:300] = ["device-0"] * 300
    assert judged(made) is None


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=8))
@settings(max_examples=30, deadline=None)
def test_parts_are_judged_together_as_the_whole_is(spec: list[tuple[int, int]]):
    parts = [some(bad, good) for bad, good in spec]
    first, samples = 0, []
    for part in parts:
        samples.append(Sample.of_text(sample(part, first=first).to_text()))
        first += len(part)
    whole = delivery([body for part in parts for body in part.bodies])
    whole.groups[:] = [group for part in parts for group in part.groups]
    assert reduce(add, samples) == sample(whole)


def test_what_arrived_before_the_time_does_not_count():
    made = some(400)
    made.arrivals[:200] = [NOON - 1] * 200
    assert judged(made, since=NOON) == Finding("telemetry", 200, 200, "wrong_type (device_id)")
    made.arrivals[:201] = [NOON - 1] * 201
    assert judged(made, since=NOON) is None
    assert judged(made, since=NOON + 1) is None


def test_the_top_reason_is_the_commonest():
    made = some(201)
    made.bodies[:101] = [b"{"] * 101
    found = judged(made)
    assert found is not None
    assert found.top_reason == "malformed_json"
    assert str(found) == "201 of 201 records break contract telemetry, most for malformed_json"


# Settings


def test_limits_come_from_the_environment():
    environment = dict(TOPOLOGY.transform.environment)
    assert Settings.of(environment).breaker == RejectLimits(0.5, 200, 10)
    environment |= {"MILLRACE_REJECT_RATIO_MAX": "0.9", "MILLRACE_REJECT_RECORDS_MIN": "50"}
    environment["MILLRACE_REJECT_KEYS_MIN"] = "1"
    assert Settings.of(environment).breaker == RejectLimits(0.9, 50, 1)


@pytest.mark.parametrize("value", ["", "-0.1", "1.1", "half", "nan"])
def test_a_ratio_that_is_none_is_named(value: str):
    environment = TOPOLOGY.transform.environment
    with pytest.raises(SettingsError, match=r"MILLRACE_REJECT_RATIO_MAX is .*, not 0 to 1"):
        Settings.of({**environment, "MILLRACE_REJECT_RATIO_MAX": value})


# Stopping the mapping


FOUND = Finding("telemetry", 200, 200, "wrong_type (device_id)")


def trip(account: Cloud, lambdas: Any, seconds: float = 60) -> None:
    clock = Clock()
    stop = Breaker(account.bucket, lambdas, PIPELINE)
    stop.trip(FOUND, MAPPING, clock.now, Deadline(clock.now + seconds, clock))


def test_the_mapping_is_found_by_function_and_source_and_disabled(account: Cloud):
    with loopback(answer(200, LISTED), answer(202, b"{}")) as server:
        trip(account, server.client("lambda", ONCE))
        (asked, _), (told, body) = server.requests
    assert asked.startswith("GET /2015-03-31/event-source-mappings")
    assert f"FunctionName={MAPPING.function}" in asked
    assert "EventSourceArn=arn%3Aaws%3Akinesis" in asked
    assert told == f"PUT /2015-03-31/event-source-mappings/{ON}"
    assert json.loads(body) == {"Enabled": False}
    want = Tripped("kinesis", "millrace", "2026-11-24T12:00:00+00:00", FOUND)
    assert breaker.tripped(account.bucket, PIPELINE, "kinesis") == want
    assert breaker.tripped(account.bucket, PIPELINE, "sqs") is None
    breaker.reset(account.bucket, PIPELINE, "kinesis")
    assert breaker.tripped(account.bucket, PIPELINE, "kinesis") is None


@pytest.mark.parametrize(
    "weather",
    [
        json_error(403, "AccessDeniedException"),
        json_error(429, "TooManyRequestsException"),
        json_error(409, "ResourceInUseException"),
    ],
)
def test_a_mapping_that_cannot_be_disabled_is_told_and_stops_nothing(
    account: Cloud, weather: Any, capsys: pytest.CaptureFixture[str]
):
    with loopback(weather) as server:
        trip(account, server.client("lambda", ONCE))
        assert server.requests
    assert breaker.tripped(account.bucket, PIPELINE, "kinesis") is not None
    capsys.readouterr()


def test_after_the_deadline_nothing_is_begun(account: Cloud):
    with loopback(answer(200, LISTED)) as server:
        trip(account, server.client("lambda", ONCE), seconds=0)
        assert server.requests == []
    assert account.keys("control/") == []


# On the whole path


@dataclass
class Path:
    account: Cloud
    wiring: Wiring
    stops: list[Mapping]


@pytest.fixture
def path(account: Cloud) -> Iterator[Path]:
    wiring = account.wiring()
    workflow = InProcessWorkflow(
        TOPOLOGY,
        {
            TOPOLOGY.transform.name: lambda state, context: transform(state, wiring, context),
            TOPOLOGY.hot.name: lambda state, context: write_hot(state, wiring, context),
        },
        account.dynamodb,
    )
    wiring.workflow = workflow  # type: ignore[assignment]
    script = [answer(200, LISTED), answer(202, b"{}")]
    with loopback(*script) as server:
        wiring.breaker = Breaker(account.bucket, server.client("lambda", ONCE), PIPELINE)
        yield Path(account, wiring, [])


def test_an_all_bad_delivery_goes_back_and_nothing_is_quarantined(
    path: Path, capsys: pytest.CaptureFixture[str]
):
    made = some(300)
    capsys.readouterr()
    outcome = process(made, path.wiring, INGEST)
    assert outcome == Outcome.all_retry(300)
    assert kinesis.respond(made, outcome) == {"batchItemFailures": [{"itemIdentifier": "100"}]}
    assert path.account.keys("quarantine/") == path.account.keys("landing/") == []
    stop = breaker.tripped(path.account.bucket, PIPELINE, "kinesis")
    assert stop is not None
    assert stop.finding == Finding("telemetry", 300, 300, "wrong_type (device_id)")
    flushes = [line for line in capsys.readouterr().out.splitlines() if "_aws" in line]
    assert [json.loads(line)["BreakerTripped"] for line in flushes] == [[1.0]]


def test_a_batch_of_one_bad_record_never_trips(path: Path):
    for _ in range(3):
        assert process(some(1), path.wiring, INGEST) == Outcome(1, 0, 0, 1, ())
    assert path.account.keys("control/") == []


def test_what_an_operator_accepts_is_quarantined(path: Path):
    made = some(300)
    assert process(made, path.wiring, INGEST) == Outcome.all_retry(300)
    breaker.accept(path.account.bucket, PIPELINE, Accepted("another", NOON + SECOND))
    assert process(made, path.wiring, INGEST) == Outcome.all_retry(300)
    breaker.accept(path.account.bucket, PIPELINE, Accepted("telemetry", NOON))
    assert process(made, path.wiring, INGEST) == Outcome.all_retry(300)
    breaker.accept(path.account.bucket, PIPELINE, Accepted("telemetry", NOON + 1))
    assert process(made, path.wiring, INGEST) == Outcome(300, 0, 0, 300, ())
    assert process(some(300, arrival=NOON + 1), path.wiring, INGEST) == Outcome.all_retry(300)


def test_killers_are_set_aside_without_asking_the_breaker(path: Path):
    made = some(300)
    key = process(made, path.wiring, INGEST)
    assert key.retried == 300
    state = path.wiring.workflow.inputs[-1]  # type: ignore[attr-defined]
    told = transform(state | {"unread": "a test"}, path.wiring, Context())
    assert told["account"]["quarantined"] == 300


# Readers


def events(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"Records": [*records]}


def test_readers_keep_the_arn_of_the_source_and_archive_it_not():
    moment = datetime.fromtimestamp(NOON / SECOND, UTC).timestamp()
    shard = {
        "eventSource": "aws:kinesis",
        "eventSourceARN": ARN,
        "eventID": "shardId-000000000000:7",
        "kinesis": {
            "sequenceNumber": "7",
            "partitionKey": "k",
            "approximateArrivalTimestamp": moment,
            "data": "e30=",
        },
    }
    message = {
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:0:fleet",
        "messageId": "m",
        "receiptHandle": "r",
        "body": "{}",
        "attributes": {"SentTimestamp": str(NOON // 1_000)},
    }
    read = kinesis.read(events([shard]))
    assert (read.stream, read.source_arn) == ("millrace", ARN)
    assert isinstance(read.table(), pa.Table)
    queued = sqs.read(events([message]))
    assert (queued.stream, queued.source_arn) == ("fleet", "arn:aws:sqs:us-east-1:0:fleet")
