"""The lake as a table of Iceberg: a snapshot shows one manifest, to every engine that is here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from moto import mock_aws
from pyarrow import dataset, fs
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import StaticTable, Table

from infra.cli import commands
from infra.local import iceberg as local
from infra.local.embedded import served
from infra.local.emulator import ENVIRONMENT, REGION, Emulator, client
from infra.local.state import State
from infra.topology import BUCKET, LEDGER
from ingest.publishing import PUBLISH, targets
from ingest.settings import Wiring
from ingest.upkeep import step
from sinks.bucket import Bucket
from sinks.errors import Gone, Unavailable
from sinks.lake import iceberg, iceberg_catalogs, iceberg_table, manifest
from sinks.lake.columns import Clash
from sinks.lake.compact import compact
from sinks.lake.iceberg import Published, Target, publish
from sinks.lake.iceberg_files import Unlike
from sinks.lake.manifest import Seal
from sinks.lake.plan import Plan
from sinks.lake.retire import Keep, retire
from tests import icebergs, lakes
from tests.icebergs import HOUR, Lake
from tests.lakes import Attempt, Verdict, World
from tests.support import NOON, SECOND, SESSION, SETTINGS, Clock, create_table
from transform.contract import Contract
from transform.contract_file import load_contract, parse_contract

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

TELEMETRY = load_contract("telemetry")


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    made = Emulator(tmp_path_factory.mktemp("state"))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def s3(emulator: Emulator) -> dict[str, str]:
    key, secret = ENVIRONMENT["AWS_ACCESS_KEY_ID"], ENVIRONMENT["AWS_SECRET_ACCESS_KEY"]
    return iceberg_catalogs.emulated(emulator.url, REGION, key, secret)


@pytest.fixture
def bucket(emulator: Emulator, request: pytest.FixtureRequest) -> Bucket:
    made = Bucket(client("s3", emulator.url), f"b{abs(hash(request.node.name))}")
    made.client.create_bucket(Bucket=made.name)
    return made


@pytest.fixture
def catalog(s3: dict[str, str], tmp_path: Path) -> Iterator[Catalog]:
    with iceberg_catalogs.sqlite(tmp_path / "catalog.db", s3) as made:
        yield made


@pytest.fixture
def lake(bucket: Bucket) -> Lake:
    return Lake(bucket, TELEMETRY)


@pytest.fixture
def target(catalog: Catalog, bucket: Bucket) -> Target:
    return Target(catalog, f"s3://{bucket.name}", TELEMETRY)


def table(target: Target) -> Table:
    return target.catalog.load_table(target.identifier)


def sequences(target: Target, **scan: Any) -> list[int]:
    found = table(target).scan(**scan).to_arrow()
    return sorted(found.column("sequence").to_pylist())


def rows(*numbers: int, device: str = "d") -> list[dict[str, Any]]:
    return [{"device_id": device, "sequence": number} for number in numbers]


# ---- Publication ----


def test_the_table_shows_exactly_the_manifests_files(lake: Lake, target: Target) -> None:
    lake.file(HOUR, rows(99))  # written, and never committed
    new = lake.commit(
        {HOUR: [lake.file(HOUR, rows(1, 2))], HOUR + 1: [lake.file(HOUR + 1, rows(3))]}
    )
    assert publish(target, new) == Published("millrace.telemetry", 1, 2, 0)
    assert sequences(target) == [1, 2, 3]


def test_a_swap_is_one_snapshot(lake: Lake, target: Target) -> None:
    parts = [lake.file(HOUR, rows(n)) for n in range(3)]
    publish(target, lake.commit({HOUR: parts, HOUR + 1: [lake.file(HOUR + 1, rows(7))]}))
    swapped = lake.commit({HOUR: [lake.file(HOUR, rows(0, 1, 2))]})
    assert publish(target, swapped) == Published("millrace.telemetry", 2, 1, 3)
    assert sequences(target) == [0, 1, 2, 7]
    assert len(table(target).snapshots()) == 2
    assert [task.file.record_count for task in table(target).scan().plan_files()] == [3, 1]


def test_what_is_published_again_changes_nothing(lake: Lake, target: Target) -> None:
    new = lake.commit({HOUR: [lake.file(HOUR, rows(1))]})
    publish(target, new)
    before = table(target).metadata_location
    assert publish(target, new) == Published("millrace.telemetry", 1, 0, 0)
    assert table(target).metadata_location == before


def test_a_snapshot_says_which_manifest_it_shows(
    lake: Lake, target: Target, bucket: Bucket
) -> None:
    new = lake.commit({HOUR: [lake.file(HOUR, rows(1))]})
    publish(target, new)
    snapshot = table(target).current_snapshot()
    assert snapshot is not None
    said = snapshot.summary.additional_properties
    assert (said["millrace.version"], said["millrace.sealed"]) == ("1", "0/1")
    assert manifest.at(bucket, said["millrace.manifest"]) == new


def test_a_version_of_the_same_files_is_a_snapshot_too(lake: Lake, target: Target) -> None:
    files = [lake.file(HOUR, rows(1))]
    publish(target, lake.commit({HOUR: files}))
    publish(target, lake.commit({HOUR: files}, settled_until=5))
    assert set(iceberg.versions(table(target))) == {1, 2}
    assert sequences(target) == [1]


def test_an_empty_lake_is_an_empty_table(lake: Lake, target: Target) -> None:
    assert publish(target, manifest.read(lake.bucket, "telemetry")).version == 0
    assert sequences(target) == []
    assert table(target).current_snapshot() is None


def test_a_lake_may_become_empty(lake: Lake, target: Target) -> None:
    publish(target, lake.commit({HOUR: [lake.file(HOUR, rows(1))]}))
    assert publish(target, lake.commit({HOUR: []})).removed == 1
    assert sequences(target) == []


def test_time_travel_is_by_the_manifests_version(lake: Lake, target: Target) -> None:
    for number in (1, 2, 3):
        publish(target, lake.commit({HOUR: [lake.file(HOUR, rows(number))]}))
    versions = iceberg.versions(table(target))
    assert [sequences(target, snapshot_id=versions[v]) for v in (1, 2, 3)] == [[1], [2], [3]]


def test_sealed_hours_are_a_table_of_their_own(lake: Lake, target: Target) -> None:
    new = lake.commit({hour: [lake.file(hour, rows(hour))] for hour in (HOUR, HOUR + 1)})
    first, second = new.partitions
    sealed = replace(
        new, partitions=(replace(first, seal=Seal(1, 2, exact=True, missing=0)), second)
    )
    new = manifest.commit(lake.bucket, new, sealed)
    only = replace(target, sealed_only=True)
    publish(target, new)
    assert publish(only, new) == Published("millrace_sealed.telemetry", 2, 1, 0)
    assert (sequences(target), sequences(only)) == ([HOUR, HOUR + 1], [HOUR])


def test_a_file_that_is_not_what_the_manifest_says_is_not_published(
    lake: Lake, target: Target
) -> None:
    publish(target, lake.commit({HOUR: [lake.file(HOUR, rows(1))]}))
    other = lake.file(HOUR, rows(2, 3))
    for wrong in (replace(other, rows=3), replace(other, bytes=other.bytes + 1)):
        with pytest.raises(Unlike, match="has 2 rows"):
            publish(target, lake.commit({HOUR: [wrong]}))
    with pytest.raises(Unlike, match=f"has hour {HOUR}"):
        publish(target, lake.commit({HOUR: [], HOUR + 1: [other]}))
    with pytest.raises(Gone):
        publish(
            target, lake.commit({HOUR: [replace(other, key="lake/none.parquet")], HOUR + 1: []})
        )
    assert sequences(target) == [1]


def test_what_another_writer_did_is_undone_by_the_next_publication(
    lake: Lake, target: Target
) -> None:
    files = [lake.file(HOUR, rows(1, 2)), lake.file(HOUR, rows(3, device="e"))]
    new = lake.commit({HOUR: files})
    publish(target, new)
    table(target).delete("device_id = 'd'")
    assert sequences(target) == [3]
    assert publish(target, new) == Published("millrace.telemetry", 1, 1, 0)
    assert sequences(target) == [1, 2, 3]


# ---- Crashes and races ----


class Died(BaseException):
    """The process is killed here."""


class Frail(SqlCatalog):
    """A catalog whose process dies before or after a commit, or that is overtaken at it."""

    before = after = staticmethod(lambda: None)

    def commit_table(self, *args: Any, **kwargs: Any) -> Any:
        self.before()
        done = super().commit_table(*args, **kwargs)
        self.after()
        return done


def die() -> None:
    raise Died


@pytest.fixture
def frail(s3: dict[str, str], tmp_path: Path) -> Iterator[Frail]:
    with Frail("millrace", uri=f"sqlite:///{tmp_path}/catalog.db", **s3) as made:
        yield made


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_publication_cut_short_is_made_up_for(
    lake: Lake, target: Target, frail: Frail, moment: str
) -> None:
    publish(target, lake.commit({HOUR: [lake.file(HOUR, rows(1))]}))
    new = lake.commit({HOUR: [lake.file(HOUR, rows(1, 2))]})
    setattr(frail, moment, die)
    with pytest.raises(Died):
        publish(replace(target, catalog=frail), new)
    assert sequences(target) == ([1] if moment == "before" else [1, 2])
    publish(target, new)
    assert sequences(target) == [1, 2]
    assert set(iceberg.versions(table(target))) == {1, 2}
    assert _without_a_catalog(target, frail).metadata_location == table(target).metadata_location


def test_commits_that_were_never_published_are_skipped(lake: Lake, target: Target) -> None:
    publish(target, lake.commit({HOUR: [lake.file(HOUR, rows(1))]}))
    lake.commit({HOUR: [lake.file(HOUR, rows(1, 2))]})  # and then its process was killed
    publish(target, lake.commit({HOUR + 1: [lake.file(HOUR + 1, rows(3))]}))
    assert sequences(target) == [1, 2, 3]


def test_a_publisher_that_was_overtaken_changes_nothing(
    lake: Lake, target: Target, frail: Frail
) -> None:
    old = lake.commit({HOUR: [lake.file(HOUR, rows(1))]})
    new = lake.commit({HOUR + 1: [lake.file(HOUR + 1, rows(2))]})
    publish(target, manifest.Manifest("telemetry"))
    frail.before = lambda: publish(target, new)  # type: ignore[method-assign,assignment]
    assert publish(replace(target, catalog=frail), old) == Published("millrace.telemetry", 2)
    assert sequences(target) == [1, 2]
    assert set(iceberg.versions(table(target))) == {2}


def test_a_publisher_that_loses_a_race_to_an_older_manifest_goes_on(
    lake: Lake, target: Target, frail: Frail
) -> None:
    old = lake.commit({HOUR: [lake.file(HOUR, rows(1))]})
    new = lake.commit({HOUR: [lake.file(HOUR, rows(1, 2))]})
    publish(target, manifest.Manifest("telemetry"))
    frail.before = lambda: publish(target, old)  # type: ignore[method-assign,assignment]
    assert publish(replace(target, catalog=frail), new) == Published("millrace.telemetry", 2, 1, 1)
    assert sequences(target) == [1, 2]


def test_a_table_that_others_keep_busy_is_weather(lake: Lake, target: Target, frail: Frail) -> None:
    publish(target, manifest.Manifest("telemetry"))

    def meddle() -> None:
        with table(target).transaction() as other:
            other.update_snapshot().merge_append().commit()

    frail.before = meddle  # type: ignore[method-assign,assignment]
    with pytest.raises(Unavailable, match="busy"):
        publish(replace(target, catalog=frail), lake.commit({HOUR: [lake.file(HOUR, rows(1))]}))


# ---- What the table says ----


def test_columns_say_what_they_are(target: Target) -> None:
    publish(target, manifest.Manifest("telemetry"))
    columns = {column.name: column for column in table(target).schema().fields}
    assert list(columns) == TELEMETRY.landing_schema().names
    assert columns["temperature"].doc == "Air temperature [Cel]"
    assert str(columns["event_time"].field_type) == "timestamptz"
    assert (columns["event_time"].doc or "").endswith("(event time, UTC)")
    assert (columns["_late"].doc or "").startswith("Whether it came later")
    assert str(columns["_digest"].field_type) == "fixed[16]"
    assert columns["device_id"].required
    assert not columns["humidity"].required
    assert table(target).properties["comment"] == TELEMETRY.description
    assert str(table(target).spec().fields[0]) == "1000: _hour: hour(2)"
    assert [field.source_id for field in table(target).sort_order().fields] == [1, 2]


def test_files_are_left_out_by_device_and_by_time(lake: Lake, target: Target) -> None:
    long = "a prefix that every device of the fleet has "
    devices = {HOUR: f"{long}1", HOUR + 1: f"{long}2", HOUR + 2: f"{long}\N{SNOWMAN}"}
    files = {h: [lake.file(h, rows(h, device=name))] for h, name in devices.items()}
    publish(target, lake.commit(files))
    scan = table(target).scan

    def planned(condition: str) -> int:
        return len(list(scan(condition).plan_files()))

    for hour, name in devices.items():
        assert planned(f"device_id = '{name}'") == 1
        assert sequences(target, row_filter=f"device_id = '{name}'") == [hour]
    assert planned("event_time >= '2026-11-24T13:00:00+00:00'") == 2
    assert planned("sequence = 7") == 0
    assert planned("temperature > -1") == 3  # floats have no statistics


@pytest.mark.parametrize("unknown", ["\N{SNOWMAN}" * 2_000, "x" * 5_000])
def test_a_file_is_not_left_out_for_what_one_group_of_its_rows_does_not_tell(
    lake: Lake, target: Target, unknown: str
) -> None:
    values = [{"status": "m", "humidity": 1.0}, {"status": unknown, "humidity": float("nan")}]
    sink = pa.BufferOutputStream()
    pq.write_table(icebergs.table(TELEMETRY, [*values, {"status": "a"}]), sink, row_group_size=1)
    publish(target, lake.commit({HOUR: [lake.put(HOUR, sink.getvalue().to_pybytes(), 3)]}))
    scan = table(target).scan
    assert scan(f"status = '{unknown}'").to_arrow().num_rows == 1
    assert scan("status = 'm'").to_arrow().num_rows == 1
    assert scan("humidity is null").to_arrow().num_rows == 1
    assert len(list(scan("device_id = 'z'").plan_files())) == 0


@pytest.mark.parametrize("swapped", [False, True])
def test_lists_that_a_reader_plans_by_stay_few(
    lake: Lake, target: Target, *, swapped: bool
) -> None:
    for number in range(11):
        changed = {HOUR + number: [lake.file(HOUR + number, rows(number))]}
        again = {HOUR: [lake.file(HOUR, rows(0, device=f"{number}"))]} if swapped else {}
        publish(target, lake.commit(changed | again))
    snapshot = table(target).current_snapshot()
    assert snapshot is not None
    assert len(snapshot.manifests(table(target).io)) <= iceberg_table.LISTS_MAX
    assert sequences(target) == list(range(11))


# ---- Evolution ----


def version(number: int, fields: str = "", about: str = "") -> Contract:
    text = f"""
name = "fleet-9"
version = {number}
description = "{about}"

[identity]
device = "device_id"
event_time = "at"
record_id = ["device_id", "at"]

[[field]]
name = "device_id"
type = "string"

[[field]]
name = "at"
type = "timestamp"
format = "epoch_seconds"

[[field]]
name = "sequence"
type = "int64"
description = "number {number}"
{fields}
"""
    return parse_contract(text.encode(), f"v{number}")


def field(name: str, kind: str, more: str = "") -> str:
    return f'\n[[field]]\nname = "{name}"\ntype = "{kind}"\n{more}\n'


ONE = version(1, field("gone", "int64", "required = true"))
THREE = version(3, field("must", "bool", "required = true"))
TWO = version(2, field("gas", "float64", 'description = "Gas"\nunit = "%"'), "Of two versions")


@pytest.fixture
def evolved(bucket: Bucket, catalog: Catalog) -> Target:
    """A table with a file of each version."""
    url = f"s3://{bucket.name}"
    old = Lake(bucket, ONE)
    first = [{"device_id": "d", "sequence": 1, "gone": 5}]
    publish(Target(catalog, url, ONE), old.commit({HOUR: [old.file(HOUR, first)]}))
    new = Lake(bucket, TWO, (ONE,))
    later = [{"device_id": "e", "sequence": 2, "gas": 0.5}]
    target = Target(catalog, url, TWO)
    publish(target, new.commit({HOUR + 1: [new.file(HOUR + 1, later)]}))
    return target


def test_a_version_adds_columns_and_old_files_are_read_with_the_new(evolved: Target) -> None:
    found = table(evolved).scan(selected_fields=("sequence", "gas", "gone")).to_arrow()
    assert found.sort_by("sequence").to_pylist() == [
        {"sequence": 1, "gas": None, "gone": 5},
        {"sequence": 2, "gas": 0.5, "gone": None},
    ]
    names = [column.name for column in table(evolved).schema().fields]
    assert names == ["device_id", "at", "sequence", "gone", "gas", *TWO.landing_schema().names[4:]]


def test_old_files_are_read_by_who_knows_the_new_version_alone(
    bucket: Bucket, catalog: Catalog
) -> None:
    old, new = Lake(bucket, ONE), Lake(bucket, THREE)
    old.commit({HOUR: [old.file(HOUR, [{"device_id": "d", "sequence": 1, "gone": 5}])]})
    both = new.commit({HOUR + 1: [new.file(HOUR + 1, [{"device_id": "e", "must": True}])]})
    target = Target(catalog, f"s3://{bucket.name}", THREE)
    publish(target, both)
    found = table(target).scan(selected_fields=("device_id", "gone", "must")).to_arrow()
    assert found.sort_by("device_id").to_pylist() == [
        {"device_id": "d", "gone": 5, "must": None},
        {"device_id": "e", "gone": None, "must": True},
    ]


def test_a_version_describes_columns_anew(evolved: Target) -> None:
    columns = table(evolved).schema()
    assert columns.find_field("sequence").doc == "number 2"
    assert columns.find_field("gas").doc == "Gas [%]"
    assert not columns.find_field("gone").required
    assert table(evolved).properties["comment"] == "Of two versions"


def test_a_table_grows_before_anything_is_committed_by_the_new_version(
    evolved: Target, bucket: Bucket
) -> None:
    held = manifest.read(bucket, "fleet-9")
    publish(replace(evolved, contract=THREE), held)
    assert str(table(evolved).schema().find_type("must")) == "boolean"
    assert sequences(evolved) == [1, 2]


def test_a_column_is_never_of_another_type(evolved: Target, bucket: Bucket) -> None:
    other = version(3, field("gas", "string"))
    with pytest.raises(Clash, match=r"gas is string, and in the table double"):
        publish(replace(evolved, contract=other), manifest.read(bucket, "fleet-9"))


# ---- Expiry ----


def test_what_is_forgotten_leaves_what_is_shown_whole(lake: Lake, target: Target) -> None:
    for number in range(4):
        publish(target, lake.commit({HOUR: [lake.file(HOUR, rows(number))]}))
    own = list(lake.bucket.keys("lake/telemetry/iceberg/metadata/"))
    data = set(lake.bucket.keys("lake/telemetry/data/"))
    assert iceberg.needed(target) == data
    assert iceberg.expire(target, datetime.now(UTC) - timedelta(hours=1)) == 0
    assert iceberg.expire(target, datetime.now(UTC) + timedelta(hours=1)) == 3
    assert sequences(target) == [3]
    assert len(_without_a_catalog(target, target.catalog).snapshots()) == 1
    assert iceberg.needed(target) == {f.key for f in manifest.read(lake.bucket, "telemetry").files}
    assert set(lake.bucket.keys("lake/telemetry/data/")) == data
    left = list(lake.bucket.keys("lake/telemetry/iceberg/metadata/"))
    assert sum(key.endswith(".avro") for key in left) < sum(key.endswith(".avro") for key in own)
    publish(target, lake.commit({HOUR: [lake.file(HOUR, rows(9))]}))
    assert sequences(target) == [9]


def test_a_lake_that_was_never_published_needs_nothing(target: Target) -> None:
    assert iceberg.needed(target) == frozenset()
    assert iceberg.expire(target, datetime.now(UTC)) == 0


def test_files_that_a_snapshot_lists_outlive_their_time(lake: Lake, target: Target) -> None:
    late = datetime.now(UTC) + timedelta(days=30)
    publish(target, lake.commit({HOUR: [lake.file(HOUR, rows(1))]}))
    lake.commit({HOUR: [lake.file(HOUR, rows(2))]})  # and never published
    retire(lake.bucket, "telemetry", late, Keep(needed=iceberg.needed(target)))
    assert sequences(target) == [1]
    publish(target, manifest.read(lake.bucket, "telemetry"))
    iceberg.expire(target, late)
    assert retire(lake.bucket, "telemetry", late, Keep(needed=iceberg.needed(target))).files == 1
    assert sequences(target) == [2]


# ---- Compaction ----


def test_what_is_compacted_is_what_the_table_shows(bucket: Bucket, catalog: Catalog) -> None:
    target = Target(catalog, f"s3://{bucket.name}", lakes.CONTRACT)
    made = {
        (number, 0, (0, 1)): Verdict("landing", "ab"[number % 2], NOON + number * lakes.HOUR, one)
        for number, one in enumerate((b"x" * 16, b"y" * 16, b"x" * 16))
    }
    world = World(dict.fromkeys(range(3), 1), dict.fromkeys(range(3), NOON), made, ())
    for number, positions in enumerate([(0, 1), (1, 2), (0, 1, 2)]):
        attempt = Attempt(positions, (0, 1), 3)
        plan = Plan(tuple(lakes.write(bucket, world, attempt, f"raw/{number}")), 0)
        publish(target, compact(bucket, lakes.CONTRACT, plan).lake)
        found = table(target).scan().to_arrow()
        lakes.database().register("found", found)
        shown = lakes.rows(lakes.database(), "FROM found")
        assert len(shown) == max(positions) + 1
        assert shown == lakes.lake_rows(bucket) == lakes.told(bucket)


def test_what_a_state_s_snapshots_need_is_told(s3: dict[str, str], tmp_path: Path) -> None:
    objects = client("s3", s3["s3.endpoint"])
    objects.create_bucket(Bucket=BUCKET)
    lake = Lake(Bucket(objects, BUCKET), TELEMETRY)
    for number in (1, 2):
        lake.commit({HOUR: [lake.file(HOUR, rows(number))]})
        local.publish(State(tmp_path), objects, [TELEMETRY])
    shown = {file.key for file in manifest.read(lake.bucket, "telemetry").files}
    both = local.expire(State(tmp_path), objects, TELEMETRY, datetime(2026, 1, 1, tzinfo=UTC))
    assert len(both) == 2
    late = datetime.now(UTC) + timedelta(hours=1)
    assert local.expire(State(tmp_path), objects, TELEMETRY, late) == shown


def test_the_command_publishes_where_it_is_asked_to(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.prepare()
    state.keep_contract("telemetry")
    with served(state) as clients:
        clients("s3").create_bucket(Bucket=BUCKET)
        create_table(clients("dynamodb"), LEDGER)
        lake = Lake(Bucket(clients("s3"), BUCKET), TELEMETRY)
        lake.commit({HOUR: [lake.file(HOUR, rows(1))]})
    asked = ["compact", "--iceberg", "--json", "--state", str(tmp_path)]
    [told] = json.loads(CliRunner().invoke(commands.group, asked, catch_exceptions=False).stdout)
    assert [(one["table"], one["added"]) for one in told["iceberg"]] == [
        ("millrace.telemetry", 1),
        ("millrace_sealed.telemetry", 0),
    ]


# ---- Glue ----


@pytest.fixture(params=["emulator", "moto"])
def glue(request: pytest.FixtureRequest, emulator: Emulator) -> Iterator[Any]:
    """A client of Glue, as two emulators have it."""
    if request.param == "emulator":
        yield client("glue", emulator.url)
        return
    with mock_aws():
        yield SESSION.client("glue")


def test_glue_knows_the_table(lake: Lake, target: Target, s3: dict[str, str], glue: Any) -> None:
    target = replace(target, catalog=iceberg_catalogs.glue(glue, s3), namespace="known")
    publish(target, lake.commit({HOUR: [lake.file(HOUR, rows(1))]}))
    publish(target, lake.commit({HOUR: [lake.file(HOUR, rows(1, 2))]}))
    assert sequences(target) == [1, 2]
    known = glue.get_table(DatabaseName="known", Name="telemetry")["Table"]
    assert known["Parameters"]["table_type"] == "ICEBERG"
    assert known["Parameters"]["metadata_location"] == table(target).metadata_location
    columns = {c["Name"]: c for c in known["StorageDescriptor"]["Columns"]}
    assert columns["temperature"]["Comment"] == "Air temperature [Cel]"


def test_of_two_publishers_in_glue_the_slower_begins_again(
    lake: Lake, target: Target, s3: dict[str, str], emulator: Emulator
) -> None:
    glue, other = client("glue", emulator.url), client("glue", emulator.url)
    quick = replace(target, catalog=iceberg_catalogs.glue(other, s3), namespace="raced")
    slow = replace(quick, catalog=iceberg_catalogs.glue(glue, s3))
    publish(quick, manifest.Manifest("telemetry"))
    old = lake.commit({HOUR: [lake.file(HOUR, rows(1))]})
    new = lake.commit({HOUR: [lake.file(HOUR, rows(1, 2))]})
    moments = []

    def overtake(**_: Any) -> None:  # between what the slower read and what it writes
        moments.append(1)
        if len(moments) == 1:
            publish(quick, old)

    glue.meta.events.register("provide-client-params.glue.UpdateTable", overtake)
    assert publish(slow, new) == Published("raced.telemetry", 2, 1, 1)
    assert len(moments) == 2
    assert sequences(slow) == [1, 2]
    assert set(iceberg.versions(table(slow))) == {1, 2}


# ---- Engines ----


def _without_a_catalog(target: Target, catalog: Catalog) -> Table:
    """The table as one finds it who has the bucket alone."""
    return StaticTable.from_metadata(target.location, dict(catalog.properties))


def of_pyiceberg(found: Table, columns: list[str]) -> pa.Table:
    return found.scan(selected_fields=tuple(columns)).to_arrow()


@pytest.fixture(autouse=True)
def planner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Polars warns where it plans by pyiceberg for want of a package of its own."""
    monkeypatch.setenv("POLARS_ICEBERG_PLANNER", "pyiceberg")


def of_polars(found: Table, columns: list[str]) -> pa.Table:
    reached = found.io.properties
    storage = {
        "aws_endpoint_url": reached["s3.endpoint"],
        "aws_region": reached["s3.region"],
        "aws_access_key_id": reached["s3.access-key-id"],
        "aws_secret_access_key": reached["s3.secret-access-key"],
        "aws_allow_http": "true",
    }
    return pl.scan_iceberg(found, storage_options=storage).select(columns).collect().to_arrow()


def of_polars_by_its_metadata(found: Table, columns: list[str]) -> pa.Table:
    lake = pl.scan_iceberg(
        found.metadata_location,
        storage_options=dict(found.io.properties),
        reader_override="pyiceberg",
    )
    return lake.select(columns).collect().to_arrow()


def of_pyarrow(found: Table, columns: list[str]) -> pa.Table:
    return _dataset(found).to_table(columns)


def of_duckdb(found: Table, columns: list[str]) -> pa.Table:
    lake = _dataset(found)  # noqa: F841  found by its name
    return duckdb.table("lake").select(*columns).to_arrow_table()


def _dataset(found: Table) -> dataset.Dataset:
    """Exactly the files that the snapshot lists, older ones with the columns that came later."""
    reached = found.io.properties
    url = reached["s3.endpoint"].removeprefix("http://")
    files = fs.S3FileSystem(
        access_key=reached["s3.access-key-id"],
        secret_key=reached["s3.secret-access-key"],
        endpoint_override=url,
        scheme="http",
        region=reached["s3.region"],
    )
    paths = [task.file.file_path.removeprefix("s3://") for task in found.scan().plan_files()]
    schema = pa.schema([f.with_nullable(nullable=True) for f in found.schema().as_arrow()])
    return dataset.dataset(paths, schema, format="parquet", filesystem=files)


ENGINES = [of_pyiceberg, of_polars, of_polars_by_its_metadata, of_pyarrow, of_duckdb]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_reads_the_old_lake_or_the_new(
    lake: Lake, target: Target, engine: Callable[[Table, list[str]], pa.Table]
) -> None:
    parts = [lake.file(HOUR, rows(n)) for n in range(4)]
    publish(target, lake.commit({HOUR: parts, HOUR + 1: [lake.file(HOUR + 1, rows(9))]}))
    begun = table(target)
    publish(target, lake.commit({HOUR: [lake.file(HOUR, rows(0, 1, 2, 3, 4))]}))
    old, new = (
        sorted(engine(one, ["sequence"]).column("sequence").to_pylist())
        for one in (begun, _without_a_catalog(target, target.catalog))
    )
    assert (old, new) == ([0, 1, 2, 3, 9], [0, 1, 2, 3, 4, 9])


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_reads_two_versions_of_a_contract(
    evolved: Target, engine: Callable[[Table, list[str]], pa.Table]
) -> None:
    found = engine(table(evolved), ["sequence", "gas", "gone", "at"]).sort_by("sequence")
    assert found.select(["sequence", "gas", "gone"]).to_pylist() == [
        {"sequence": 1, "gas": None, "gone": 5},
        {"sequence": 2, "gas": 0.5, "gone": None},
    ]
    assert found.schema.field("at").type.tz in {"UTC", "Etc/UTC"}


# ---- Upkeep's function ----


def test_upkeep_shows_the_lake_in_glue_and_keeps_what_is_shown(
    lake: Lake, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": emulator.url}.items():
        monkeypatch.setenv(name, value)
    clock = Clock(NOON / SECOND)
    wiring = Wiring(replace(SETTINGS, contract="telemetry", bucket=lake.bucket.name), clock)
    wiring.bucket = lake.bucket
    lake.commit({HOUR: [lake.file(HOUR, rows(1))]})
    assert step(PUBLISH, {"step": "publish"}, wiring) == {"version": 1, "added": 1, "removed": 0}
    lake.commit({HOUR: [lake.file(HOUR, rows(1, 2))]})
    assert step(PUBLISH, {"step": "retire"}, wiring)["files"] == 0, "the table shows the older one"
    assert step(PUBLISH, {"step": "publish"}, wiring) == {"version": 2, "added": 1, "removed": 1}
    [shown, _] = targets(wiring)
    assert sequences(shown) == [1, 2]
    with pytest.raises(ValueError, match="steps of this function are: publish, retire"):
        step(PUBLISH, {"step": "compact"}, wiring)
