"""The lake's upkeep: the ledger says what there is to take in, a workflow takes it in."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from infra.lake import Lake
from ingest import upkeep
from sinks import landing, raw
from sinks.deadline import Deadline
from sinks.lake import manifest, reader, work
from sinks.lake.plan import SETTLING, micros, plan
from sinks.lake.work import Choice
from sinks.lake.workspace import Limits, workspace
from sinks.ledger import Attempt
from sinks.ledger import attempt as read_attempt
from tests.support import TOPOLOGY, Clock, Cloud, InProcessWorkflow, cloud, delivery
from transform.contract import Contract
from transform.contract_file import load_contract, parse_contract
from transform.pipeline import Transform

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
MESSAGES = Path(__file__).parents[2] / "shared" / "data" / "environment-sensors.ndjson"
TELEMETRY = load_contract("telemetry")
SENSORS = load_contract("environment-sensors")
LIMITS = Limits(threads=1)


@pytest.fixture
def account() -> Iterator[Cloud]:
    with cloud() as made:
        yield made


def reading(seq: int, **more: Any) -> bytes:
    at = 1_795_521_600_000 + 1_000 * seq
    message = {"device_id": f"d{seq % 3}", "ts": at, "seq": seq, "readings": {"temperature": 20}}
    return json.dumps(message | more).encode()


def settled(
    account: Cloud, bodies: Sequence[bytes], rules: Transform, name: str, *, told: bool = True
) -> Attempt:
    """One attempt at a Delivery of these bodies; `told` says that it came to Settle."""
    until = Deadline(2e9, lambda: 0.0)
    given = delivery(bodies, stream="readings")
    given = replace(given, sequences=[f"{name}{n:06}" for n in range(len(bodies))])
    key = raw.archive(account.bucket, given, until)
    batch = rules.apply(given.table(), key)
    landed = landing.write(account.bucket, rules.contract, batch, until)
    item: dict[str, Any] = {"pk": {"S": f"{NOW:%Y-%m-%dT%H:%M}#0"}, "sk": {"S": f"arn:{name}"}}
    values = {
        **vars(landed),
        "contract": rules.contract.name,
        "raw_key": key,
        "settled_at": NOW.isoformat(),
        "retry": "[]",
    }
    for field in fields(Attempt):
        if field.name != "execution":
            kind = "N" if field.type == "int" else "S"
            item[field.name] = {kind: str(values.get(field.name, 0 if kind == "N" else ""))}
    if told:
        account.dynamodb.put_item(TableName=account.ledger.name, Item=item)
    return read_attempt(item)


def run(account: Cloud, contract: Contract, choice: Choice, now: datetime = NOW) -> list[int]:
    """Rows that each compaction took in."""
    done = work.run(account.bucket, account.ledger, contract, choice, now.timestamp)
    return [one.rows for one in done]


# ---- The plan ----


def test_an_attempt_is_taken_whole_and_the_oldest_arrivals_first(account: Cloud) -> None:
    rules = Transform(TELEMETRY)
    first = settled(account, [reading(1), b"{"], rules, "a")
    second = settled(account, [reading(2), reading(3), b"["], rules, "b")
    later = replace(second, settled_at=(NOW + timedelta(minutes=1)).isoformat())
    made = plan([later, first], (), 1, NOW + timedelta(hours=1))
    assert {one.key for one in made.objects} == {first.landing_key, first.quarantine_key}
    assert (made.rows, made.left) == (1, 2)
    assert made.settled_until == micros(NOW + timedelta(minutes=1) - SETTLING)


def test_what_is_absorbed_is_not_planned_again(account: Cloud) -> None:
    made = settled(account, [reading(1)], Transform(TELEMETRY), "a")
    found = plan([made], {made.landing_key}, 10, NOW)
    assert (found.objects, found.left) == ((), 0)
    assert found.settled_until == micros(NOW - SETTLING)


# ---- Runs ----


def test_a_run_goes_on_until_nothing_is_left(account: Cloud) -> None:
    rules = Transform(TELEMETRY)
    for number in range(4):
        bodies = [reading(10 * number + n) for n in range(10)]
        settled(account, bodies, rules, f"{number}")
    assert run(account, TELEMETRY, Choice(rows_max=20, limits=LIMITS)) == [20, 20]
    assert manifest.read(account.bucket, "telemetry").rows == 40
    assert run(account, TELEMETRY, Choice(limits=LIMITS)) == [0]


def test_attempts_of_other_contracts_are_left_to_them(account: Cloud) -> None:
    settled(account, [reading(1)], Transform(TELEMETRY), "a")
    assert run(account, SENSORS, Choice(limits=LIMITS)) == [0]


def test_what_no_attempt_told_of_is_found_where_it_is_looked_for(account: Cloud) -> None:
    settled(account, [reading(1)], Transform(TELEMETRY), "a")
    settled(account, [reading(2)], Transform(TELEMETRY), "b", told=False)
    written = datetime.now(UTC)
    orphans = Choice(orphans=True, limits=LIMITS)
    assert run(account, TELEMETRY, Choice(limits=LIMITS)) == [1]
    assert run(account, TELEMETRY, orphans, written) == [0], "its attempt may be under way"
    assert run(account, TELEMETRY, orphans, written + timedelta(hours=1)) == [1]


def test_a_quiet_ledger_is_said_to_be_seen_from_time_to_time(account: Cloud) -> None:
    settled(account, [reading(1)], Transform(TELEMETRY), "a")
    found = []
    for hours in (1, 1.5, 9):
        run(account, TELEMETRY, Choice(limits=LIMITS), NOW + timedelta(hours=hours))
        found.append(manifest.read(account.bucket, "telemetry"))
    assert [lake.version for lake in found] == [1, 1, 2]
    assert found[-1].settled_until == micros(NOW + timedelta(hours=9) - SETTLING)
    assert found[-1].partitions == found[0].partitions


# ---- The workflow ----


def test_the_workflow_compacts_until_nothing_is_left_then_shows_it_and_retires(
    account: Cloud,
) -> None:
    """What the publishing function does is tested with Iceberg."""
    rules = Transform(TELEMETRY)
    for number in range(3):
        settled(account, [reading(number)], rules, f"{number}")
    wiring = account.wiring(Clock(NOW.timestamp()))

    def small(state: dict[str, Any], _: Any) -> dict[str, Any]:
        return upkeep.step(upkeep.COMPACT, state | {"rows_max": 1}, wiring)

    shown: list[str] = []

    def publish(state: dict[str, Any], _: Any) -> dict[str, Any]:
        shown.append(state["step"])
        return {}

    stages = {TOPOLOGY.upkeep.compact.name: small, TOPOLOGY.upkeep.publish.name: publish}
    workflow = InProcessWorkflow(TOPOLOGY, stages, account.dynamodb, upkeep=True)
    done = workflow.run({}, 900)
    assert workflow.entered.count("Compact") == 3
    assert workflow.entered[-3:] == ["Publish", "Retire", "Done"]
    assert shown == ["publish", "retire"]
    assert done["compact"]["lake_rows"] == 3


def test_a_step_that_is_not_known_is_named(account: Cloud) -> None:
    with pytest.raises(ValueError, match=r"step is 'rest'; the steps .* are: compact"):
        upkeep.step(upkeep.COMPACT, {"step": "rest"}, account.wiring())


# ---- Real messages, and a contract that evolved twice ----


def evolved() -> list[Transform]:
    """The sensors' contract; a version with an alias and a new field; one without a field."""
    text = SENSORS.source.decode()
    added = '[[field]]\nname = "fahrenheit"\ntype = "float64"\nexpr = "temperature * 1.8 + 32"\n'
    second = text.replace("version = 1", "version = 2", 1)
    second = second.replace("[[example]]", f"{added}\n[[example]]", 1)
    third = second.replace("version = 2", "version = 3", 1)
    start = third.index('[[field]]\nname = "smoke"')
    third = third[:start] + third[third.index("[[field]]", start + 1) :]
    one, two, three = (parse_contract(t.encode(), "sensors.toml") for t in (text, second, third))
    return [Transform(one), Transform(two, older=(one,)), Transform(three, older=(one, two))]


def test_real_messages_under_three_versions_are_exact_before_between_and_after(
    account: Cloud,
) -> None:
    if not MESSAGES.exists():
        pytest.skip("the real messages are not beside the checkout")
    lines = MESSAGES.read_bytes().splitlines()
    parts = [lines[:3_333], lines[3_333:6_666], lines[6_666:]]
    seen: dict[tuple[str, int], dict[str, Any]] = {}
    versions = evolved()
    for number, (rules, part) in enumerate(zip(versions, parts, strict=True)):
        settled(account, part, rules, f"{number}")
        for line in part:
            message = json.loads(line)
            seen.setdefault((message["device_id"], line), message | {"under": number})
        current = versions[number].contract
        check(account, current, list(seen.values()))
        run(account, current, Choice(limits=LIMITS))
        check(account, current, list(seen.values()))
    assert manifest.read(account.bucket, SENSORS.name).rows == len(seen)


def check(account: Cloud, contract: Contract, messages: list[dict[str, Any]]) -> None:
    """What each engine says of the records, against the messages themselves."""
    data = [message["data"] for message in messages]
    want = (
        len(messages),
        math.fsum(d["humidity"] for d in data),
        math.fsum(d["smoke"] for d, m in zip(data, messages, strict=True) if m["under"] < 2),
        sum(m["under"] > 0 for m in messages),
    )
    rows = Lake(account.bucket, account.ledger, [contract]).query("FROM records")
    assert told(rows) == want
    with workspace(account.bucket, LIMITS) as working:
        paths = reader.snapshot(working, contract).local(working)
        tables = [pq.read_table(path, partitioning=None) for path in paths]
        assert told(pa.concat_tables(tables, promote_options="default")) == want


def told(rows: pa.Table) -> tuple[int, float, float, int]:
    """Rows, sums of a field of all versions and of one that went, and how many have a new one."""
    names = rows.column_names
    sums = [
        math.fsum(pc.drop_null(rows.column(name)).to_pylist()) if name in names else 0.0
        for name in ("humidity", "smoke")
    ]
    new = rows.column("fahrenheit") if "fahrenheit" in names else pa.chunked_array([], pa.float64())
    return rows.num_rows, sums[0], sums[1], len(new) - new.null_count
