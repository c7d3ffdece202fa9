"""The hot layout `latest`: one item a device, its newest, whatever order they come in (law 6)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.doubles.dynamodb import DynamoDB
from infra.doubles.world import Calm
from infra.evidence import Held, Stores
from infra.verify import Report, verify
from ingest.parked import NOTHING
from ingest.repair import pay
from ingest.reprocess import reprocess
from sinks import hot, ledger
from sinks.deadline import Deadline
from sinks.errors import Refused
from sinks.table import Table
from tests.edge import Edge, rules
from tests.support import (
    NOON,
    SECOND,
    Clock,
    Cloud,
    Context,
    create_table,
    delivery,
    json_error,
    loopback,
    reading,
)
from transform.contract_file import load_contract, parse_contract
from transform.pipeline import Transform

HOUR = 3_600 * SECOND
LATEST = ("[hot]", '[hot]\nlayout = "latest"')
TTL_DAYS = 30
TELEMETRY = parse_contract(
    load_contract("telemetry").source.replace(*(part.encode() for part in LATEST)), "latest.toml"
)
POSITIONAL = parse_contract(
    TELEMETRY.source.replace(b'record_id = ["device_id", "event_time", "sequence"]', b""), "p.toml"
)
NOW = datetime.fromtimestamp(NOON / SECOND, UTC)
TABLES = count()


def at(seconds: int, device: str = "a", **more: Any) -> bytes:
    return reading(device, NOON + seconds * SECOND, **more)


def rows_of(*bodies: bytes, contract: Any = TELEMETRY, arrival: int = NOON + HOUR) -> Any:
    return Transform(contract).apply(delivery(bodies, arrival).table(), "raw/x").rows


def fresh(account: Cloud) -> Table:
    name = f"latest-{next(TABLES)}"
    create_table(account.dynamodb, name)
    return Table(account.dynamodb, name)


def write(table: Table, rows: Any, contract: Any = TELEMETRY, seconds: float = 60) -> Any:
    clock = Clock()
    return hot.write(table, rows, contract, Deadline(clock.now + seconds, clock), clock.waiting())


def times(table: Table) -> dict[str, str]:
    """The time of each device's item."""
    return {item["pk"]["S"]: item["event_time"]["S"][11:19] for item in table.scan()}


def test_a_delivery_writes_the_newest_of_each_device(account: Cloud):
    table = fresh(account)
    result = write(table, rows_of(at(1), at(3), at(2), at(1, "b"), at(3), b"no"))
    assert result == hot.HotOutcome(written=5, refused=0, items=2, rows=())
    assert times(table) == {"a": "12:00:03", "b": "12:00:01"}
    assert {item["sk"]["S"] for item in table.scan()} == {"latest"}


def test_an_older_one_never_replaces_a_newer_one(account: Cloud):
    table = fresh(account)
    write(table, rows_of(at(5)))
    assert write(table, rows_of(at(4), at(1, "b"))).written == 2
    assert times(table) == {"a": "12:00:05", "b": "12:00:01"}
    write(table, rows_of(at(6)))
    assert times(table)["a"] == "12:00:06"


def test_the_item_says_its_place_in_time_and_when_it_expires(account: Cloud):
    table = fresh(account)
    rows = rows_of(at(1))
    write(table, rows)
    (item,) = table.scan()
    digest = rows.column("_digest")[0].as_py().hex()
    assert item["_at"] == {"S": f"2026-11-24T12:00:01.000000Z#{digest}"}
    expires = NOON // SECOND + 1 + TTL_DAYS * 86_400
    assert item["expires_at"] == {"N": str(expires)}
    assert list(table.all_keys()) == hot.keys_of(rows, TELEMETRY)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_order_any_repeat_and_any_cut_leaves_the_same_table(data: st.DataObject):
    contract = data.draw(st.sampled_from([TELEMETRY, POSITIONAL]))
    record = st.builds(
        at, st.sampled_from([0, 1, 2]), st.sampled_from(["a", "b"]), seq=st.integers(0, 1)
    )
    rows = rows_of(*data.draw(st.lists(record, min_size=1, max_size=8)), contract=contract)
    dynamodb = DynamoDB(Calm(Clock()), {"once": {}, "again": {}})
    once, again = (Table(dynamodb, name) for name in dynamodb.tables)  # type: ignore[arg-type]
    write(once, rows, contract)
    order = data.draw(st.permutations(range(rows.num_rows)))
    order += data.draw(st.lists(st.integers(0, rows.num_rows - 1), max_size=4))
    step = data.draw(st.integers(1, 8))
    for start in range(0, len(order), step):
        write(again, rows.take(order[start : start + step]), contract)
    assert list(again.scan()) == list(once.scan())
    newest = dict(sorted(hot.keys_of(rows, contract)))  # the last of each device stays
    assert dict(once.all_keys()) == newest


def test_what_is_read_is_the_latest_inside_the_span(account: Cloud):
    table = fresh(account)
    write(table, rows_of(at(1), at(7), contract=TELEMETRY))

    def found(low: int, high: int) -> list[int]:
        ends = (NOW + timedelta(seconds=s) for s in (low, high))
        return [row["sequence"] for row in hot.between(table, "a", *ends, TELEMETRY)]

    assert found(0, 10) == found(7, 7) == [0]
    assert found(0, 6) == found(8, 10) == []
    ever = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
    assert len(list(hot.between(table, "a", *ever, TELEMETRY))) == 1
    assert list(hot.between(table, "b", *ever, TELEMETRY)) == []


@pytest.mark.parametrize(
    ("error", "raised"),
    [("ConditionalCheckFailedException", None), ("ValidationException", Refused)],
)
def test_a_condition_that_fails_is_a_success_and_nothing_else_is(error: str, raised: Any):
    with loopback(json_error(400, error)) as server:
        table = Table(server.client("dynamodb"), "t")
        if raised is None:
            assert write(table, rows_of(at(1))).refused == 0
        else:
            with pytest.raises(raised):
                write(table, rows_of(at(1)))


def test_a_throttled_device_is_refused_with_all_its_readings(account: Cloud):
    rows = rows_of(at(1), at(2, "b"), at(3))
    real = fresh(account)
    table = Table(Shut(real.client, "a"), real.name)  # type: ignore[arg-type]
    result = write(table, rows, seconds=1)
    assert result == hot.HotOutcome(written=1, refused=2, items=1, rows=(0, 2))


# The whole path


@pytest.fixture
def latest(edge: Edge, tmp_path: Path) -> Edge:
    edge.deploy(rules(tmp_path, LATEST))
    return edge


def report(edge: Edge) -> Report:
    account = edge.account
    return verify(
        Stores(
            bucket=account.bucket,
            ledger=account.ledger,
            hot={"telemetry": account.hot},
            contracts=[edge.wiring.contract],
            now_micros=NOON + 3 * HOUR,
            parked=NOTHING,
            held=Held(),
        )
    )


def proven(edge: Edge) -> None:
    assert [str(finding) for finding in report(edge).findings] == []


def test_the_way_of_records_is_proven(latest: Edge):
    latest.ingest([at(5), at(3), b"no", at(1, "b")], NOON + HOUR)
    latest.ingest([at(4), at(2, "b"), at(5)], NOON + HOUR, first=500)
    assert times(latest.account.hot) == {"a": "12:00:05", "b": "12:00:02"}
    proven(latest)


def test_an_item_that_is_not_the_newest_is_found(latest: Edge):
    latest.ingest([at(3), at(5)], NOON + HOUR)
    (item,) = latest.account.hot.scan()
    older = rows_of(at(3))
    latest.account.dynamodb.delete_item(
        TableName=latest.account.hot.name, Key={"pk": item["pk"], "sk": item["sk"]}
    )
    found = [(f.kind, f.check) for f in report(latest).findings]
    assert found == [("missing", "hot_item")]
    write(latest.account.hot, older)
    found = [(f.kind, f.check) for f in report(latest).findings]
    assert found == [("missing", "hot_item")]


def test_an_item_of_no_record_is_found(latest: Edge):
    latest.ingest([at(3)], NOON + HOUR)
    write(latest.account.hot, rows_of(at(9), at(1, "c")))
    found = [(f.kind, f.check, f.name.partition(" ")[0]) for f in report(latest).findings]
    assert sorted(found) == [
        ("unexplained", "hot_item", "a"),
        ("unexplained", "hot_item", "c"),
    ]


class Shut:
    """A client that takes no item of one device."""

    def __init__(self, real: Any, device: str) -> None:
        self.real, self.device = real, device

    def put_item(self, Item: Any, **more: Any) -> None:  # noqa: N803  as boto3
        if Item["device_id"]["S"] == self.device:
            raise ClientError({"Error": {"Code": "ThrottlingException"}}, "PutItem")
        self.real.put_item(Item=Item, **more)


def test_a_debt_is_paid_though_a_newer_one_came(latest: Edge):
    real = latest.wiring.hot_table
    latest.wiring.hot_table = Table(Shut(real.client, "a"), real.name)  # type: ignore[arg-type]
    others = [at(n, f"other-{n}") for n in range(18)]
    latest.ingest([at(3), *others, at(4)], NOON + HOUR)
    assert "a" not in times(real)
    latest.wiring.hot_table = real
    latest.ingest([at(9)], NOON + HOUR, first=900)
    url = latest.account.repairs.url
    found = latest.account.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
    bodies = {message["MessageId"]: message["Body"] for message in found["Messages"]}
    assert pay(bodies, latest.wiring, Context()) == []
    owed, paid = ledger.debts(latest.account.ledger)
    assert (len(owed), len(paid)) == (0, 1)
    assert times(real)["a"] == "12:00:09"
    proven(latest)


# Reprocess


def changed(folder: Path, *changes: tuple[str, str]) -> str:
    """The next version of the contract, in a folder of its own."""
    (folder / "next").mkdir()
    return rules(folder / "next", LATEST, *changes, ("version = 2", "version = 3"))


def moved(seconds: int, taken: int) -> bytes:
    """A reading whose two clocks differ."""
    return at(seconds, taken=(NOON + taken * SECOND) // 1_000)


def again(edge: Edge, low: int = NOON, high: int = NOON + HOUR) -> Any:
    return reprocess(edge.wiring, low, high)


def test_where_the_newest_is_rejected_now_the_one_before_it_is_put_back(
    latest: Edge, tmp_path: Path
):
    latest.ingest([at(1)], NOON + 2 * HOUR, first=300)
    latest.ingest([at(0), at(5, readings={"temperature": 100.0})], NOON + 30 * 60 * SECOND)
    assert times(latest.account.hot) == {"a": "12:00:05"}
    latest.deploy(changed(tmp_path, ("max = 125", "max = 90")))
    told = again(latest)
    assert (told.hot_keys_removed, told.hot_keys_left) == (1, 0)
    assert times(latest.account.hot) == {"a": "12:00:01"}
    proven(latest)


def test_where_nothing_remains_of_a_device_its_item_is_gone(latest: Edge, tmp_path: Path):
    latest.ingest([at(5, readings={"temperature": 100.0}), at(1, "b")], NOON + 60 * SECOND)
    latest.deploy(changed(tmp_path, ("max = 125", "max = 90")))
    assert again(latest).hot_keys_removed == 1
    assert times(latest.account.hot) == {"b": "12:00:01"}
    proven(latest)


def test_a_time_that_is_another_now_moves_the_item_back(latest: Edge, tmp_path: Path):
    latest.ingest([moved(9, 2), moved(4, 4)], NOON + 60 * SECOND)
    assert times(latest.account.hot) == {"a": "12:00:09"}
    path = ('path = "ts"', 'path = "taken"')
    latest.deploy(changed(tmp_path, path))
    told = again(latest)
    assert (told.hot_keys_removed, told.hot_keys_left) == (1, 0)
    assert times(latest.account.hot) == {"a": "12:00:04"}
    assert again(latest).complete
    assert times(latest.account.hot) == {"a": "12:00:04"}


def test_a_newer_one_that_came_meanwhile_stays(latest: Edge, tmp_path: Path):
    latest.ingest([at(5, readings={"temperature": 100.0})], NOON + 60 * SECOND)
    latest.ingest([at(50)], NOON + 2 * HOUR, first=500)
    latest.deploy(changed(tmp_path, ("max = 125", "max = 90")))
    assert again(latest).hot_keys_removed == 0
    assert times(latest.account.hot) == {"a": "12:00:50"}


def test_a_reprocess_from_readings_to_latest_leaves_one_item(edge: Edge, tmp_path: Path):
    edge.ingest([at(1), at(2)], NOON + 60 * SECOND)
    assert len(edge.account.items()) == 2
    edge.deploy(rules(tmp_path, LATEST))
    assert again(edge).hot_keys_removed == 2
    assert list(edge.account.items()) == [("a", "latest")]
    proven(edge)
