"""The hot table holds each reading once, exactly, whatever happened on the way to it (law 6)."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from itertools import count
from typing import Any

import pyarrow as pa
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sinks import hot
from sinks.deadline import Deadline
from sinks.errors import Misconfigured, Refused
from sinks.table import (
    BACKOFF_FIRST_SECONDS,
    BACKOFF_MAX_SECONDS,
    BATCH_ITEMS_MAX,
    KEY_BYTES_MAX,
    SORT_KEY_BYTES_MAX,
    Table,
    Waiting,
)
from tests.support import (
    NOON,
    SECOND,
    SOME,
    Answer,
    Clock,
    Cloud,
    answer,
    cloud,
    create_table,
    delivery,
    drop,
    items_of,
    json_error,
    loopback,
    reading,
    stall,
)
from transform.contract import Contract
from transform.contract_file import load_contract, parse_contract
from transform.field_types import INT64_MAX, INT64_MIN
from transform.pipeline import Transform

DAY = 86_400 * SECOND
TTL = 30 * DAY
TELEMETRY = load_contract("telemetry")
ALL_TYPES = """
    name = "all-types"
    [identity]
    device = "device"
    event_time = "at"
    {record_id}
    [[field]]
    name = "device"
    type = "string"
    [[field]]
    name = "at"
    type = "timestamp"
    format = "epoch_seconds"
    [[field]]
    name = "count"
    type = "int64"
    [[field]]
    name = "level"
    type = "float64"
    [[field]]
    name = "flag"
    type = "bool"
    [[field]]
    name = "note"
    type = "string"
    [[field]]
    name = "seen"
    type = "timestamp"
    format = "iso8601"
"""
NAMED = parse_contract(ALL_TYPES.format(record_id='record_id = ["count"]').encode(), "named")
POSITIONAL = parse_contract(ALL_TYPES.format(record_id="").encode(), "positional")
TABLES = count()


@pytest.fixture(scope="module")
def account() -> Iterator[Cloud]:
    with cloud() as made:
        yield made


@pytest.fixture
def table(account: Cloud) -> Table:
    return fresh(account)


def fresh(account: Cloud) -> Table:
    name = f"hot-{next(TABLES)}"
    create_table(account.dynamodb, name)
    return Table(account.dynamodb, name)


def typed(device: str = "d", at: object = NOON // SECOND, **fields: Any) -> bytes:
    """A record of the contract with all types."""
    return json.dumps({"device": device, "at": at, "count": 0, **fields}).encode()


def rows_of(contract: Contract, *bodies: bytes, arrival: int = NOON, raw_key: str = "raw/x"):
    batch = Transform(contract).apply(delivery(bodies, arrival).table(), raw_key)
    assert batch.rejects.num_rows == 0, batch.rejects.column("_detail").to_pylist()
    return batch.rows


def write(table: Table, rows: Any, contract: Contract = NAMED, seconds: float = 60):
    clock = Clock()
    deadline = Deadline(clock.now + seconds, clock)
    return hot.write(table, rows, contract, deadline, clock.waiting())


def contents(table: Table) -> dict[tuple[str, str], Any]:
    return {(item["pk"]["S"], item["sk"]["S"]): item for item in table.scan()}


def item_of(**fields: Any) -> dict[str, Any]:
    """What one record becomes, without its keys."""
    (item,) = items_of(rows_of(NAMED, typed(**fields)), NAMED).values()
    return {name: item[name] for name in item if name not in ("pk", "sk", "device", "at")}


# Items


def test_the_keys_of_an_item():
    body = reading("sensor-1", NOON + 7_000)
    rows = rows_of(TELEMETRY, body)
    items = items_of(rows, TELEMETRY)
    (key,) = items
    digest = rows.column("_digest")[0].as_py().hex()
    assert key == ("sensor-1#2026-11-24", f"2026-11-24T12:00:00.007000Z#{digest}")
    assert items[key] == {
        "pk": {"S": key[0]},
        "sk": {"S": key[1]},
        "expires_at": {"N": str((NOON + TTL) // SECOND)},
        "device_id": {"S": "sensor-1"},
        "event_time": {"S": "2026-11-24T12:00:00.007000Z"},
        "sequence": {"N": "0"},
        "temperature": {"N": "21.5"},
        "status": {"S": "ok"},  # the contract's default
    }


def test_keys_are_the_same_of_rows_as_a_reader_has_them():
    """SQL gives binary without a width; what is left of rows may begin anywhere."""
    rows = rows_of(TELEMETRY, *(reading("s", NOON + at) for at in range(9)))
    place = rows.schema.get_field_index("_digest")
    as_read = rows.set_column(place, "_digest", rows.column(place).cast(pa.binary()))
    for some in (slice(3, None), slice(0, 4), slice(7, 7)):
        for form in (rows, as_read):
            assert hot.keys_of(form[some], TELEMETRY) == hot.keys_of(rows, TELEMETRY)[some]


@pytest.mark.parametrize("number", [0, -1, INT64_MIN, INT64_MAX, 2**53 + 1])
def test_integers_are_numbers_digit_by_digit(number: int):
    assert item_of(count=number) == {"count": {"N": str(number)}}


@pytest.mark.parametrize(
    ("level", "kept"),
    [
        (21.5, {"N": "21.5"}),
        (0.1, {"N": "0.1"}),
        (1 / 3, {"N": "0.3333333333333333"}),
        (0.0, {"N": "0.0"}),
        (1e-130, {"N": "1e-130"}),
        (-9.99e125, {"N": "-9.99e+125"}),
        (1e126, {"S": "1e+126"}),
        (9e-131, {"S": "9e-131"}),
        (1e-200, {"S": "1e-200"}),
        (-1e300, {"S": "-1e+300"}),
        (5e-324, {"S": "5e-324"}),
        (1.7976931348623157e308, {"S": "1.7976931348623157e+308"}),
    ],
)
def test_floats_are_numbers_where_dynamodb_has_them_and_text_elsewhere(
    level: float, kept: dict[str, str]
):
    assert item_of(level=level)["level"] == kept


def test_both_zeros_are_numbers_and_zero():
    for zero in (0.0, -0.0):
        ((kind, text),) = item_of(level=zero)["level"].items()
        assert kind == "N"
        assert float(text) == 0


@pytest.mark.parametrize("text", ["", "plain", "#~/%", "\x00", "\u2028", "é😀", "x" * 4_000])
def test_strings_are_kept_whatever_they_hold(text: str):
    assert item_of(note=text)["note"] == {"S": text}


def test_booleans_timestamps_and_nothing():
    assert item_of(flag=False, note=None) == {"count": {"N": "0"}, "flag": {"BOOL": False}}
    assert item_of(seen="2026-11-24T13:00:00.5+01:00")["seen"] == {
        "S": "2026-11-24T12:00:00.500000Z"
    }


def test_unknown_fields_are_rescued():
    assert json.loads(item_of(extra={"a": [1]})["_rescued"]["S"]) == {"extra": {"a": [1]}}
    assert "_rescued" not in item_of()


@pytest.mark.parametrize("contract", [NAMED, POSITIONAL])
def test_the_longest_keys_fit(contract: Contract):
    bodies = typed("😀" * 256), typed("/%" * 512)
    many = delivery(bodies, stream="s" * 128)
    many.shards[:] = ["shardId-" + "9" * 12] * 2
    many.sequences[:] = ["9" * 128] * 2
    rows = Transform(contract).apply(many.table(), "raw/x").rows
    keys = hot.keys_of(rows, contract)
    assert len(keys) == 2
    assert all(len(pk.encode()) <= KEY_BYTES_MAX for pk, _ in keys)
    assert all(len(sk.encode()) <= SORT_KEY_BYTES_MAX for _, sk in keys)


# Identity


def test_repeats_in_a_delivery_are_one_item(table: Table):
    result = write(table, rows_of(NAMED, typed(), typed(count=1), typed()))
    assert result == hot.HotOutcome(written=3, refused=0, items=2, rows=())
    assert len(contents(table)) == 2


def test_a_conflict_is_two_items(table: Table):
    """Equal ids with other bytes: the device spoke twice of one moment, and both are kept."""
    rows = rows_of(NAMED, typed(level=1.0), typed(level=2.0))
    assert len(set(rows.column("_record_id").to_pylist())) == 1
    write(table, rows)
    assert sorted(item["level"]["N"] for item in contents(table).values()) == ["1.0", "2.0"]


def test_positional_identity_keeps_equal_bytes_apart_and_a_second_delivery_together(table: Table):
    write(table, rows_of(POSITIONAL, typed(), typed()), POSITIONAL)
    assert len(contents(table)) == 2
    write(table, rows_of(POSITIONAL, typed(), typed(), raw_key="raw/other"), POSITIONAL)
    assert len(contents(table)) == 2


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_order_and_any_repeat_of_writes_leaves_the_same_table(
    account: Cloud, data: st.DataObject
):
    contract = data.draw(st.sampled_from([NAMED, POSITIONAL]))
    record = st.builds(
        typed,
        device=st.sampled_from(["a", "b"]),
        at=st.sampled_from([NOON // SECOND, NOON // SECOND + 1]),
        count=st.integers(0, 1),
        level=st.sampled_from([0.5, 1e-200]),
    )
    bodies = data.draw(st.lists(record, min_size=1, max_size=8))
    rows = rows_of(contract, *bodies)
    once = fresh(account)
    write(once, rows, contract)
    again = fresh(account)
    order = data.draw(st.permutations(range(rows.num_rows)))
    extra = data.draw(st.lists(st.integers(0, rows.num_rows - 1), max_size=4))
    step = data.draw(st.integers(1, 8))
    order = [*order, *extra]
    for at in range(0, len(order), step):
        write(again, rows.take(order[at : at + step]), contract)
    assert contents(again) == contents(once)


# The whole way: what is read back is what landed


@settings(max_examples=60, deadline=None)
@given(
    st.fixed_dictionaries(
        {"count": st.integers(INT64_MIN, INT64_MAX)},
        optional={
            "level": st.floats(allow_nan=False, allow_infinity=False),
            "flag": st.booleans(),
            "note": st.text(max_size=20),
            "seen": st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
            "extra": st.text(max_size=5),
        },
    ),
    st.text(min_size=1, max_size=10),
    st.integers(-62_135_596_800, 1_795_521_600),
)
@example({"count": INT64_MIN, "level": 5e-324}, "\x00", -62_135_596_800)
@example({"count": INT64_MAX, "level": -1e300}, "#~", 0)
@example({"count": 0, "level": -0.0}, "é", -1)
def test_what_is_read_back_is_what_landed(
    account: Cloud, fields: dict[str, Any], device: str, at: int
):
    if "seen" in fields and "." not in fields["seen"]:
        fields["seen"] = fields["seen"].replace("+", ".000000+")
    rows = rows_of(NAMED, typed(device, at, **fields))
    table = fresh(account)
    write(table, rows)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at)
    (found,) = hot.between(table, device, moment, moment, NAMED)
    (landed,) = rows.select([*(f.name for f in NAMED.fields), "_rescued"]).to_pylist()
    expected = {
        name: value.isoformat(timespec="microseconds").replace("+00:00", "Z")
        if isinstance(value, datetime)
        else value
        for name, value in landed.items()
        if name != "_rescued" or value is not None
    }
    assert found == expected
    assert {name: type(value) for name, value in found.items()} == {
        name: type(value) for name, value in expected.items()
    }


# Time


@pytest.mark.parametrize(
    ("age", "is_hot"), [(TTL - 1, True), (TTL, False), (TTL + 1, False), (-1, True)]
)
def test_a_row_past_its_ttl_when_it_arrived_is_not_written(table: Table, age: int, is_hot: bool):  # noqa: FBT001
    moment = NOON - age
    body = reading(ts=moment / 1_000)
    rows = rows_of(TELEMETRY, body)
    result = write(table, rows, TELEMETRY)
    assert result.written == len(contents(table)) == is_hot


def test_an_item_expires_a_ttl_after_its_second():
    (item,) = items_of(rows_of(TELEMETRY, reading(moment=NOON + 999_000)), TELEMETRY).values()
    assert item["expires_at"] == {"N": str((NOON + TTL) // SECOND)}


def test_without_a_ttl_everything_is_hot_for_ever(table: Table):
    rows = rows_of(NAMED, typed(at=0), typed(at=-62_135_596_800))
    assert write(table, rows).written == 2
    assert not any("expires_at" in item for item in contents(table).values())


def seconds(found: Iterator[dict[str, Any]]) -> list[str]:
    return [row["at"][8:19] for row in found]


@pytest.fixture(scope="module")
def night(account: Cloud) -> Table:
    """Readings of two devices, every six hours from noon to noon of two days later."""
    table = fresh(account)
    moments = [NOON // SECOND + 21_600 * n for n in range(9)]
    arrival = NOON + 3 * DAY
    write(table, rows_of(NAMED, *(typed("d", at) for at in moments), arrival=arrival))
    write(table, rows_of(NAMED, *(typed("d#2026-11-25", at) for at in moments), arrival=arrival))
    return table


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0, 0, ["24T12:00:00"]),
        (1, 21_599, []),
        (0, 21_600, ["24T12:00:00", "24T18:00:00"]),
        (1, 21_600, ["24T18:00:00"]),
        (21_600, 64_800, ["24T18:00:00", "25T00:00:00", "25T06:00:00"]),
        (43_200, 43_200, ["25T00:00:00"]),
        (43_199.999999, 43_200, ["25T00:00:00"]),
        (129_600, 200_000, ["26T00:00:00", "26T06:00:00", "26T12:00:00"]),
        (21_600, 0, []),
    ],
)
def test_between_includes_both_ends_and_goes_over_midnight(
    night: Table, low: float, high: float, found: list[str]
):
    start = datetime(2026, 11, 24, 12, tzinfo=UTC)
    ends = start + timedelta(seconds=low), start + timedelta(seconds=high)
    assert seconds(hot.between(night, "d", *ends, NAMED)) == found
    elsewhere = timezone(timedelta(hours=-7))
    ends = ends[0].astimezone(elsewhere), ends[1].astimezone(elsewhere)
    assert seconds(hot.between(night, "d", *ends, NAMED)) == found


@pytest.mark.parametrize("at", [-62_135_596_800, 253_402_300_799])
def test_between_reaches_the_first_and_the_last_year(table: Table, at: int):
    write(table, rows_of(NAMED, typed("d", at), arrival=NOON + 10**18 if at > 0 else NOON))
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at)
    assert len(list(hot.between(table, "d", moment, moment, NAMED))) == 1


# Weather


class Scripted:
    """A DynamoDB client that answers as told: by the puts of a call, those it leaves undone."""

    def __init__(self, *undone: Callable[[list[Any]], list[Any]]) -> None:
        self.script = list(undone)
        self.calls: list[list[Any]] = []
        self.lock = threading.Lock()

    def batch_write_item(self, RequestItems: dict[str, list[Any]]) -> dict[str, Any]:  # noqa: N803
        ((name, puts),) = RequestItems.items()
        with self.lock:
            self.calls.append(puts)
            act = self.script[min(len(self.calls), len(self.script)) - 1]
        undone = act(puts)
        return {"UnprocessedItems": {name: undone} if undone else {}}


def nothing(puts: list[Any]) -> list[Any]:
    del puts
    return []


def everything(puts: list[Any]) -> list[Any]:
    return puts


def put_all(client: Any, items: int, deadline_seconds: float = 60) -> tuple[set[Any], Clock]:
    """Put so many items through this client; what is left undone, and the clock waited on."""
    clock = Clock()
    named = {("p", str(n)): {"pk": {"S": "p"}, "sk": {"S": str(n)}} for n in range(items)}
    deadline = Deadline(clock.now + deadline_seconds, clock)
    return Table(client, "hot", threads=1).put_all(named, deadline, clock.waiting()), clock


@pytest.mark.parametrize("items", [0, 1, 24, 25, 26, 50, 51])
def test_calls_hold_at_most_25_items_and_no_key_twice(items: int):
    client = Scripted(nothing)
    assert put_all(client, items)[0] == set()
    keys = [put["PutRequest"]["Item"]["sk"]["S"] for puts in client.calls for put in puts]
    assert sorted(keys, key=int) == [str(n) for n in range(items)]
    assert len(client.calls) == math.ceil(items / BATCH_ITEMS_MAX)
    assert all(len(puts) <= BATCH_ITEMS_MAX for puts in client.calls)


def test_only_what_was_left_undone_is_asked_again():
    client = Scripted(lambda puts: puts[3:], lambda puts: puts[-1:], nothing)
    undone, clock = put_all(client, 10)
    assert undone == set()
    assert [len(puts) for puts in client.calls] == [10, 7, 1]
    assert client.calls[2] == client.calls[0][-1:]
    assert clock.naps == [BACKOFF_FIRST_SECONDS, 2 * BACKOFF_FIRST_SECONDS]


def test_waiting_doubles_up_to_its_maximum_and_ends_at_the_deadline():
    client = Scripted(everything)
    undone, clock = put_all(client, 2, deadline_seconds=20)
    assert undone == {("p", "0"), ("p", "1")}
    doubling = [BACKOFF_FIRST_SECONDS * 2**n for n in range(7)]
    *naps, last = clock.naps
    assert naps == [*doubling, BACKOFF_MAX_SECONDS, BACKOFF_MAX_SECONDS]
    assert last == pytest.approx(20 - sum(naps))
    assert len(client.calls) == len(clock.naps)


def test_waiting_is_jittered_from_nothing():
    asked: list[tuple[float, float]] = []
    clock = Clock()

    def least(low: float, high: float) -> float:
        asked.append((low, high))
        return low

    client = Scripted(everything, everything, nothing)
    items = {("p", "s"): {"pk": {"S": "p"}, "sk": {"S": "s"}}}
    waiting = Waiting(clock.sleep, least)
    Table(client, "hot").put_all(items, Deadline(clock.now + 1, clock), waiting)
    assert asked == [(0, BACKOFF_FIRST_SECONDS), (0, 2 * BACKOFF_FIRST_SECONDS)]
    assert clock.naps == [0, 0]


def test_after_the_deadline_nothing_is_asked():
    client = Scripted(nothing)
    assert len(put_all(client, 60, deadline_seconds=0)[0]) == 60
    assert client.calls == []


def test_what_was_taken_before_the_deadline_is_not_told_as_refused():
    client = Scripted(lambda puts: puts[1:], everything)
    undone, _ = put_all(client, 3, deadline_seconds=1)
    assert undone == {("p", "1"), ("p", "2")}


@SOME
@given(st.lists(st.sets(st.integers(0, 60)), max_size=6))
def test_what_is_undone_is_exactly_what_was_never_taken(refusals: list[set[int]]):
    """Each call takes some and leaves some; at the end every item is either taken or told."""
    taken: set[str] = set()

    def choose(refused: set[int]) -> Callable[[list[Any]], list[Any]]:
        def act(puts: list[Any]) -> list[Any]:
            keys = [put["PutRequest"]["Item"]["sk"]["S"] for put in puts]
            left = [n for n, key in enumerate(keys) if int(key) in refused]
            taken.update(key for n, key in enumerate(keys) if n not in left)
            return [puts[n] for n in left]

        return act

    script = [choose(refused) for refused in refusals] or [everything]
    undone, _ = put_all(Scripted(*script), 60, deadline_seconds=1)
    assert {key for _, key in undone} | taken == {str(n) for n in range(60)}
    assert not {key for _, key in undone} & taken


ONCE = Config(connect_timeout=1, read_timeout=0.2, retries={"total_max_attempts": 1})
TAKEN = answer(200, b'{"UnprocessedItems": {}}')


@pytest.mark.parametrize(
    "weather",
    [
        json_error(400, "ProvisionedThroughputExceededException"),
        json_error(400, "ThrottlingException"),
        json_error(400, "RequestLimitExceeded"),
        json_error(500, "InternalServerError"),
        json_error(503, "ServiceUnavailable"),
        answer(502, b"<html>Bad Gateway</html>"),
        answer(200, b'{"Unprocess', cut_bytes=4, name="cut"),
        answer(200, b"<html>", name="html"),
        answer(200, b"{}", name="empty"),
        stall,
        drop,
    ],
)
def test_weather_is_waited_out(weather: Answer):
    with loopback(weather, weather, TAKEN) as server:
        undone, clock = put_all(server.client("dynamodb", ONCE), 3)
    assert undone == set()
    assert len(server.requests) == 3
    assert len({body for _, body in server.requests}) == 1
    assert clock.naps == [BACKOFF_FIRST_SECONDS, 2 * BACKOFF_FIRST_SECONDS]


def test_weather_until_the_deadline_is_told():
    with loopback(json_error(400, "ThrottlingException")) as server:
        undone, _ = put_all(server.client("dynamodb", ONCE), 30, deadline_seconds=1)
    assert len(undone) == 30


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (json_error(400, "ResourceNotFoundException"), Misconfigured),
        (json_error(400, "AccessDeniedException"), Misconfigured),
        (json_error(400, "UnrecognizedClientException"), Misconfigured),
        (json_error(400, "InvalidSignatureException"), Misconfigured),
        (json_error(400, "IncompleteSignatureException"), Misconfigured),
        (json_error(400, "MissingAuthenticationTokenException"), Misconfigured),
        (json_error(400, "ValidationException"), Refused),
    ],
)
def test_what_no_waiting_mends_is_raised_and_the_rest_is_not_begun(
    script: Answer, error: type[Exception]
):
    with loopback(script) as server:
        with pytest.raises(error):
            put_all(server.client("dynamodb", ONCE), 2_500)
        assert len(server.requests) < 100


def test_what_no_waiting_mends_ends_its_wave():
    """Calls of the same wave that were not begun are not; and there is no pause after it."""

    class Client(Scripted):
        def batch_write_item(self, RequestItems: dict[str, list[Any]]) -> dict[str, Any]:  # noqa: N803
            super().batch_write_item(RequestItems)
            raise ClientError({"Error": {"Code": "ValidationException"}}, "BatchWriteItem")

    clock = Clock()
    client = Client(nothing)
    table = Table(client, "hot", threads=4)
    with pytest.raises(Refused, match="ValidationException"):
        table.put_all(numbered(2_500), Deadline(clock.now + 10**6, clock), clock.waiting())
    assert len(client.calls) <= 4
    assert clock.naps == []


# Waves


def numbered(items: int) -> dict[tuple[str, str], Any]:
    return {("p", str(n)): {"pk": {"S": "p"}, "sk": {"S": str(n)}} for n in range(items)}


def sort_keys(puts: list[Any]) -> list[int]:
    return [int(put["PutRequest"]["Item"]["sk"]["S"]) for put in puts]


def test_a_hot_partition_does_not_hold_up_the_rest():
    """Its items wait behind all others, and nobody waits long for them before all were tried."""

    def hot_refused(puts: list[Any]) -> list[Any]:
        return [put for put, key in zip(puts, sort_keys(puts), strict=True) if key % 5 == 0]

    client = Scripted(hot_refused)
    undone, clock = put_all(client, 1_000, deadline_seconds=30)
    assert {int(key) for _, key in undone} == set(range(0, 1_000, 5))
    first = client.calls[: 1_000 // BATCH_ITEMS_MAX]
    assert [key for puts in first for key in sort_keys(puts)] == list(range(1_000))
    assert max(clock.naps[: len(first)]) == BACKOFF_FIRST_SECONDS
    assert max(clock.naps) == BACKOFF_MAX_SECONDS


def test_waves_double_until_one_is_refused_then_halve_and_grow_by_a_call():
    """Seen by the pauses: between two of them lies what one wave asked."""
    log: list[str] = []

    class Client(Scripted):
        def batch_write_item(self, RequestItems: dict[str, list[Any]]) -> dict[str, Any]:  # noqa: N803
            log.append("call")
            return super().batch_write_item(RequestItems)

    clock = Clock()

    def sleep(seconds: float) -> None:
        log.append("pause")
        clock.sleep(seconds)

    def one_refused(puts: list[Any]) -> list[Any]:
        return puts[:1]

    # Waves of 1, 2 and 4 calls are taken whole; of that of 8, of 4 and later of 5 one item is not.
    refused = (one_refused, *[nothing] * 7), (one_refused, *[nothing] * 3), (one_refused, nothing)
    client = Client(*[nothing] * 7, *refused[0], *refused[1], *[nothing] * 9, *refused[2])
    waiting = Waiting(sleep, lambda _, high: high)
    deadline = Deadline(clock.now + 60, clock)
    table = Table(client, "hot", threads=1)
    assert table.put_all(numbered(1_000), deadline, waiting) == set()
    first, second, third = (at for at, what in enumerate(log) if what == "pause")
    assert first == 1 + 2 + 4 + 8
    assert second - first - 1 == 4  # half of eight
    assert third - second - 1 == 2 + 3 + 4 + 5
    assert clock.naps == [BACKOFF_FIRST_SECONDS] * 3


def test_one_thread_is_the_callers_own():
    callers: set[int] = set()

    def noted(_puts: list[Any]) -> list[Any]:
        callers.add(threading.get_ident())
        return []

    assert put_all(Scripted(noted), 500)[0] == set()
    assert callers == {threading.get_ident()}


def test_no_call_of_a_wave_is_begun_after_the_deadline():
    clock = Clock()

    def slow(_puts: list[Any]) -> list[Any]:
        clock.sleep(1)
        return []

    client = Scripted(slow)
    deadline = Deadline(clock.now + 3.5, clock)
    undone = Table(client, "hot", threads=1).put_all(numbered(500), deadline, clock.waiting())
    assert (len(client.calls), len(undone)) == (4, 400)


class Forgetful:
    """Writes that give back other texts than those they were given."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def write(self, puts: Sequence[bytes]) -> list[bytes]:
        self.asked.append(len(puts))
        return [puts[0].replace(b":", b": ")] if len(self.asked) == 1 else []


def test_texts_that_were_not_given_acknowledge_nothing():
    clock, writes = Clock(), Forgetful()
    table = Table(Scripted(everything), "hot", threads=1, writes=writes)  # type: ignore[arg-type]
    deadline = Deadline(clock.now + 60, clock)
    assert table.put_all(numbered(10), deadline, clock.waiting()) == set()
    assert writes.asked == [10, 10]


def test_a_table_that_is_not_there_is_for_the_operator(account: Cloud):
    with pytest.raises(Misconfigured, match="write to nowhere"):
        write(Table(account.dynamodb, "nowhere"), rows_of(NAMED, typed()))


@pytest.mark.parametrize("threads", [1, 4, 16])
def test_many_items_by_many_threads(account: Cloud, threads: int):
    table = Table(account.dynamodb, fresh(account).name, threads)
    result = write(table, rows_of(NAMED, *(typed(count=n) for n in range(110))))
    assert (result.written, result.items) == (110, 110)
    assert len(contents(table)) == 110


# What is refused is told by the source record it came from


def refusing(device: str) -> Scripted:
    return Scripted(
        lambda puts: [put for put in puts if put["PutRequest"]["Item"]["device"]["S"] == device]
    )


def test_refused_rows_are_told_by_their_source_record():
    rows = rows_of(NAMED, typed("a"), typed("b"), typed("a", count=1), typed("b"), typed("a"))
    result = write(Table(refusing("b"), "hot"), rows, seconds=1)
    assert result == hot.HotOutcome(written=3, refused=2, items=2, rows=(1, 3))


def test_a_refused_repeat_refuses_both_records():
    rows = rows_of(NAMED, typed("b"), typed("a"), typed("b"))
    result = write(Table(refusing("b"), "hot"), rows, seconds=1)
    assert (result.refused, result.rows) == (2, (0, 2))


def test_rows_that_are_not_hot_are_neither_written_nor_refused():
    rows = rows_of(TELEMETRY, reading(moment=NOON - 2 * TTL), reading())
    result = write(Table(Scripted(everything), "hot"), rows, TELEMETRY, seconds=1)
    assert result == hot.HotOutcome(written=0, refused=1, items=0, rows=(1,))


def test_no_hot_rows_ask_for_nothing():
    client = Scripted(nothing)
    rows = rows_of(TELEMETRY, reading(moment=NOON - 2 * TTL))
    assert write(Table(client, "hot"), rows, TELEMETRY) == hot.HotOutcome(0, 0, 0, ())
    assert client.calls == []


def test_hot_items_are_made_of_a_few_landing_columns_only(table: Table):
    rows = rows_of(TELEMETRY, reading(), reading(seq=1))
    result = write(table, rows.select(hot.columns_of(TELEMETRY)), TELEMETRY)
    assert result.written == len(contents(table)) == 2


VERSION = """
name = "fleet"
version = {version}

[identity]
device = "device"
event_time = "at"
record_id = ["device", "at"]

[schema]
path = "v"

[[field]]
name = "device"
type = "string"

[[field]]
name = "at"
type = "timestamp"
format = "epoch_seconds"
"""
MORE = """
[[field]]
name = "humidity"
type = "float64"

[[field]]
name = "seen"
type = "timestamp"
format = "epoch_seconds"
"""


def test_an_item_has_its_own_versions_fields_whichever_is_current():
    """A record that names its version is the same item before and after another is made current."""
    old = parse_contract(VERSION.format(version=1).encode(), "old.toml")
    new = parse_contract((VERSION.format(version=2) + MORE).encode(), "new.toml")
    sent = delivery([b'{"device": "a", "at": 1764000000, "v": 2, "humidity": 40, "seen": 0}'])
    made = []
    for current, other in ((old, new), (new, old)):
        rows = Transform(current, 0, (other,)).apply(sent.table(), "raw/x").rows
        rows = rows.select(hot.columns_of(current, rows.column_names))
        made.append(items_of(rows, current))
    assert made[0] == made[1]
    ((item,),) = [each.values() for each in made[:1]]
    assert item["humidity"] == {"N": "40.0"}
    assert item["seen"] == {"S": "1970-01-01T00:00:00.000000Z"}
    chosen = (VERSION.format(version=1) + '[hot]\nfields = ["at"]\n').encode()
    choosy = parse_contract(chosen, "old.toml")
    rows = Transform(choosy, 0, (new,)).apply(sent.table(), "raw/x").rows
    (least,) = items_of(rows, choosy).values()
    assert "humidity" not in least
