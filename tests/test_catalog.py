"""What Glue and Athena are told: they take it, and what it says of a bucket is so."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import boto3
import duckdb
import msgspec
import pyarrow as pa
import pytest
import sqlglot
from click.testing import CliRunner, Result
from moto import mock_aws
from sqlglot import exp
from sqlglot.optimizer.qualify import qualify

from infra.catalog import glue
from infra.catalog.queries import Query, queries
from infra.catalog.tables import Ambiguous, Table, ledger, tables, tables_of
from infra.cli.catalog import catalog
from infra.contracts.kept import kept
from infra.doubles.s3 import S3
from infra.doubles.world import Calm
from infra.lake import plain
from sinks import contracts, distinct, landing, registry
from sinks.bucket import Bucket
from sinks.comments import COMMENT_MAX_CHARACTERS
from sinks.deadline import Deadline
from sinks.lake import manifest
from sinks.lake.manifest import Manifest, Partition, Seal
from sinks.ledger import Attempt
from tests.support import NOON, SECOND, delivery, reading
from tests.test_contract_schema import EVERYTHING, TELEMETRY, VERBS
from transform.contract import Contract
from transform.contract_file import parse_contract
from transform.pipeline import Transform
from transform.records import DROPPED_SCHEMA, QUARANTINE_SCHEMA

ALL = {one.name: [one] for one in (TELEMETRY, EVERYTHING, VERBS)}
HOUR_MICROS = 3_600 * SECOND
HOUR = NOON // HOUR_MICROS
NEWER = parse_contract(
    TELEMETRY.source.replace(b'name = "firmware"', b'name = "build"').replace(
        b"version = 1", b"version = 2"
    ),
    "newer.toml",
)


def run(*arguments: str) -> Result:
    names = ["-h", "--help"]  # the group's own; a command keeps the first that it is asked for
    return CliRunner().invoke(catalog, arguments, help_option_names=names)


@pytest.fixture
def bucket() -> Bucket:
    s3 = S3(Calm())
    s3.create_bucket(Bucket="b")
    return Bucket(s3, "b")  # type: ignore[arg-type]  a double at the client's level


# ---- Tables ----


def test_athena_takes_every_statement_and_its_columns_are_those_of_the_objects():
    found = {table.name: sqlglot.parse(glue.ddl(table), dialect="athena") for table in tables(ALL)}
    for name, statements in found.items():
        (made,) = [one for one in statements if one is not None]
        assert isinstance(made, exp.Create)
        assert made.find(exp.Table).name == name
    for contract in (TELEMETRY, EVERYTHING, VERBS):
        for table, schema in (
            (f"{contract.name}_landing", contract.landing_schema()),
            (f"quarantine_{contract.name}", QUARANTINE_SCHEMA),
            (f"dropped_{contract.name}", DROPPED_SCHEMA),
        ):
            assert columns_of(found[table][0]) == schema.names
    assert sqlglot.parse_one(glue.database_ddl(), dialect="athena")


def columns_of(made: Any) -> list[str]:
    return [column.name for column in made.this.expressions]


def test_columns_say_what_they_are_in_which_unit_and_that_times_are_utc():
    (made,) = sqlglot.parse(glue.ddl(landing_of(EVERYTHING)), dialect="athena")
    told = {
        column.name: column.find(exp.CommentColumnConstraint).this.name
        for column in made.this.expressions
        if column.find(exp.CommentColumnConstraint)
    }
    assert told["ratio"] == "Share | of [%]"
    assert told["at"] == "(event time, UTC)"
    assert told["seconds"] == "(UTC)"
    assert told["_arrival"] == "When the source took it (UTC)"
    lineage = [name for name in EVERYTHING.landing_schema().names if name.startswith("_")]
    assert set(lineage) <= told.keys()
    about = made.args["properties"].find(exp.SchemaCommentProperty).this.name
    assert about.startswith("It's | all")


def landing_of(contract: Contract) -> Table:
    return tables_of([contract])[0]


def test_a_comment_is_cut_to_what_glue_takes_and_still_says_utc():
    source = TELEMETRY.source.replace(b"by its own clock", b"by its clock\\n" + b"x" * 400)
    (told,) = [
        column.comment
        for column in landing_of(parse_contract(source, "x")).columns
        if column.name == "event_time"
    ]
    assert len(told) <= COMMENT_MAX_CHARACTERS
    assert told.endswith("x… (event time, UTC)")
    assert "\n" not in told


def test_no_column_can_be_a_partition_key():
    for table in tables(ALL):
        assert not set(glue.PARTITIONS) & {column.name for column in table.columns}


def test_a_table_has_the_columns_of_every_version():
    names = [column.name for column in tables_of([TELEMETRY, NEWER])[0].columns]
    assert names == [*NEWER.landing_schema().names, "firmware"]


def test_two_tables_of_one_name_are_told():
    named = replace(TELEMETRY, name="raw")
    with pytest.raises(Ambiguous, match="two tables would be called raw"):
        tables({"raw": [named]})


def test_glue_takes_them():
    given = json.loads(run("telemetry", "--bucket", "mine", "--format", "glue").stdout)
    with mock_aws():
        client = boto3.client("glue", region_name="eu-central-1")
        for database in given:
            client.create_database(DatabaseInput=database["DatabaseInput"])
            name = database["DatabaseInput"]["Name"]
            for table in database["TableInputs"]:
                client.create_table(DatabaseName=name, TableInput=table)
                held = client.get_table(DatabaseName=name, Name=table["Name"])["Table"]
                assert table.items() <= held.items()
    assert [database["DatabaseInput"]["Name"] for database in given] == [
        "millrace",
        "millrace_ledger",
    ]
    landed = given[0]["TableInputs"][0]
    assert landed["StorageDescriptor"]["Location"] == "s3://mine/landing/telemetry/"
    template = landed["Parameters"]["storage.location.template"]
    assert template == "s3://mine/landing/telemetry/${_day}/${_hour}/"
    (attempts,) = given[1]["TableInputs"]
    assert attempts["Parameters"]["sourceTable"] == "millrace-ledger"


def test_the_ledgers_columns_are_an_items():
    names = {column.name for column in ledger("mine").columns}
    assert names == {"pk", "sk"} | {field.name for field in fields(Attempt)} - {"execution"}


def test_what_is_read_of_a_manifest_is_in_it():
    (_, _, _, manifests) = tables_of([TELEMETRY])
    (made,) = sqlglot.parse(glue.ddl(manifests), dialect="athena")
    assert made is not None
    read = {column.name for column in made.find_all(exp.ColumnDef)}
    known = {field.name for kind in (Manifest, Partition, Seal) for field in fields(kind)}
    assert read <= known


# ---- Saved queries ----


def schema_of(versions: Sequence[Contract]) -> dict[str, dict[str, str]]:
    """What Athena knows of a contract's tables, the lake among them."""
    found = {t.name: {c.name: c.type for c in t.columns} for t in tables_of(versions)}
    found[versions[-1].name] = found[f"{versions[-1].name}_landing"]
    return found


@pytest.mark.parametrize("contract", [TELEMETRY, EVERYTHING, VERBS], ids=lambda one: one.name)
def test_athena_takes_every_query_and_its_columns_exist(contract):
    found = queries([contract])
    assert len({query.name for query in found}) == len(found)
    for query in found:
        parsed = sqlglot.parse_one(query.sql, dialect="trino")
        assert sqlglot.parse_one(query.sql, dialect="athena")
        if "UNNEST" not in query.sql:  # the columns it makes are unknown to sqlglot
            qualify(parsed, schema=schema_of([contract]), dialect="trino")


class Duck:
    """DuckDB in Athena's place, with the tables of telemetry."""

    def __init__(self, db: duckdb.DuckDBPyConnection, bucket: Bucket) -> None:
        self.db = db
        self.bucket = bucket
        self.until = Deadline(time.time() + 60, time.time)

    def land(
        self, bodies: Sequence[bytes], first: int, rules: Contract = TELEMETRY, epoch: int = 0
    ) -> None:
        given = replace(
            delivery(bodies), sequences=[str(first + number) for number in range(len(bodies))]
        )
        batch = Transform(rules, epoch).apply(given.table(), f"raw/{first}/{epoch}")
        landing.write(self.bucket, rules, batch, self.until)

    def table(self, kind: str, schema: pa.Schema) -> pa.Table:
        keys = self.bucket.keys(f"{kind}/telemetry/")
        parts = [landing.read(self.bucket, key) for key in keys]
        return pa.concat_tables([schema.empty_table(), *parts], promote_options="permissive")

    def register(self) -> None:
        self.db.register("telemetry_landing", self.table("landing", TELEMETRY.landing_schema()))
        self.db.register("quarantine_telemetry", self.table("quarantine", QUARANTINE_SCHEMA))
        self.db.register("dropped_telemetry", self.table("dropped", DROPPED_SCHEMA))

    def compact(self) -> None:
        """Make the lake of what has landed, by the rule that all count by."""
        self.register()
        sql = distinct.Tables("telemetry_landing", "quarantine_telemetry", "dropped_telemetry")
        self.db.execute(f"CREATE OR REPLACE TABLE telemetry AS {sql.records()}")

    def manifests(self, *held: Manifest) -> None:
        """As their bytes lie in the bucket, one JSON object a line."""
        for one in held:
            manifest.commit(self.bucket, replace(one, version=one.version - 1), one)
        keys = self.bucket.keys("lake/telemetry/manifests/")
        rows = [json.loads(self.bucket.get(key)) for key in keys]
        self.db.register("telemetry_manifests", pa.Table.from_pylist(rows))

    def ask(self, name: str) -> list[tuple[Any, ...]]:
        unnested = "(SELECT unnest(partitions) AS p FROM _newest)"
        asked: dict[str, Query] = {q.name: q for q in queries([TELEMETRY], unnested)}
        found = self.db.sql(asked[f"telemetry_{name}"].sql).to_arrow_table()
        return [tuple(row.values()) for row in plain(found)]


@pytest.fixture
def duck(bucket) -> Iterator[Duck]:
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        yield Duck(db, bucket)


def test_what_landed_since_is_added_and_nothing_counts_twice(duck):
    duck.land([reading(seq=1), reading(seq=2), b"{"], 100)
    duck.land([reading(seq=2), b"{", reading(seq=3)], 101)
    duck.compact()
    assert duck.ask("count") == [(3, 3)]
    duck.land([reading(seq=3), reading(seq=4)], 103)
    duck.register()
    assert sorted(row[2] for row in duck.ask("now")) == [1, 2, 3, 4]
    assert sorted(row[2] for row in duck.ask("landed")) == [1, 2, 3, 4]
    assert [row[:3] for row in duck.ask("rejects_by_reason")] == [("malformed_json", None, 1)]


def test_what_was_reprocessed_or_settled_otherwise_since_counts_as_it_counts_now(duck):
    duck.land([reading(seq=1), reading(seq=2), reading(seq=3)], 100)
    duck.compact()
    stricter = parse_contract(TELEMETRY.source.replace(b"max = 125", b"max = 20"), "x")
    duck.land(
        [reading(seq=1), reading(seq=2, readings={"temperature": 19})], 100, stricter, epoch=1
    )
    duck.land([b"{"], 102, NEWER)  # an attempt at what is delivered already
    duck.register()
    assert sorted((row[2], row[4]) for row in duck.ask("now")) == [(2, 19), (3, 21.5)]
    assert [row[:3] for row in duck.ask("rejects_by_reason")] == [
        ("out_of_range", "temperature", 1)
    ]


def test_a_lake_stands_for_landing_that_was_deleted(duck):
    duck.land([reading(seq=1), reading(seq=2)], 100)
    duck.compact()
    for key in list(duck.bucket.keys("landing/")):
        duck.bucket.client.delete_object(Bucket="b", Key=key)
    duck.land([b"{", reading(seq=2), reading(seq=3)], 100, NEWER)
    duck.register()
    assert sorted(row[2] for row in duck.ask("now")) == [1, 2, 3]
    assert duck.ask("rejects_by_reason") == []


@pytest.mark.parametrize("name", ["records", "select", "ranked", "members"])
def test_a_contract_may_be_called_anything(name):
    """Here the lake and landing are empty: the words must only be understood."""
    own = replace(TELEMETRY, name=name)
    with duckdb.connect() as db:
        for table, schema in (
            (name, own.landing_schema()),
            (f"{name}_landing", own.landing_schema()),
            (f"quarantine_{name}", QUARANTINE_SCHEMA),
            (f"dropped_{name}", DROPPED_SCHEMA),
        ):
            db.register(table, schema.empty_table())
        for query in queries([own]):
            assert sqlglot.parse_one(query.sql, dialect="trino")
            if "UNNEST" not in query.sql:
                assert db.sql(query.sql).to_arrow_table().num_rows <= 1


def test_the_latest_of_each_device(duck):
    moments = [("a", NOON - SECOND), ("a", NOON), ("b", NOON - 9 * SECOND)]
    duck.land([reading(device, at, seq) for seq, (device, at) in enumerate(moments)], 100)
    duck.compact()
    assert sorted((row[0], row[2]) for row in duck.ask("latest")) == [("a", 1), ("b", 2)]


def test_hours_and_lateness(duck):
    ago = [0, 30, 7_200, 100_000]
    bodies = [reading(moment=NOON - n * SECOND, seq=seq) for seq, n in enumerate(ago)]
    duck.land([*bodies, reading(moment=NOON + SECOND, seq=9)], 100)
    duck.compact()
    assert sorted(row[1:] for row in duck.ask("rows_per_hour")) == [(1, 1), (1, 1), (1, 1), (2, 1)]
    assert duck.ask("lateness") == [
        ("0 before its event time", 1),
        ("1 within a minute", 2),
        ("3 within a day", 1),
        ("4 later", 1),
    ]


def part(hour: int, *, sealed: bool) -> Partition:
    seal = Seal(NOON, NOON + 1, exact=True, missing=0)
    return Partition(hour, 2, 2, 0, "00", (), seal=seal if sealed else None)


def test_sealed_are_the_records_of_hours_that_the_newest_manifest_seals(duck):
    """Of two commits of one version one lost: an hour is sealed if both say so."""
    hours = [reading(moment=(HOUR - n) * HOUR_MICROS + SECOND, seq=n) for n in range(4)]
    duck.land(hours, 100)
    duck.compact()
    before = [part(HOUR - n, sealed=True) for n in range(4)]
    duck.manifests(
        Manifest("telemetry", 1, 0, 0, tuple(before)),
        Manifest("telemetry", 2, 1, 0, (part(HOUR, sealed=False), *before[1:3])),
    )
    lost = Manifest("telemetry", 1, 2, 0, tuple(before[:2]))
    assert sorted(row[2] for row in duck.ask("sealed")) == [1, 2]
    sealed = {hour[:13]: as_of for hour, *_, as_of, _ in duck.ask("partitions") if as_of}
    assert sealed == {
        "2026-11-24T11": "2026-11-24T12:00:00Z",
        "2026-11-24T10": "2026-11-24T12:00:00Z",
    }
    raced = replace(lost, version=2)
    duck.bucket.put("lake/telemetry/manifests/lost.json", msgspec.json.encode(raced))
    duck.manifests()
    assert sorted(row[2] for row in duck.ask("sealed")) == [1]


# ---- The command ----


def test_the_ddl_is_statements_and_comments_alone():
    result = run("telemetry", "--bucket", "mine")
    statements = [one for one in sqlglot.parse(result.stdout, dialect="athena") if one is not None]
    kinds = [type(one) for one in statements]
    assert kinds.count(exp.Create) == 6
    assert len(kinds) - kinds.count(exp.Create) == len(queries([TELEMETRY]))
    assert "-- telemetry: the lake" in result.stdout
    assert "DynamoDB table millrace-ledger" in result.stdout


def test_as_json_it_is_tables_and_queries():
    told = json.loads(run("telemetry", "--format", "json", "--ledger", "other").stdout)
    assert told["lakes"] == ["telemetry"]
    names = {table["name"]: table for table in told["tables"]}
    assert names["ledger"]["location"] == "arn:aws:dynamodb:::table/other"
    assert names["raw"]["location"] == "s3://BUCKET/raw/"
    assert names["raw"]["partitions"] == {"_day": "date", "_hour": "int"}
    (unit,) = [c for c in names["telemetry_landing"]["columns"] if c["name"] == "temperature"]
    assert unit == {"name": "temperature", "type": "double", "comment": "Air temperature [Cel]"}
    assert {query["name"] for query in told["queries"]} >= {"telemetry_now", "telemetry_sealed"}


def test_versions_given_as_files_make_one_table(tmp_path):
    (tmp_path / "newer.toml").write_bytes(NEWER.source)
    told = run(str(tmp_path / "newer.toml"), "telemetry").stdout
    assert told.count("`firmware` string") == 1
    assert told.count("CREATE EXTERNAL TABLE IF NOT EXISTS `millrace`.`telemetry_landing`") == 1


# ---- Contracts that a bucket keeps ----


def versions(bucket: Bucket) -> dict[str, list[int]]:
    return {name: [one.version for one in found] for name, found in kept(bucket).items()}


def test_a_bucket_keeps_contracts_and_the_published_one_counts(bucket):
    second = parse_contract(TELEMETRY.source.replace(b"version = 1", b"version = 2"), "two")
    for contract in (second, EVERYTHING, TELEMETRY):
        contracts.put(bucket, contract)
    assert versions(bucket) == {"everything": [1], "telemetry": [1, 2]}
    registry.publish(bucket, second)
    registry.publish(bucket, TELEMETRY)
    assert versions(bucket)["telemetry"] == [2, 1]
    registry.use(bucket, "telemetry", 2)
    assert versions(bucket)["telemetry"] == [1, 2]
