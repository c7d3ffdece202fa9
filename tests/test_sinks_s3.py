"""Objects are named by the digest of their own bytes; S3's weather is told from defects."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.config import Config
from botocore.exceptions import NoCredentialsError
from hypothesis import given
from hypothesis import strategies as st

from infra.doubles.s3 import S3
from infra.doubles.world import Scripted
from sinks import landing, parquet, raw
from sinks.bucket import RACES_MAX, Bucket
from sinks.deadline import Deadline
from sinks.errors import (
    DeadlinePassed,
    Gone,
    Misconfigured,
    Refused,
    SinkError,
    Unavailable,
    translated,
)
from tests.support import (
    NOON,
    SECOND,
    SOME,
    Answer,
    Clock,
    Cloud,
    answer,
    delivery,
    drop,
    loopback,
    reading,
    s3_error,
    stall,
)
from transform.contract_file import load_contract
from transform.pipeline import Transform
from transform.records import QUARANTINE_SCHEMA, RAW_SCHEMA, Batch

TELEMETRY = load_contract("telemetry")
ONCE = Config(
    connect_timeout=1,
    read_timeout=0.2,
    retries={"total_max_attempts": 1},
    s3={"addressing_style": "path"},
)
DONE = answer(200, headers={"ETag": '"x"'})


def ahead(seconds: float = 60) -> Deadline:
    clock = Clock()
    return Deadline(clock.now + seconds, clock)


def batch(*bodies: bytes) -> Batch:
    return Transform(TELEMETRY).apply(delivery(bodies).table(), "raw/2026-11-24/12/x.parquet")


# Names


@SOME
@given(st.binary(max_size=64), st.integers(-(10**15), 4 * 10**15))
def test_an_object_is_named_by_its_arrival_hour_and_its_bytes(data: bytes, arrival: int):
    class Client:
        def put_object(self, **call: Any) -> None:
            calls.append(call)

    calls: list[dict[str, Any]] = []
    key = Bucket(Client(), "bucket").put_once("landing/telemetry", arrival, data)
    hour = datetime.fromtimestamp(arrival // SECOND, UTC)
    digest = hashlib.sha256(data).hexdigest()
    assert key == f"landing/telemetry/{hour:%Y-%m-%d/%H}/{digest}.parquet"
    assert calls == [{"Bucket": "bucket", "Key": key, "Body": data, "IfNoneMatch": "*"}]


def test_the_hour_ends_with_its_last_microsecond(account: Cloud):
    put = account.bucket.put_once
    assert put("raw", NOON - 1, b"x").startswith("raw/2026-11-24/11/")
    assert put("raw", NOON, b"x").startswith("raw/2026-11-24/12/")


def test_the_same_bytes_are_one_object_and_other_bytes_another(account: Cloud):
    keys = [account.bucket.put_once("raw", NOON, data) for data in (b"a", b"a", b"b")]
    assert keys[0] == keys[1] != keys[2]
    assert sorted(account.keys()) == sorted(set(keys))
    assert account.bucket.get(keys[0]) == b"a"


def test_a_key_that_is_taken_is_never_overwritten(account: Cloud):
    key = account.bucket.put_once("raw", NOON, b"a")
    account.s3.put_object(Bucket=account.bucket.name, Key=key, Body=b"somebody else's")
    assert account.bucket.put_once("raw", NOON, b"a") == key
    assert account.bucket.get(key) == b"somebody else's"


def test_keys_are_listed_over_pages():
    with loopback(
        page("<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>", 1),
        page("<IsTruncated>false</IsTruncated>", 2),
        page("<IsTruncated>false</IsTruncated>"),
    ) as server:
        bucket = Bucket(server.client("s3", ONCE), "bucket")
        assert list(bucket.keys("raw/")) == ["raw/1", "raw/2"]
        assert list(bucket.keys("lake/")) == []
        assert "continuation-token=t" in server.requests[1][0]


def page(more: str, *numbers: int) -> Answer:
    keys = "".join(f"<Contents><Key>raw/{number}</Key></Contents>" for number in numbers)
    return answer(200, f"<ListBucketResult>{more}{keys}</ListBucketResult>".encode())


# Races and lost answers


def test_412_is_success():
    with loopback(s3_error(412, "PreconditionFailed")) as server:
        key = Bucket(server.client("s3", ONCE), "bucket").put_once("raw", NOON, b"x")
        assert server.requests == [(f"PUT /bucket/{key}", b"x")]


def test_a_lost_answer_is_asked_again_and_found_done():
    twice = ONCE.merge(Config(retries={"total_max_attempts": 2}))
    with loopback(drop, s3_error(412, "PreconditionFailed")) as server:
        key = Bucket(server.client("s3", twice), "bucket").put_once("raw", NOON, b"x")
        assert server.requests == 2 * [(f"PUT /bucket/{key}", b"x")]


def test_409_is_tried_again():
    with loopback(*2 * [s3_error(409, "ConditionalRequestConflict")], DONE) as server:
        Bucket(server.client("s3", ONCE), "bucket").put_once("raw", NOON, b"x", ahead())
        assert len(server.requests) == 3


def test_409_without_end_is_weather():
    with loopback(s3_error(409, "ConditionalRequestConflict")) as server:
        bucket = Bucket(server.client("s3", ONCE), "bucket")
        with pytest.raises(Unavailable, match=r"put s3://bucket/raw/.*: another writer"):
            bucket.put_once("raw", NOON, b"x", ahead())
        assert len(server.requests) == RACES_MAX


def test_409_is_not_tried_again_after_the_deadline():
    clock = Clock()

    def late(exchange: Any) -> None:
        clock.now += 2
        s3_error(409, "ConditionalRequestConflict")(exchange)

    with loopback(late) as server:
        bucket = Bucket(server.client("s3", ONCE), "bucket")
        with pytest.raises(DeadlinePassed, match=r"put s3://.* passed 1\.0 s ago"):
            bucket.put_once("raw", NOON, b"x", Deadline(clock.now + 3, clock))
        assert len(server.requests) == 2


@pytest.mark.parametrize("seconds", [0, -1])
def test_nothing_is_begun_at_or_after_the_deadline(seconds: float):
    with loopback(DONE) as server:
        bucket = Bucket(server.client("s3", ONCE), "bucket")
        with pytest.raises(DeadlinePassed):
            bucket.put_once("raw", NOON, b"x", ahead(seconds))
        with pytest.raises(DeadlinePassed):
            raw.archive(bucket, delivery([b"x"]), ahead(seconds))
        with pytest.raises(DeadlinePassed):
            landing.write(bucket, TELEMETRY, batch(reading(), b"x"), ahead(seconds))
        assert server.requests == []


# Errors


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (s3_error(500, "InternalError"), Unavailable),
        (s3_error(503, "SlowDown"), Unavailable),
        (s3_error(503, "ServiceUnavailable"), Unavailable),
        (answer(502, b"<html>Bad Gateway</html>"), Unavailable),
        (answer(429), Unavailable),
        (s3_error(400, "RequestTimeout"), Unavailable),
        (s3_error(400, "ThrottlingException"), Unavailable),
        (stall, Unavailable),
        (drop, Unavailable),
        (s3_error(404, "NoSuchBucket"), Misconfigured),
        (s3_error(403, "AccessDenied"), Misconfigured),
        (s3_error(403, "InvalidAccessKeyId"), Misconfigured),
        (s3_error(403, "SignatureDoesNotMatch"), Misconfigured),
        (s3_error(400, "ExpiredToken"), Misconfigured),
        (s3_error(400, "EntityTooLarge"), Refused),
    ],
)
def test_what_s3_says_is_told_apart(script: Answer, error: type[Exception]):
    with loopback(script) as server:
        bucket = Bucket(server.client("s3", ONCE), "bucket")
        with pytest.raises(error) as raised:
            bucket.put_once("raw", NOON, b"x")
        assert isinstance(raised.value, SinkError) == (error is not Refused)
        if error is not Refused:
            assert str(raised.value).startswith("put s3://bucket/raw/2026-11-24/12/")
        with pytest.raises(error):
            bucket.get("raw/x")
        with pytest.raises(error):
            list(bucket.keys("raw/"))


def test_an_object_that_is_not_there_is_no_weather(account: Cloud):
    with pytest.raises(Gone, match="get s3://millrace/raw/nothing: NoSuchKey"):
        account.bucket.get("raw/nothing")
    assert account.bucket.find("raw/nothing") is None


def test_a_bucket_that_is_not_there_is_for_the_operator(account: Cloud):
    with pytest.raises(Misconfigured, match="get s3://no-such-bucket/x"):
        Bucket(account.s3, "no-such-bucket").get("x")


def test_nobody_listening_is_weather():
    with loopback(DONE) as server:
        client = server.client("s3", ONCE)
    with pytest.raises(Unavailable):
        Bucket(client, "bucket").put_once("raw", NOON, b"x")


@pytest.mark.parametrize(
    "script",
    [
        answer(200, b"x" * 1_000, cut_bytes=400),
        answer(200, b"x", headers={"x-amz-checksum-crc32": "AAAAAA=="}),
    ],
)
def test_an_object_cut_short_or_garbled_is_weather(script: Answer):
    with loopback(script) as server:
        bucket = Bucket(server.client("s3", ONCE), "bucket")
        with pytest.raises(Unavailable, match="get s3://bucket/raw/x"):
            bucket.get("raw/x")


def test_a_listing_that_is_no_listing_is_weather():
    with loopback(answer(200, b"<html>hotel wifi")) as server:
        bucket = Bucket(server.client("s3", ONCE), "bucket")
        with pytest.raises(Unavailable, match="list s3://bucket/raw/"):
            list(bucket.keys("raw/"))


def test_missing_credentials_are_for_the_operator():
    with (
        pytest.raises(Misconfigured, match="put it: Unable to locate credentials"),
        translated("put it"),
    ):
        raise NoCredentialsError


# Parquet


def test_encoding_is_deterministic_and_blind_to_chunks():
    table = batch(*(reading(seq=number) for number in range(500))).rows
    pieces = pa.concat_tables([table.slice(0, 123), table.slice(123, 1), table.slice(124)])
    assert pieces.column(0).num_chunks == 3
    assert parquet.encode(table) == parquet.encode(table) == parquet.encode(pieces)


def test_the_declared_schemas_come_back_whole():
    made = batch(reading(fw="1.0", unknown={"a": [1]}), b"no", reading(status="degraded"))
    declared = TELEMETRY.landing_schema()
    archived = delivery([b"\xff", b""]).table()
    for table, schema in (
        (made.rows, declared),
        (made.rejects, QUARANTINE_SCHEMA),
        (archived, RAW_SCHEMA),
        (made.rows.slice(0, 0), declared),
    ):
        read = parquet.decode(parquet.encode(table))
        assert read.schema.equals(schema, check_metadata=True)
        assert read.equals(table)


def test_a_tables_metadata_are_the_files():
    table = batch(reading()).rows.replace_schema_metadata({b"a": b"1"})
    assert parquet.File(parquet.encode(table)).metadata == {b"a": b"1"}


@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_files_as_they_used_to_be_written_are_read(compression: str):
    table = batch(reading(), reading(seq=1)).rows.replace_schema_metadata({landing.CONTRACT: b"1"})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression=compression, write_page_index=True)
    file = parquet.File(sink.getvalue().to_pybytes())
    assert (file.rows, file.names, file.metadata) == (
        2,
        table.column_names,
        {landing.CONTRACT: b"1"},
    )
    assert file.read().equals(table)


def test_all_null_columns_keep_their_type():
    read = parquet.decode(parquet.encode(batch(reading()).rows))
    assert read.column("humidity").null_count == 1
    assert read.schema.field("humidity").type == pa.float64()


def test_some_columns_can_be_read():
    data = parquet.encode(batch(reading(), reading(seq=1)).rows)
    read = parquet.decode(data, ["sequence", "_index"])
    assert read.to_pydict() == {"sequence": [0, 1], "_index": [0, 1]}


@pytest.mark.parametrize("rows", [0, 1, 1_000])
def test_rows_are_counted_from_the_footer(rows: int):
    data, counted = parquet.write(pa.table({"n": pa.array(range(rows), pa.int64())}))
    assert parquet.File(data).rows == counted == rows
    with pytest.raises(pa.ArrowInvalid):
        parquet.File(data[:-1])


# Raw, landing and quarantine


def test_a_delivery_is_archived_exactly_as_it_came(account: Cloud):
    given_ = delivery([b"\x00\xff", b"", reading()], arrival=NOON + 3)
    key = raw.archive(account.bucket, given_, ahead())
    assert raw.archive(account.bucket, given_, ahead()) == key
    assert raw.read(account.bucket, key).equals(given_.table())
    assert account.keys() == [key]


def test_a_delivery_is_filed_under_its_earliest_arrival(account: Cloud):
    late = delivery([b"a", b"b", b"c"])
    late.arrivals[:] = [NOON + SECOND, NOON - 1, NOON]
    assert raw.archive(account.bucket, late, ahead()).startswith("raw/2026-11-24/11/")


def test_a_batch_is_filed_under_the_earliest_arrival_of_what_it_holds(account: Cloud):
    mixed = delivery([reading(), reading(seq=1), b"no", b"no"])
    mixed.arrivals[:] = [NOON, NOON - 1, NOON + SECOND, NOON]
    made = Transform(TELEMETRY).apply(mixed.table(), "raw/x")
    landed = landing.write(account.bucket, TELEMETRY, made, ahead())
    assert landed.landing_key.startswith("landing/telemetry/2026-11-24/11/")
    assert landed.quarantine_key.startswith("quarantine/telemetry/2026-11-24/12/")


def test_a_batch_becomes_one_object_of_each_kind(account: Cloud):
    made = batch(reading(), b"no", reading(seq=1))
    landed = landing.write(account.bucket, TELEMETRY, made, ahead())
    assert account.keys() == [landed.landing_key, landed.quarantine_key]
    assert landed.landing_key.startswith("landing/telemetry/2026-11-24/12/")
    assert landed.quarantine_key.startswith("quarantine/telemetry/2026-11-24/12/")
    assert (landed.landing_rows, landed.quarantine_rows) == (2, 1)
    assert landed.landing_bytes == len(account.bucket.get(landed.landing_key))
    assert landing.read(account.bucket, landed.landing_key).equals(made.rows)
    assert landing.read(account.bucket, landed.quarantine_key).equals(made.rejects)
    assert landing.write(account.bucket, TELEMETRY, made, ahead()) == landed


@pytest.mark.parametrize(
    ("bodies", "prefixes"),
    [((), []), ((reading(),), ["landing"]), ((b"no",), ["quarantine"])],
)
def test_nothing_is_written_for_no_rows(
    account: Cloud, bodies: tuple[bytes, ...], prefixes: list[str]
):
    landed = landing.write(account.bucket, TELEMETRY, batch(*bodies), ahead())
    assert [key.partition("/")[0] for key in account.keys("")] == prefixes
    assert bool(landed.landing_key) == ("landing" in prefixes)
    assert bool(landed.quarantine_key) == ("quarantine" in prefixes)


def test_what_is_set_aside_is_durable_before_anything_is_landed():
    """A landing write that fails leaves the quarantine object; the retry finds it done."""
    with loopback(DONE, s3_error(503, "SlowDown"), s3_error(412, "Taken"), DONE) as server:
        bucket = Bucket(server.client("s3", ONCE), "bucket")
        made = batch(reading(), b"no")
        with pytest.raises(Unavailable):
            landing.write(bucket, TELEMETRY, made, ahead())
        landed = landing.write(bucket, TELEMETRY, made, ahead())
    asked = [what.removeprefix("PUT /bucket/") for what, _ in server.requests]
    assert asked == 2 * [landed.quarantine_key, landed.landing_key]


def test_nothing_is_landed_when_setting_aside_fails():
    with loopback(s3_error(503, "SlowDown")) as server:
        bucket = Bucket(server.client("s3", ONCE), "bucket")
        with pytest.raises(Unavailable):
            landing.write(bucket, TELEMETRY, batch(reading(), b"no"), ahead())
        ((asked, _),) = server.requests
    assert asked.startswith("PUT /bucket/quarantine/")


def test_a_write_that_replaces_is_weather_where_another_is_under_way():
    double = S3(Scripted(["conflict"]), {"bucket": {}})
    bucket = Bucket(double, "bucket")  # type: ignore[arg-type]
    with pytest.raises(Unavailable):
        bucket.put("control/x.json", b"{}")
    bucket.put("control/x.json", b"{}")
    assert next(iter(bucket.written("control/")))[0] == "control/x.json"
