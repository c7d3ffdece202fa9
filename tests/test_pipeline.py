"""Transform's promises, one by one: nothing lost, one verdict, a way back, an identity."""

import hashlib
import json
import math
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests import support
from transform import pipeline
from transform.contract_file import load_contract, parse_contract
from transform.kpl import aggregate, is_aggregate
from transform.kpl_reader import deaggregate
from transform.pipeline import Transform
from transform.records import (
    QUARANTINE_SCHEMA,
    RAW_SCHEMA,
    ConservationError,
    Counts,
    Delivery,
)
from transform.tables import hot_mask

SENSORS = Path(__file__).parents[2] / "shared/data/environment-sensors.ndjson"

SOME = settings(max_examples=100, deadline=None)

RAW_KEY = "raw/2026/11/24/02/object.parquet"
ARRIVAL = 1_794_448_984_000_000  # 2026-11-12T02:03:04Z, in microseconds
SECOND = 1_000_000

SOURCE = b"""
name = "probe"
version = 3

[identity]
device = "id"
event_time = "at"
record_id = ["id", "at", "place", "seq", "flag"]

[limits]
max_future_seconds = 10

[hot]
ttl_days = 1

[[field]]
name = "id"
type = "string"

[[field]]
name = "at"
type = "timestamp"
format = "epoch_millis"

[[field]]
name = "place"
type = "string"

[[field]]
name = "seq"
type = "int64"

[[field]]
name = "flag"
type = "bool"

[[field]]
name = "value"
type = "float64"

[[field]]
name = "seen"
type = "timestamp"
format = "iso8601"
"""
CONTRACT = parse_contract(SOURCE, "probe.toml")
POSITIONAL = parse_contract(SOURCE.replace(b"record_id", b"# record_id"), "probe.toml")
TRANSFORM = Transform(CONTRACT)

OWN = [field.name for field in CONTRACT.fields]
VERDICT = [*OWN, "_rescued", "_record_id", "_digest", "_contract", "_generation", "_version"]
REJECTED = ["_step", "_reason", "_field", "_detail", "_body", "_digest", "_generation"]


def reading(**fields):
    base = {"id": "d", "at": ARRIVAL // 1_000, "place": "here", "seq": 1, "flag": True}
    return json.dumps(base | fields).encode()


def delivered(bodies, source="kinesis", arrivals=None, first=1):
    """A Delivery of these bodies, as the raw table that Transform reads."""
    count = len(bodies)
    return Delivery(
        source=source,
        stream="stream",
        shards=["shardId-000000000000" if source == "kinesis" else ""] * count,
        sequences=[str(first + i) for i in range(count)],
        groups=[f"group {first + i}" for i in range(count)],
        arrivals=arrivals or [ARRIVAL] * count,
        attributes=[None] * count,
        bodies=list(bodies),
    ).table()


def apply(bodies, transform=TRANSFORM, raw_key=RAW_KEY, **options):
    return transform.apply(delivered(bodies, **options), raw_key)


# Conservation


def malformed_aggregate(body):
    packed = body[4:-16] + b"\x1a\x02\x08\x63"  # one more member, whose key there is not
    return body[:4] + packed + hashlib.md5(packed, usedforsecurity=False).digest()


goods = st.builds(reading, seq=st.integers(0, 9), value=st.floats(allow_nan=False) | st.none())
goods = goods.filter(lambda body: b"Infinity" not in body)
bads = st.sampled_from([b"", b"{}", b"\xff", b"[1", b"[]", reading(seq=1.5), reading(id="")])
bads |= st.just(reading(at=ARRIVAL // 1_000 + 10_001)) | st.binary(max_size=20)
elements = goods.map(lambda body: (body, True)) | bads.map(lambda body: (body, False))
records = elements.map(lambda element: (element[0], [element]))
aggregates = st.lists(elements, min_size=1, max_size=5).map(
    lambda found: (aggregate(("k", body) for body, _ in found), found)
)
broken = aggregates.map(lambda found: malformed_aggregate(found[0])).map(
    lambda body: (body, [(body, False)])
)
"""What arrives: a source record's body, and its elements with whether they are good."""

arriving = st.lists(records | records | aggregates | broken, max_size=12)


@SOME
@given(arriving)
def test_every_record_received_is_delivered_or_quarantined(found):
    batch = apply([body for body, _ in found])
    good = [all(fine for _, fine in elements) for _, elements in found]
    assert batch.counts == Counts(len(found), good.count(True), 0, good.count(False))
    # and, independently, by what is in the tables:
    rejected = set(batch.rejects.column("_index").to_pylist())
    assert rejected == {index for index, fine in enumerate(good) if not fine}
    landed = set(batch.rows.column("_index").to_pylist())
    assert landed | rejected == set(range(len(found)))
    members = [fine for _, elements in found for _, fine in elements]
    assert batch.rows.num_rows == members.count(True)
    assert batch.rejects.num_rows == members.count(False)


def test_a_partly_bad_aggregate_is_quarantined_and_its_good_rows_land():
    members = [("a", reading(seq=0)), ("b", b"{"), ("c", reading(seq=2)), ("d", b"[]")]
    batch = apply([reading(seq=9), aggregate(members)])
    assert batch.counts == Counts(received=2, delivered=1, dropped=0, quarantined=1)
    rows = batch.rows.select(["_index", "_sub", "seq"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [(0, 0, 9), (1, 0, 0), (1, 2, 2)]
    rejects = batch.rejects.select(["_index", "_sub", "_body", "_partition_key"]).to_pylist()
    assert [tuple(row.values()) for row in rejects] == [(1, 1, b"{", "b"), (1, 3, b"[]", "d")]


def test_counts_that_do_not_add_up_are_a_defect():
    with pytest.raises(ConservationError, match="counts do not add up"):
        Counts(received=3, delivered=1, dropped=0, quarantined=1)


def test_nothing_received_is_nothing_done():
    for source in ("kinesis", "sqs"):
        batch = apply([], source=source)
        assert batch.counts == Counts(0, 0, 0, 0)
        assert (batch.rows.num_rows, batch.rejects.num_rows, batch.hot_rows) == (0, 0, 0)


def test_a_delivery_may_be_bad_altogether():
    batch = apply([b"", b"{}", b"\xff"])
    assert batch.counts == Counts(received=3, delivered=0, dropped=0, quarantined=3)
    assert (batch.rows.num_rows, batch.rejects.num_rows, batch.hot_rows) == (0, 3, 0)


def test_a_queue_holds_no_aggregates():
    body = aggregate([("k", reading())])
    assert is_aggregate(body)
    batch = apply([body], source="sqs")
    assert batch.rejects.column("_reason").to_pylist() == ["not_utf8"]
    assert batch.rejects.column("_body").to_pylist() == [body]


@pytest.mark.parametrize("number", [2**63, 2**64, 10**400, -(2**63) - 1])
def test_no_number_kills_a_batch(number):
    telemetry = Transform(load_contract("telemetry"))
    message = {"device_id": "d", "ts": 0, "seq": 0, "readings": {"temperature": 1}}
    batch = apply([json.dumps(message | {"seq": s}) for s in (1, number)], telemetry)
    assert batch.rows.column("sequence").to_pylist() == [1]
    assert batch.rejects.column("_reason").to_pylist() == ["out_of_range"]
    assert batch.rejects.column("_field").to_pylist() == ["sequence"]


# The verdict


def verdicts(batch, first=1):
    """What was decided on each element, by source record and member."""
    found = {}
    for table, columns in ((batch.rows, VERDICT), (batch.rejects, REJECTED)):
        for row in table.to_pylist():
            place = (int(row["_sequence"]) - first, row["_sub"])
            assert place not in found
            found[place] = {name: row[name] for name in columns}
    return found


@SOME
@given(arriving, st.randoms(use_true_random=False))
def test_a_verdict_depends_on_neither_batch_nor_order_nor_attempt(found, random):
    bodies = [body for body, _ in found]
    together = verdicts(apply(bodies))
    assert verdicts(apply(bodies, raw_key="raw/another")) == together
    alone = {}
    for place, body in enumerate(bodies):
        alone |= verdicts(apply([body], first=place + 1))
    assert alone == together
    order = list(range(len(bodies)))
    random.shuffle(order)
    shuffled = verdicts(apply([bodies[place] for place in order]))
    assert {(order[at], sub): row for (at, sub), row in shuffled.items()} == together


@pytest.mark.parametrize(
    ("late", "fate"), [(0, "landed"), (-1, "future_time"), (10**15, "landed"), (1, "landed")]
)
def test_the_future_begins_at_arrival(late, fate):
    at = ARRIVAL // 1_000
    arrival = ARRIVAL - CONTRACT.max_future_seconds * SECOND + late
    batch = apply([reading(at=at)], arrivals=[arrival])
    reasons = batch.rejects.column("_reason").to_pylist()
    assert (reasons or ["landed"]) == [fate]
    if reasons:
        assert batch.rejects.column("_step").to_pylist() == ["check"]
        assert batch.rejects.column("_field").to_pylist() == ["at"]
        assert batch.rejects.column("_detail").to_pylist() == [
            "event time is 10 s beyond arrival; the contract takes 10 s"
        ]


def test_each_record_is_judged_by_its_own_arrival():
    body = reading()
    batch = apply([body] * 3, arrivals=[ARRIVAL, ARRIVAL - 11 * SECOND, ARRIVAL + 10**15])
    assert batch.rows.column("_index").to_pylist() == [0, 2]
    assert batch.rejects.column("_index").to_pylist() == [1]


# Origin


TO_COME = b'{"id": "d", "at": 1794448994001, "place": "here", "seq": 1, "flag": true}'


@SOME
@given(arriving)
@example([(TO_COME, [(TO_COME, False)]), (b"{}", [(b"{}", False)])])  # refused late, and at once
def test_every_row_leads_back_to_its_bytes(found):
    raw = delivered([body for body, _ in found], first=7)
    batch = TRANSFORM.apply(raw, RAW_KEY)
    for row in batch.rows.to_pylist() + batch.rejects.to_pylist():
        source = raw.slice(row["_index"], 1).to_pylist()[0]
        body = source["_body"]
        if body.lstrip().startswith(b"\x1e"):
            continue  # of a JSON text sequence, which opens: tests/test_envelope.py
        if is_aggregate(body) and row.get("_reason") != "malformed_aggregate":
            body = list(deaggregate(body))[row["_sub"]][1]
        assert row["_digest"] == hashlib.blake2b(body, digest_size=16).digest()
        assert row.get("_body", body) == body
        assert row["_raw"] == RAW_KEY
        assert row["_child"] == 0
        for name in ("_stream", "_shard", "_sequence", "_arrival"):
            assert row[name] == source[name]


def test_a_digest_is_of_the_elements_own_bytes():
    # Pitfall: after a timeout a gateway sends [r1, r2] again as [r2, r3].
    r1, r2, r3 = (reading(seq=seq) for seq in (1, 2, 3))
    first = aggregate([("k", r1), ("k", r2)])
    second = aggregate([("other", r2), ("k", r3)])
    rows = apply([first, second, r2]).rows.to_pylist()
    same = [row for row in rows if row["seq"] == 2]
    assert len(same) == 3
    assert len({row["_digest"] for row in same}) == 1
    assert len({row["_record_id"] for row in same}) == 1
    assert len({row["_digest"] for row in rows}) == 3


def test_other_bytes_of_one_record_id_are_told_apart():
    rows = apply([reading(value=1), reading(value=2)]).rows.to_pylist()
    assert rows[0]["_record_id"] == rows[1]["_record_id"]
    assert rows[0]["_digest"] != rows[1]["_digest"]


# Identity


def record_ids(bodies, transform=TRANSFORM, **options):
    batch = apply(bodies, transform, **options)
    assert batch.rejects.num_rows == 0
    return batch.rows.column("_record_id").to_pylist()


def test_a_record_id_is_readable():
    assert record_ids([reading()]) == ["d/2026-11-12T02:03:04.000000Z/here/1/true"]
    # a moment is read to the microsecond, and its id holds all of them
    assert record_ids([reading(at=-1.5)]) == ["d/1969-12-31T23:59:59.998500Z/here/1/true"]


@pytest.mark.parametrize(
    ("millis", "text"),
    [
        (-62_135_596_800_000, "0001-01-01T00:00:00.000000Z"),
        (0, "1970-01-01T00:00:00.000000Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000000Z"),
        ("253402300799999.999", "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_a_record_id_holds_any_moment(millis, text):
    body = reading(at=millis)
    assert record_ids([body], arrivals=[253_402_300_799_999_999])[0].split("/")[1] == text


def test_text_in_a_record_id_is_escaped():
    assert record_ids([reading(id="a/b", place="50%/2")])[0].startswith("a%2Fb/2026-")
    assert record_ids([reading(place="50%/2")])[0].endswith("Z/50%25%2F2/1/true")


odd = st.text("/%25Fdé@\x00 ", max_size=6)


@SOME
@given(
    st.lists(
        st.tuples(odd.filter(bool), st.integers(-3, 3), odd, st.integers(-12, 12), st.booleans()),
        unique=True,
        min_size=2,
        max_size=40,
    )
)
def test_no_two_different_field_tuples_share_a_record_id(tuples):
    names = ("id", "at", "place", "seq", "flag")
    ids = record_ids([reading(**dict(zip(names, values, strict=True))) for values in tuples])
    assert len(set(ids)) == len(ids)


def test_without_a_record_id_every_position_is_a_record_of_its_own():
    positional = Transform(POSITIONAL)
    body = reading()
    ids = record_ids([body, body, aggregate([("k", body), ("k", body)])], positional)
    assert ids == [
        "@stream/shardId-000000000000/1/0/0",
        "@stream/shardId-000000000000/2/0/0",
        "@stream/shardId-000000000000/3/0/0",
        "@stream/shardId-000000000000/3/1/0",
    ]
    assert record_ids([body], positional, source="sqs") == ["@stream//1/0/0"]


# Generation


def test_a_generation_names_contract_code_and_epoch(monkeypatch):
    digests = {TRANSFORM.generation.digest}
    digests.add(Transform(CONTRACT, epoch=1).generation.digest)
    digests.add(Transform(parse_contract(SOURCE + b"# remark\n", "f")).generation.digest)
    digests.add(Transform(parse_contract(SOURCE.replace(b"= 3", b"= 4"), "f")).generation.digest)
    monkeypatch.setattr(pipeline, "CODE_VERSION", (9, 9, 9))
    digests.add(Transform(CONTRACT).generation.digest)
    assert len(digests) == 5


def test_a_generation_is_the_same_in_every_process():
    assert Transform(parse_contract(SOURCE, "elsewhere")).generation == TRANSFORM.generation


def test_a_version_orders_by_contract_and_then_by_code(monkeypatch):
    def version(contract, code):
        monkeypatch.setattr(pipeline, "CODE_VERSION", code)
        source = SOURCE.replace(b"version = 3", b"version = %d" % contract)
        return Transform(parse_contract(source, "probe.toml")).generation.version

    ascending = [
        version(*rules)
        for rules in [
            (1, (0, 0, 1)),
            (1, (0, 0, 2)),
            (1, (0, 0, 999)),
            (1, (0, 1, 0)),
            (1, (0, 10, 0)),
            (1, (1, 0, 0)),
            (1, (999, 999, 999)),
            (2, (0, 0, 1)),
            (9_999, (999, 999, 999)),
        ]
    ]
    assert all(lesser < greater for lesser, greater in pairwise(ascending))
    assert ascending[-1] < 10**15  # what JSONata prints without an exponent


def test_every_row_carries_its_generation():
    transform = Transform(CONTRACT, epoch=5)
    batch = apply([reading(), b"{"], transform)
    for table in (batch.rows, batch.rejects):
        assert table.column("_epoch").to_pylist() == [5]
        assert table.column("_version").to_pylist() == [transform.generation.version]
        assert table.column("_generation").to_pylist() == [transform.generation.digest]
        assert table.column("_contract").to_pylist() == ["probe"]


# Hot


def test_the_hot_table_keeps_what_was_not_past_its_ttl_at_arrival():
    ttl = CONTRACT.hot_ttl_seconds * SECOND
    at = ARRIVAL // 1_000 * 1_000
    arrivals = [at - 10 * SECOND, at, at + ttl - 1, at + ttl, at + ttl + 1, at + 9 * ttl]
    batch = apply([reading(at=at // 1_000)] * len(arrivals), arrivals=arrivals)
    mask = hot_mask(batch.rows, CONTRACT).to_pylist()
    assert mask == [True, True, True, False, False, False]
    assert batch.hot_rows == 3
    assert batch.counts.delivered == len(arrivals)  # the others are delivered all the same


def test_without_a_ttl_every_row_is_hot():
    forever = parse_contract(SOURCE.replace(b"ttl_days", b"# ttl_days"), "probe.toml")
    batch = apply([reading(at=0), reading()], Transform(forever))
    assert hot_mask(batch.rows, forever).to_pylist() == [True, True]
    assert batch.hot_rows == 2


# Schema


@SOME
@given(arriving)
def test_whatever_arrives_the_schemas_are_the_declared_ones(found):
    batch = apply([body for body, _ in found])
    assert batch.rows.schema.equals(CONTRACT.landing_schema(), check_metadata=True)
    assert batch.rejects.schema.equals(QUARANTINE_SCHEMA, check_metadata=True)
    for table in (batch.rows, batch.rejects):
        table.validate(full=True)
        for column, field in zip(table.columns, table.schema, strict=True):
            assert field.nullable or column.null_count == 0


def test_raw_is_what_came():
    bodies = [b"", b"\xff\x00", reading()]
    raw = delivered(bodies, source="sqs", arrivals=[0, -1, ARRIVAL])
    assert raw.schema.equals(RAW_SCHEMA, check_metadata=True)
    assert raw.column("_body").to_pylist() == bodies
    assert raw.column("_arrival").cast(pa.int64()).to_pylist() == [0, -1, ARRIVAL]


def test_what_is_absent_is_null_in_its_column():
    batch = apply([reading(), reading(value=None, seen=None), reading(value=0)])
    assert batch.rows.column("value").to_pylist() == [None, None, 0.0]
    assert batch.rows.column("seen").null_count == 3
    assert batch.rows.column("_rescued").null_count == 3


def test_what_the_contract_does_not_know_lands_as_text():
    batch = apply([reading(), reading(extra={"a": [1.50]})])
    assert batch.rows.column("_rescued").to_pylist() == [None, '{"extra":{"a": [1.5]}}']


def test_raw_may_come_in_chunks():
    bodies = [reading(seq=seq) for seq in range(4)] + [b"{"]
    whole = delivered(bodies)
    parts = pa.concat_tables([whole.slice(0, 2), whole.slice(2, 0), whole.slice(2)])
    assert TRANSFORM.apply(parts, RAW_KEY) == TRANSFORM.apply(whole, RAW_KEY)


# Real messages


@pytest.mark.skipif(not SENSORS.exists(), reason="the shared data file is not here")
def test_the_real_messages_arrive_to_the_last_digit():
    bodies = SENSORS.read_bytes().splitlines()
    transform = Transform(load_contract("environment-sensors"))
    batch = apply(bodies, transform)
    assert batch.counts == Counts(received=9_995, delivered=9_995, dropped=0, quarantined=0)
    assert transform.plans.only is not None
    fast = transform.plans.only.message.fast
    assert all(fast(body) is not None for body in bodies)
    rows = batch.rows
    assert rows.column("_rescued").null_count == 9_995
    assert rows.column("_index").to_pylist() == list(range(9_995))

    exact = [json.loads(body, parse_float=Decimal) for body in bodies]
    plain = [json.loads(body) for body in bodies]
    for name in ("device_id", "device"):
        assert rows.column(name).to_pylist() == [message[name] for message in plain]
    for name in ("light", "motion"):
        assert rows.column(name).to_pylist() == [message["data"][name] for message in plain]
    measured = {"temperature": "temp"} | {n: n for n in ("co", "lpg", "smoke", "humidity")}
    for name, key in measured.items():
        expected = [message["data"][key] for message in plain]
        column = rows.column(name)
        assert column.to_pylist() == expected
        assert math.fsum(column.to_pylist()) == math.fsum(expected)
        extremes = pc.min_max(column).as_py()
        assert (extremes["min"], extremes["max"]) == (min(expected), max(expected))
    micros = [int((message["ts"] * SECOND).to_integral_value(ROUND_HALF_EVEN)) for message in exact]
    times = rows.column("event_time").cast(pa.int64()).to_pylist()
    assert times == micros
    assert sum(times) == sum(micros)
    assert len(set(rows.column("_record_id").to_pylist())) == len(
        {(message["device_id"], at) for message, at in zip(exact, micros, strict=True)}
    )
    assert len(set(rows.column("_digest").to_pylist())) == len(set(bodies))


def test_records_read_many_at_a_time_are_as_those_read_one_by_one():
    """Where a part ends, where what is read at once does, and beside what is not ordinary."""
    broken = {0, 1, 1_023, 1_024, 2_047, 5_000, 8_191, 8_192, 8_193, 8_194, 9_999}
    ahead = {7, 1_025, 8_196}  # ordinary to the reader, and rejected for its time
    unknown = {2, 1_022, 1_026, 8_195, 9_998}

    def body(number: int) -> bytes:
        moment = support.NOON + 86_400 * SECOND * (number in ahead)
        more = {"unheard": number} if number in unknown else {}
        return b"{" if number in broken else support.reading(moment=moment, seq=number, **more)

    bodies = [body(number) for number in range(10_000)]
    rules = Transform(load_contract("telemetry"))
    many = rules.apply(support.delivery(bodies).table(), RAW_KEY)
    one = rules.apply(support.delivery([*bodies, bodies[3] + b"\n"]).table(), RAW_KEY)
    assert many.counts == Counts(received=10_000, delivered=9_986, dropped=0, quarantined=14)
    assert many.rows.equals(one.rows.slice(0, 9_986))
    assert many.rejects.equals(one.rejects)
    assert many.hot_rows + 1 == one.hot_rows
    assert many.rows.column("_rescued").null_count == 9_986 - len(unknown)
    parts = [len(part) for part in many.rows.column("_index").chunks]
    assert parts[:-1] == [len(part) for part in one.rows.column("_index").chunks][:-1]
    assert len(parts) == 2
