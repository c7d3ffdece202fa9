"""What the hot table refuses is owed, durably, and paid exactly, whatever happens (law 6)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, get_args

import pytest
from botocore.config import Config

from ingest import kinesis, sqs, stages
from ingest.events import EventError
from ingest.process import process
from ingest.repair import pay, read, respond
from ingest.settings import Wiring
from ingest.telemetry import RepairMetric
from sinks import contracts, control, hot, landing, ledger, repair
from sinks.bucket import Bucket
from sinks.contracts import Contracts
from sinks.deadline import Deadline
from sinks.errors import Misconfigured, Unavailable
from sinks.queue import BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, Queue
from sinks.repair import DEBT_ROWS_MAX, Debt, DebtError, Limits, debt_of, debts_of, spans
from sinks.table import Table
from tests.support import (
    NOON,
    SECOND,
    SETTINGS,
    TOPOLOGY,
    Answer,
    Clock,
    Cloud,
    Context,
    InProcessWorkflow,
    answer,
    delivery,
    drop,
    json_error,
    loopback,
    reading,
    stall,
)
from transform.contract_file import load_contract, parse_contract
from transform.pipeline import Transform
from transform.records import Delivery

TELEMETRY = load_contract("telemetry")
ONCE = Config(connect_timeout=1, read_timeout=0.2, retries={"total_max_attempts": 1})
INGEST = Context(180_000)
DAY = 86_400 * SECOND
BAD = "hot-device"


class Refusing:
    """A DynamoDB client that leaves the items of some devices unprocessed, until it is mended."""

    def __init__(self, real: Any, *devices: str) -> None:
        self.real = real
        self.devices = set(devices)

    def batch_write_item(self, RequestItems: dict[str, Any]) -> Any:  # noqa: N803
        ((name, puts),) = RequestItems.items()
        left = [p for p in puts if p["PutRequest"]["Item"]["device_id"]["S"] in self.devices]
        if taken := [put for put in puts if put not in left]:
            self.real.batch_write_item(RequestItems={name: taken})
        return {"UnprocessedItems": {name: left} if left else {}}


class Sending:
    """An SQS client whose sends are done as told; all else is the real one's."""

    def __init__(self, real: Any, send: Callable[..., Any]) -> None:
        self.real = real
        self.send_message_batch = send

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@pytest.fixture
def clock() -> Clock:
    return Clock(NOON / SECOND + 2)


@pytest.fixture
def wiring(account: Cloud, clock: Clock) -> Wiring:
    return wired(account, clock)


def wired(account: Cloud, clock: Clock, **changes: Any) -> Wiring:
    """A wiring whose workflow runs the stages in this process."""
    made = account.wiring(clock, **changes)
    made.workflow = InProcessWorkflow(  # type: ignore[assignment]
        TOPOLOGY,
        {
            TOPOLOGY.transform.name: lambda s, c: stages.transform(s, made, c),
            TOPOLOGY.hot.name: lambda s, c: stages.write_hot(s, made, c),
        },
        account.dynamodb,
    )
    return made


def fleet(bad: int, good: int) -> list[bytes]:
    """Readings of one device that will be refused, among those of others."""
    bodies = [reading(f"sensor-{n}") for n in range(good)]
    bodies[1:1] = [reading(BAD, seq=n, moment=NOON + n * SECOND) for n in range(bad)]
    return bodies


def refuse(wiring: Wiring, *devices: str) -> Refusing:
    client = Refusing(wiring.hot_table.client, *devices)
    wiring.hot_table = Table(client, wiring.hot_table.name)  # type: ignore[arg-type]
    return client


def messages(account: Cloud) -> dict[str, str]:
    """What is in the repair queue, by message id; it stays there."""
    url = account.repairs.url
    found: list[dict[str, str]] = []
    while more := account.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        found += more
    for message in found:
        account.sqs.change_message_visibility(
            QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
        )
    return {message["MessageId"]: message["Body"] for message in found}


def bodies_of(account: Cloud) -> list[Debt]:
    return [debt_of(body) for body in messages(account).values()]


def wanted(account: Cloud) -> set[tuple[str, str]]:
    """The keys that the landed rows ask for."""
    keys = account.keys("landing/")
    return {k for key in keys for k in hot.keys_of(landing.read(account.bucket, key), TELEMETRY)}


def attempt(account: Cloud) -> ledger.Attempt:
    (made,) = ledger.attempts(account.ledger)
    return made


# Owing


def test_a_refused_partition_is_owed_while_the_rest_flows(account: Cloud, wiring: Wiring):
    refuse(wiring, BAD)
    made = delivery(fleet(bad=2, good=18))
    outcome = process(made, wiring, INGEST)
    assert (outcome.delivered, outcome.retry) == (20, ())
    assert len(account.items()) == 18
    (debt,) = bodies_of(account)
    assert debt.rows == debt.records == ((1, 3),)
    assert debt.pipeline == "millrace-telemetry"
    settled = attempt(account)
    assert (settled.hot_rows, settled.hot_written, settled.repair_rows) == (20, 18, 2)
    assert settled.repair == (debt.id,)
    assert (debt.landing_key, debt.raw_key) == (settled.landing_key, settled.raw_key)
    assert ledger.debts(account.ledger) == ({debt.id: settled}, {})


@pytest.mark.parametrize(("bad", "owed"), [(1, True), (2, True), (3, False)])
def test_above_its_share_a_refusal_goes_back(
    account: Cloud,
    wiring: Wiring,
    bad: int,
    owed: bool,  # noqa: FBT001
):
    refuse(wiring, BAD)
    outcome = process(delivery(fleet(bad, 10 - bad)), wiring, INGEST)
    assert outcome.retry == (() if owed else ((1, 1 + bad),))
    assert len(messages(account)) == owed
    assert attempt(account).repair_rows == (bad if owed else 0)


@pytest.mark.parametrize(("rows_max", "owed"), [(2, True), (1, False), (0, False)])
def test_above_so_many_rows_a_refusal_goes_back(
    account: Cloud,
    clock: Clock,
    rows_max: int,
    owed: bool,  # noqa: FBT001
):
    wiring = wired(account, clock, repair=Limits(0.2, rows_max))
    refuse(wiring, BAD)
    outcome = process(delivery(fleet(2, 8)), wiring, INGEST)
    assert outcome.retry == (() if owed else ((1, 3),))


def test_open_debts_count_as_full(account: Cloud, clock: Clock):
    """The queue tells messages and not rows: rather back to the mapping too early than too late."""
    wiring = wired(account, clock, repair=Limits(0.2, DEBT_ROWS_MAX + 1))
    refuse(wiring, BAD)
    assert process(delivery(fleet(1, 9)), wiring, INGEST).retry == ()
    assert process(delivery(fleet(1, 8)), wiring, INGEST).retry == ()
    assert process(delivery(fleet(1, 7)), wiring, INGEST).retry == ((1, 2),)
    assert len(messages(account)) == 2


def test_without_a_queue_a_refusal_goes_back(account: Cloud, clock: Clock):
    wiring = wired(account, clock, repair_queue="")
    refuse(wiring, BAD)
    assert process(delivery(fleet(1, 9)), wiring, INGEST).retry == ((1, 2),)


@pytest.mark.parametrize(
    "weather",
    [
        json_error(400, "RequestThrottled"),
        json_error(503, "ServiceUnavailable"),
        json_error(400, "AWS.SimpleQueueService.NonExistentQueue"),
        json_error(400, "AccessDenied"),
        answer(200, b"{}", name="empty"),
        stall,
        drop,
    ],
)
def test_a_queue_that_does_not_answer_takes_no_debts(
    account: Cloud, wiring: Wiring, weather: Answer
):
    refuse(wiring, BAD)
    with loopback(weather) as server:
        wiring.repair_queue = Queue(server.client("sqs", ONCE), "http://queue/1/repair")
        outcome = process(delivery(fleet(1, 9)), wiring, INGEST)
    assert (outcome.delivered, outcome.retry) == (9, ((1, 2),))
    assert (attempt(account).repair_rows, attempt(account).repair) == (0, ())


def test_what_is_not_acknowledged_is_not_delivered(account: Cloud, wiring: Wiring, clock: Clock):
    """A failed send is tried until Hot's own deadline, and then the records go back."""

    def send(Entries: Any, **_: Any) -> Any:  # noqa: N803
        return {"Failed": [{"Id": e["Id"], "Code": "InternalError"} for e in Entries]}

    refuse(wiring, BAD)
    wiring.repair_queue = Queue(Sending(account.sqs, send), account.repairs.name)  # type: ignore[arg-type]
    began = clock.now
    outcome = process(delivery(fleet(1, 9)), wiring, INGEST)
    assert outcome.retry == ((1, 2),)
    assert clock.now - began == pytest.approx(60 - stages.ANSWER_SECONDS)
    assert messages(account) == {}


def test_a_lost_answer_is_a_second_message_of_the_same_debt(account: Cloud, wiring: Wiring):
    calls = 0

    def send(**asked: Any) -> Any:
        nonlocal calls
        calls += 1
        done = account.sqs.send_message_batch(**asked)
        return {} if calls == 1 else done

    mended = refuse(wiring, BAD)
    wiring.repair_queue = Queue(Sending(account.sqs, send), account.repairs.name)  # type: ignore[arg-type]
    assert process(delivery(fleet(1, 9)), wiring, INGEST).retry == ()
    assert len(messages(account)) == 2
    assert len({debt.id for debt in bodies_of(account)}) == 1
    mended.devices.clear()
    assert pay(messages(account), wiring, Context()) == []
    assert set(account.items()) == wanted(account)


def test_only_the_records_of_debts_not_taken_go_back(account: Cloud, wiring: Wiring):
    """Of three debts the middle one is refused for ever."""

    def send(Entries: Any, **asked: Any) -> Any:  # noqa: N803
        left = [e for e in Entries if json.loads(e["MessageBody"])["rows"][0][0] != DEBT_ROWS_MAX]
        done = account.sqs.send_message_batch(Entries=left, **asked) if left else {}
        return {"Successful": done.get("Successful", []), "Failed": []}

    wiring.settings = replace(SETTINGS, repair=Limits(1.0, 100_000))
    refuse(wiring, BAD)
    wiring.repair_queue = Queue(Sending(account.sqs, send), account.repairs.name)  # type: ignore[arg-type]
    made = delivery([reading(BAD, seq=n) for n in range(2 * DEBT_ROWS_MAX + 5)])
    outcome = process(made, wiring, INGEST)
    assert outcome.retry == ((DEBT_ROWS_MAX, 2 * DEBT_ROWS_MAX),)
    assert outcome.delivered == DEBT_ROWS_MAX + 5
    assert attempt(account).repair_rows == DEBT_ROWS_MAX + 5
    assert set(attempt(account).repair) == {debt.id for debt in bodies_of(account)}


def test_a_part_of_a_delivery_hands_back_by_its_own_numbers(wiring: Wiring):
    """Landing numbers records as raw does; the account those of the part."""
    state = {"first": 3, "received": 2, "transform": {"quarantine_key": "", "dropped_key": ""}}
    counted = {"dropped": 0, "quarantined": 0}
    outcome = stages._without(state | {"account": counted}, wiring, [4])
    assert (outcome.retry, outcome.delivered) == (((1, 2),), 1)


# Paying


@pytest.fixture
def owed(wiring: Wiring) -> Refusing:
    """A Delivery of twenty, of which two rows are owed."""
    client = refuse(wiring, BAD)
    assert process(delivery(fleet(2, 18)), wiring, INGEST).retry == ()
    return client


def test_a_debt_is_paid_when_the_table_takes_it(account: Cloud, wiring: Wiring, owed: Refusing):
    assert pay(messages(account), wiring, Context(20_000)) == list(messages(account))
    assert ledger.debts(account.ledger)[1] == {}
    owed.devices.clear()
    assert pay(messages(account), wiring, Context()) == []
    assert set(account.items()) == wanted(account)
    (debt,) = bodies_of(account)
    still, paid = ledger.debts(account.ledger)
    assert still == {}
    assert (paid[debt.id].landing_key, paid[debt.id].rows) == (debt.landing_key, debt.rows)
    assert paid[debt.id].paid_at.startswith("2026-11-24T12:0")
    assert len(list(ledger.attempts(account.ledger))) == 1


def test_paying_twice_leaves_the_same(account: Cloud, wiring: Wiring, owed: Refusing):
    owed.devices.clear()
    assert pay(messages(account), wiring, Context()) == []
    items, marks = account.items(), ledger.debts(account.ledger)
    assert pay(messages(account), wiring, Context()) == []
    assert (account.items(), ledger.debts(account.ledger)) == (items, marks)


def test_the_same_records_delivered_again_are_two_writers_of_one_item(
    account: Cloud, wiring: Wiring, owed: Refusing
):
    """While the debt is open the mapping brings the records again, and this time they are taken."""
    owed.devices.clear()
    assert process(delivery(fleet(2, 18)), wiring, INGEST).retry == ()
    items = account.items()
    assert set(items) == wanted(account)
    assert pay(messages(account), wiring, Context()) == []
    assert account.items() == items


def test_a_crash_between_the_items_and_the_mark_is_paid_again(
    account: Cloud, wiring: Wiring, owed: Refusing
):
    owed.devices.clear()

    class Dying:
        def batch_write_item(self, **_: Any) -> Any:
            raise MemoryError

    wiring.ledger_table = Table(Dying(), "ledger")  # type: ignore[arg-type]
    with pytest.raises(MemoryError):
        pay(messages(account), wiring, Context())
    assert set(account.items()) == wanted(account)
    assert len(ledger.debts(account.ledger)[0]) == 1
    wiring.ledger_table = account.ledger
    assert pay(messages(account), wiring, Context()) == []
    assert ledger.debts(account.ledger)[0] == {}


@pytest.mark.parametrize(
    "weather", [json_error(400, "ThrottlingException"), json_error(400, "AccessDeniedException")]
)
def test_without_a_mark_a_debt_is_not_paid(
    account: Cloud, wiring: Wiring, owed: Refusing, weather: Answer
):
    owed.devices.clear()
    with loopback(weather) as server:
        wiring.ledger_table = Table(server.client("dynamodb", ONCE), "ledger")
        assert pay(messages(account), wiring, Context(20_000)) == list(messages(account))
    assert set(account.items()) == wanted(account)


def test_of_several_debts_those_refused_go_back(account: Cloud, wiring: Wiring, owed: Refusing):
    owed.devices.add("other")
    made = delivery([reading("other"), *(reading(f"o-{n}") for n in range(9))])
    assert process(made, wiring, INGEST).retry == ()
    owed.devices.remove(BAD)
    (left,) = pay(messages(account), wiring, Context(20_000))
    assert debt_of(messages(account)[left]).rows == ((0, 1),)
    assert len(ledger.debts(account.ledger)[0]) == 1


@pytest.mark.parametrize("remaining_ms", [0, 6_000])
def test_after_the_deadline_nothing_is_paid(
    account: Cloud, wiring: Wiring, owed: Refusing, remaining_ms: int
):
    owed.devices.clear()
    before = account.items()
    assert pay(messages(account), wiring, Context(remaining_ms)) == list(messages(account))
    assert account.items() == before


def test_rows_past_their_ttl_are_paid_by_leaving_them(
    account: Cloud, wiring: Wiring, owed: Refusing, clock: Clock
):
    owed.devices.clear()
    before = account.items()
    clock.now += 30 * 86_400 + 5
    assert pay(messages(account), wiring, Context()) == []
    assert account.items() == before
    assert ledger.debts(account.ledger)[0] == {}


@pytest.mark.parametrize(
    ("span", "written"),
    [
        ({"epoch": 1, "from_micros": NOON, "to_micros": NOON + 1}, False),
        ({"epoch": 1, "from_micros": NOON + 1, "to_micros": NOON + 2}, True),
        ({"epoch": 1, "from_micros": NOON - 1, "to_micros": NOON}, True),
        ({"epoch": 0, "from_micros": NOON, "to_micros": NOON + 1}, True),
    ],
)
def test_rows_that_a_reprocess_made_again_are_left(
    account: Cloud,
    wiring: Wiring,
    owed: Refusing,
    span: dict[str, int],
    written: bool,  # noqa: FBT001
):
    owed.devices.clear()
    before = account.items()
    control.write(account.bucket, "epoch", {"epoch": 1, "reprocessed": [{**span, "contract": ""}]})
    assert pay(messages(account), wiring, Context()) == []
    assert (account.items() != before) == written


def test_what_is_no_debt_goes_back_and_stops_no_other(
    account: Cloud, wiring: Wiring, owed: Refusing
):
    owed.devices.clear()
    ((_, good),) = messages(account).items()
    debt = debt_of(good)
    beyond = Debt("p", debt.landing_key, ((19, 21),), "raw", ((0, 1),))
    gone = Debt("p", "landing/telemetry/none", ((0, 1),), "raw", ((0, 1),))
    odd = {"a": "{", "b": "[]", "c": beyond.message(), "d": gone.message()}
    assert pay(odd | {"good": good}, wiring, Context()) == list("abcd")
    assert ledger.debts(account.ledger)[0] == {}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"rows": [[0, 2]]}, "its rows are those of"),
        ({"rows": []}, "not of 1 to 1000 rows"),
        ({"rows": [[0, 1_001]]}, "not of 1 to 1000 rows"),
        ({"rows": [[2, 1]]}, "not ascending"),
        ({"rows": [[-1, 1]]}, "not ascending"),
        ({"rows": [[0, 1.5]]}, "whole numbers"),
        ({"rows": [[False, 1]]}, "whole numbers"),
        ({"rows": [[0]]}, "not enough values"),
        ({"rows": None}, "TypeError"),
        ({"landing_key": 7}, "not text"),
        ({"debt": "x"}, "its rows are those of"),
    ],
)
def test_a_message_that_is_no_debt_says_why(changes: dict[str, Any], why: str):
    good = Debt("p", "landing/telemetry/x", ((0, 1), (4, 9)), "raw/x", ((0, 1),))
    assert debt_of(good.message()) == good
    with pytest.raises(DebtError, match=why):
        debt_of(json.dumps(json.loads(good.message()) | changes))


def test_an_event_of_debts_and_its_answer():
    record = {"eventSource": "aws:sqs", "eventSourceARN": "arn:q", "messageId": "m", "body": "b"}
    assert read({"Records": [record]}) == {"m": "b"}
    assert respond(["m"]) == {"batchItemFailures": [{"itemIdentifier": "m"}]}
    for wrong in ({}, {"Records": [record | {"eventSource": "aws:kinesis"}]}):
        with pytest.raises(EventError):
            read(wrong)
    del record["body"]
    with pytest.raises(EventError, match=r"Records\[0\] has no 'body'"):
        read({"Records": [record]})


def test_debts_point_at_every_row_once():
    rows = [n for n in range(3_500) if n % 7]
    debts = debts_of("p", "landing/x", "raw/x", rows, [n // 2 for n in rows])
    assert [place for debt in debts for place in debt.places] == rows
    assert all(len(debt.places) <= DEBT_ROWS_MAX for debt in debts)
    assert len({debt.id for debt in debts}) == len(debts) == 3
    assert spans([]) == ()


def test_one_flush_of_metrics_an_invocation(
    account: Cloud, wiring: Wiring, owed: Refusing, capsys: pytest.CaptureFixture[str]
):
    owed.devices.clear()
    capsys.readouterr()
    assert pay(messages(account) | {"odd": "{"}, wiring, Context()) == ["odd"]
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (flush,) = (line for line in told if "_aws" in line)
    assert flush.keys() >= set(get_args(RepairMetric))
    counted = {name: flush[name] for name in get_args(RepairMetric) if name != "RepairDuration"}
    assert counted == {
        "HotDebts": [2],
        "HotPaid": [1],
        "HotUnpaid": [1],
        "HotRepaired": [2],
        "HotSkipped": [0],
    }


# The contract behind a landing object

WIDER = TELEMETRY.source.replace(b"version = 1", b"version = 2", 1) + b"\n# another deployment\n"


def test_a_contract_deployed_in_between_changes_no_item(
    account: Cloud, wiring: Wiring, clock: Clock, tmp_path: Any
):
    """Positional identity has other keys than a record id: the landing object's own rule holds."""
    keyless = TELEMETRY.source.replace(b"record_id =", b"# record_id =", 1)
    assert parse_contract(keyless, "keyless").record_id != TELEMETRY.record_id
    file = tmp_path / "telemetry.toml"
    file.write_bytes(keyless)
    client = refuse(wiring, BAD)
    assert process(delivery(fleet(2, 18)), wiring, INGEST).retry == ()
    client.devices.clear()
    deployed = wired(account, clock, contract=str(file))
    assert pay(messages(account), deployed, Context()) == []
    assert set(account.items()) == wanted(account)


def test_hot_too_makes_items_by_the_contract_of_the_landing_object(
    account: Cloud, clock: Clock, tmp_path: Any
):
    file = tmp_path / "telemetry.toml"
    file.write_bytes(TELEMETRY.source.replace(b"record_id =", b"# record_id =", 1))
    before, after = wired(account, clock), wired(account, clock, contract=str(file))
    run = before.workflow.stages  # type: ignore[attr-defined]
    run[TOPOLOGY.hot.name] = lambda s, c: stages.write_hot(s, after, c)
    assert process(delivery(fleet(0, 3)), before, INGEST).retry == ()
    assert set(account.items()) == wanted(account)


def test_the_contract_is_in_the_bucket_before_landing_and_asked_for_once(account: Cloud):
    asked: list[str] = []

    class Client:
        def put_object(self, **asked_for: Any) -> Any:
            asked.append(asked_for["Key"])
            return account.s3.put_object(**asked_for)

        def get_object(self, **asked_for: Any) -> Any:
            asked.append(asked_for["Key"])
            return account.s3.get_object(**asked_for)

    bucket = Bucket(Client(), account.bucket.name)  # type: ignore[arg-type]
    clock = Clock()
    soon = Deadline(clock.now + 9, clock)
    known = Contracts()
    for _ in range(3):
        known.keep(bucket, Transform(TELEMETRY), soon)
    key = f"{contracts.PREFIX}/telemetry/{TELEMETRY.digest}.toml"
    assert asked == [key]
    assert account.bucket.get(key) == TELEMETRY.source
    Contracts().keep(bucket, Transform(TELEMETRY), soon)  # another process: it is there
    assert asked == [key] * 2
    other = parse_contract(WIDER, "wider")
    process(delivery([reading()]), wired(account, clock), INGEST)
    (landed,) = account.keys("landing/")
    opened = landing.open_(account.bucket, landed)
    assert opened.contract_digest == TELEMETRY.digest
    asked.clear()
    assert known.behind(bucket, opened, TELEMETRY) is TELEMETRY
    assert asked == []
    for _ in range(3):
        assert known.behind(bucket, opened, other).source == TELEMETRY.source
    assert asked == [key]


# Both sources, from event to answer


def event(source: str, bodies: Sequence[bytes]) -> Delivery:
    if source == "kinesis":
        return delivery(bodies)
    records = [
        {
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:us-east-1:0:millrace-telemetry",
            "messageId": f"m-{n}",
            "body": body.decode(),
            "attributes": {"SentTimestamp": str(NOON // 1_000)},
        }
        for n, body in enumerate(bodies)
    ]
    return sqs.read({"Records": records})


@pytest.mark.parametrize("source", ["kinesis", "sqs"])
def test_from_event_to_paid(account: Cloud, wiring: Wiring, source: str):
    respond_ = kinesis.respond if source == "kinesis" else sqs.respond
    client = refuse(wiring, BAD)
    made = event(source, [*fleet(2, 17), b"no"])
    assert respond_(made, process(made, wiring, INGEST)) == {"batchItemFailures": []}
    assert len(ledger.debts(account.ledger)[0]) == 1
    client.devices.clear()
    arn = "arn:aws:sqs:us-east-1:0:millrace-telemetry-repair"
    records = [
        {"eventSource": "aws:sqs", "eventSourceARN": arn, "messageId": m, "body": body}
        for m, body in messages(account).items()
    ]
    answered = respond(pay(read({"Records": records}), wiring, Context()))
    assert answered == {"batchItemFailures": []}
    assert set(account.items()) == wanted(account)
    assert ledger.debts(account.ledger)[0] == {}


# The queue


@pytest.mark.parametrize("count", [0, 1, 10, 11, 25])
def test_messages_are_sent_in_calls_of_ten(account: Cloud, clock: Clock, count: int):
    calls: list[int] = []

    def send(**asked: Any) -> Any:
        calls.append(len(asked["Entries"]))
        return account.sqs.send_message_batch(**asked)

    queue = Queue(Sending(account.sqs, send), account.repairs.name)  # type: ignore[arg-type]
    bodies = [str(n) for n in range(count)]
    deadline = Deadline(clock.now + 9, clock)
    assert queue.send_all(bodies, deadline, clock.waiting()) == set()
    assert calls == [BATCH_MESSAGES_MAX] * (count // 10) + [count % 10] * (count % 10 > 0)
    assert sorted(messages(account).values()) == sorted(bodies)
    assert queue.messages() == count


def test_calls_stay_within_the_bytes_of_one(account: Cloud, clock: Clock):
    sizes: list[int] = []

    def send(Entries: Any, **_: Any) -> Any:  # noqa: N803
        sizes.append(sum(len(e["MessageBody"].encode()) for e in Entries))
        return {"Successful": Entries}

    queue = Queue(Sending(account.sqs, send), account.repairs.name)  # type: ignore[arg-type]
    bodies = ["é" * 50_000] * 7
    assert queue.send_all(bodies, Deadline(clock.now + 9, clock), clock.waiting()) == set()
    assert sizes == [200_000, 200_000, 200_000, 100_000]
    assert max(sizes) <= BATCH_BYTES_MAX


def test_only_what_failed_is_sent_again_and_the_deadline_ends_it(account: Cloud, clock: Clock):
    calls: list[list[str]] = []

    def send(Entries: Any, **_: Any) -> Any:  # noqa: N803
        calls.append([e["Id"] for e in Entries])
        return {"Successful": [e for e in Entries if e["Id"] != "3"]}

    queue = Queue(Sending(account.sqs, send), account.repairs.name)  # type: ignore[arg-type]
    deadline = Deadline(clock.now + 1, clock)
    assert queue.send_all(list("abcde"), deadline, clock.waiting()) == {3}
    assert calls[0] == list("01234")
    assert len(calls) > 2
    assert all(call == ["3"] for call in calls[1:])
    assert deadline.left == pytest.approx(0, abs=1e-6)
    calls.clear()
    assert queue.send_all(["a"], deadline.sooner(1), clock.waiting()) == {0}
    assert calls == []


def test_a_queue_that_is_not_there_is_not_weather(account: Cloud):
    with pytest.raises(Misconfigured, match="find the queue nowhere"):
        Queue(account.sqs, "nowhere").messages()
    with loopback(answer(200, b"{}")) as server:
        queue = Queue(server.client("sqs", ONCE), "http://queue/1/repair")
        with pytest.raises(Unavailable, match="the answer has no counts"):
            queue.messages()


def test_the_share_is_of_hot_rows():
    class Empty:
        def messages(self) -> int:
            return 0

    queue: Any = Empty()
    assert repair.bearable(2, 10, queue, Limits(0.2, 10))
    assert not repair.bearable(3, 10, queue, Limits(0.2, 10))
    assert not repair.bearable(1, 10, queue, Limits(0.0, 10))
    assert not repair.bearable(11, 11, queue, Limits(1.0, 10))
