"""A device leaves every store, and every count still adds up."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, TypeVar

import pytest

from infra.doubles.dynamodb import DynamoDB
from infra.doubles.s3 import S3, Stored
from infra.doubles.world import Call, Calm, World
from infra.erasing.erase import CannotErase, Places, Report, erase, preview
from infra.erasing.find import Choice
from infra.evidence import Held, Stores
from infra.lake import Lake, plain
from infra.verify import Report as Proof
from infra.verify import verify
from ingest.reprocess import reprocess
from sinks import erasures, landing, ledger, parquet, raw
from sinks.bucket import Bucket
from sinks.deadline import Deadline
from sinks.lake import compact, manifest
from sinks.lake.standing import digest_of
from sinks.lake.work import Choice as Work
from sinks.lake.work import run as compactions
from sinks.table import Table
from tests.edge import SHARD, STREAM, WIDER, Crash, Edge, rules
from tests.support import NOON, SECOND, Cloud, delivery, reading
from transform.contract_file import load_contract
from transform.erased import erased_of
from transform.kpl import aggregate
from transform.kpl_reader import deaggregate

T = TypeVar("T")
TELEMETRY = load_contract("telemetry")
HOT = {"readings": {"temperature": 200}}  # rejected
HOUR = 3_600 * SECOND
IT, OTHER = "sensor-1", "sensor-2"


def places(edge: Edge) -> Places:
    account = edge.account
    return Places(account.bucket, account.ledger, account.hot, edge.clock, edge.clock.waiting())


def gone(edge: Edge, **more: Any) -> Report:
    return erase(places(edge), Choice(TELEMETRY, IT, **more))


def compacted(edge: Edge) -> None:
    account = edge.account
    list(compactions(account.bucket, account.ledger, TELEMETRY, Work(orphans=False), edge.clock))


def checks(edge: Edge) -> set[tuple[str, str]]:
    return {(found.kind, found.check) for found in proof(edge).findings}


def fates_of(edge: Edge) -> dict[str, int]:
    return {fate: n for fate, n in proof(edge).fates.items() if n}


def proof(edge: Edge) -> Proof:
    account = edge.account
    stores = Stores(
        bucket=account.bucket,
        ledger=account.ledger,
        hot={"telemetry": account.hot},
        contracts=[TELEMETRY],
        now_micros=int(edge.clock() * SECOND),
        held=Held(passed={(STREAM, SHARD): 10**30}),
    )
    return verify(stores)


def where(account: Cloud) -> list[str]:
    """Objects whose bytes or rows have the device's id."""
    found = []
    for key in account.bucket.keys(""):
        data = account.bucket.get(key)
        if key.endswith(".parquet"):
            data += json.dumps(plain(parquet.decode(data))).encode()
        if IT.encode() in data:
            found.append(key)
    return found + [pk for pk, _ in account.items() if IT in pk]


def records(edge: Edge) -> list[tuple[str, int]]:
    lake = Lake(edge.account.bucket, edge.account.ledger, [TELEMETRY])
    rows = lake.query("SELECT device_id, sequence FROM records ORDER BY ALL")
    return [tuple(row.values()) for row in plain(rows)]


@pytest.fixture
def fleet(edge: Edge) -> Edge:
    """Two devices by every way: good, rejected, repeated, delivered again, in aggregates."""
    whole = aggregate(
        [
            (IT, reading(IT, seq=10)),
            (OTHER, reading(OTHER, seq=11)),
            (IT, reading(IT, seq=12, **HOT)),
            ("x", b"no"),
        ]
    )
    bodies = [
        reading(IT, seq=1),
        reading(OTHER, seq=2),
        reading(IT, seq=3, **HOT),
        reading(OTHER, seq=4, **HOT),
        reading(IT, seq=1),
        whole,
    ]
    edge.ingest(bodies)
    edge.ingest([*bodies[4:], reading(OTHER, NOON - HOUR, seq=5)], first=104)
    edge.ingest([reading(OTHER, seq=6), reading(OTHER, seq=7)], NOON + HOUR, first=300)
    return edge


BEFORE = sorted([(IT, 1), (IT, 10), (OTHER, 2), (OTHER, 5), (OTHER, 6), (OTHER, 7), (OTHER, 11)])
LEFT = [(OTHER, 2), (OTHER, 5), (OTHER, 6), (OTHER, 7), (OTHER, 11)]


@pytest.mark.parametrize("lake", ["none", "old", "all"])
def test_it_is_nowhere_and_all_else_is_as_it_was(fleet: Edge, lake: str) -> None:
    if lake != "none":
        compacted(fleet)
    if lake == "old":
        fleet.ingest([reading(IT, seq=20), reading(IT, seq=1)], first=500)
    before = fleet.account.keys("raw/")
    assert checks(fleet) == set()
    assert len(where(fleet.account)) > 3
    report = gone(fleet)
    assert report.erased
    assert where(fleet.account) == []
    assert records(fleet) == LEFT
    assert checks(fleet) == set()
    assert fleet.account.keys("raw/") == before
    compacted(fleet)
    assert (records(fleet), checks(fleet), where(fleet.account)) == (LEFT, set(), [])
    assert not any(gone(fleet).counts.values()), "there is nothing left to do"


def test_a_position_is_known_as_erased(fleet: Edge) -> None:
    assert fates_of(fleet) == {"delivered": 6, "quarantined": 3}
    gone(fleet)
    assert fates_of(fleet) == {"delivered": 4, "quarantined": 2, "erased": 3}


def test_the_audit_says_what_and_never_who(fleet: Edge) -> None:
    compacted(fleet)
    report = gone(fleet)
    [note] = erasures.known(fleet.account.bucket)
    assert note.key == report.audit
    assert IT not in fleet.account.bucket.get(note.key).decode()
    assert note.device == erasures.name_of(fleet.account.bucket, IT)
    assert note.counts == {
        "raw": 6,
        "landing": 5,
        "quarantine": 3,
        "lake": 2,
        "lake_repeats": 1,
        "hot": 2,
    }
    assert note.finished_at
    assert {key.split("/")[0] for key in note.objects} == {"raw", "landing", "quarantine"}
    assert len(note.files) == 2
    assert len(note.manifests) == 1


def test_a_dry_run_counts_and_writes_nothing(fleet: Edge) -> None:
    keys, items = fleet.account.keys(), fleet.account.items()
    told = preview(places(fleet), Choice(TELEMETRY, IT))
    assert told.counts == {
        "raw": 6,
        "landing": 5,
        "quarantine": 3,
        "lake": 0,
        "lake_repeats": 0,
        "hot": 2,
    }
    assert not told.erased
    assert (fleet.account.keys(), fleet.account.items()) == (keys, items)


def test_two_devices_one_after_the_other(fleet: Edge) -> None:
    compacted(fleet)
    gone(fleet)
    fleet.clock.sleep(1)
    erase(places(fleet), Choice(TELEMETRY, OTHER))
    assert (records(fleet), checks(fleet)) == ([], set())
    assert fates_of(fleet) == {"erased": 8, "quarantined": 1}, "the one that named nobody"


def test_partitions_say_what_is_left_and_stay_sealed(fleet: Edge) -> None:
    fleet.ingest([reading(IT, seq=1, battery=3), reading(OTHER, seq=2, battery=3)], first=900)
    compacted(fleet)
    bucket = fleet.account.bucket
    old = manifest.read(bucket, "telemetry")
    seal = manifest.Seal(0, 0, exact=True, missing=0)
    parts = tuple(replace(part, seal=seal) for part in old.partitions)
    manifest.commit(bucket, old, replace(old, partitions=parts))
    gone(fleet)
    lake = manifest.read(bucket, "telemetry")
    assert [(p.rows, p.ids, p.conflicts, p.seal) for p in lake.partitions] == [
        (1, 1, 0, seal),
        (5, 4, 1, seal),
    ]
    for part in lake.partitions:
        held = [landing.read(bucket, file.key) for file in part.files]
        assert part.digest == f"{sum(map(digest_of, held)) % 2**64:016x}"
    assert [m.version for m in manifest.history(bucket, "telemetry").values()] == [lake.version]


def test_a_compaction_that_had_read_the_device_begins_again(fleet: Edge) -> None:
    """It holds what landing had; its commit must not bring that back."""
    account, commit = fleet.account, manifest.commit
    lost: list[bool] = []

    def late(bucket: Any, old: Any, new: Any) -> Any:
        if not lost:
            lost.append(True)
            gone(fleet)
        return commit(bucket, old, new)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compact.manifest, "commit", late)
        with pytest.raises(manifest.Raced):
            compacted(fleet)
    assert (records(fleet), where(account)) == (LEFT, [])
    compacted(fleet)
    assert (records(fleet), where(account)) == (LEFT, [])


def test_a_devices_only_item_goes_too(edge: Edge, tmp_path: Any) -> None:
    path = rules(tmp_path, ("[hot]", '[hot]\nlayout = "latest"'))
    edge.deploy(path)
    edge.ingest([reading(IT, seq=1), reading(OTHER, seq=2)])
    assert sorted(edge.account.items()) == [(IT, "latest"), (OTHER, "latest")]
    assert erase(places(edge), Choice(load_contract(path), IT)).counts["hot"] == 1
    assert sorted(edge.account.items()) == [(OTHER, "latest")]


# ---- What comes later ----


def test_the_same_delivery_again_brings_nothing_back(edge: Edge) -> None:
    """An answer got lost, and the source brings it once more, in the very same bytes."""
    bodies = [reading(IT, seq=1), reading(OTHER, seq=2)]
    edge.ingest(bodies)
    gone(edge)
    edge.ingest(bodies)
    assert (records(edge), checks(edge), where(edge.account)) == ([(OTHER, 2)], set(), [])
    assert fates_of(edge) == {"delivered": 1, "erased": 1}


def test_a_record_that_comes_again_in_another_delivery_is_told_and_goes_again(edge: Edge) -> None:
    edge.ingest([reading(IT, seq=1), reading(OTHER, seq=2)])
    gone(edge)
    edge.ingest([reading(IT, seq=1)])
    assert checks(edge) == {("twice", "verdicts")}
    assert gone(edge).erased
    assert (records(edge), checks(edge), where(edge.account)) == ([(OTHER, 2)], set(), [])


def test_what_arrives_later_is_new(edge: Edge) -> None:
    edge.ingest([reading(IT, seq=1)])
    gone(edge)
    edge.ingest([reading(IT, seq=2)], first=200)
    assert (records(edge), checks(edge)) == ([(IT, 2)], set())


def test_reprocessing_delivers_nothing_of_it(fleet: Edge, tmp_path: Any) -> None:
    compacted(fleet)
    gone(fleet)
    fleet.deploy(rules(tmp_path, WIDER))
    done = reprocess(fleet.wiring, NOON, NOON + 2 * HOUR)
    assert done.complete
    assert records(fleet) == sorted([*LEFT, (OTHER, 4)])
    assert where(fleet.account) == []
    compacted(fleet)
    assert records(fleet) == sorted([*LEFT, (OTHER, 4)])


def test_a_replay_of_what_was_parked_leaves_it_away(edge: Edge) -> None:
    bodies = [reading(IT, seq=1)]
    edge.ingest(bodies)
    edge.park(bodies)
    gone(edge)
    assert edge.replay().chosen == 0
    assert records(edge) == []


def test_a_replay_of_others_in_its_aggregate_leaves_its_members_away(
    edge: Edge, tmp_path: Any
) -> None:
    both = aggregate([(IT, reading(IT, seq=1)), ("k", reading(OTHER, seq=2, **HOT))])
    edge.ingest([both, b"[" + reading(IT, seq=3) + b"," + reading(OTHER, seq=4, **HOT) + b"]"])
    gone(edge, shared=True)
    edge.deploy(rules(tmp_path, WIDER))
    done = edge.replay()
    assert (done.delivered, done.missing, done.quarantined) == (1, 1, 0)
    assert (records(edge), where(edge.account)) == ([(OTHER, 2)], [])
    assert checks(edge) == set()


# ---- Several devices in one source record ----


def test_others_in_an_aggregate_keep_their_bytes_and_places(edge: Edge) -> None:
    other = reading(OTHER, seq=2)
    edge.ingest([aggregate([(IT, reading(IT, seq=1)), ("k", other), (IT, reading(IT, seq=3))])])
    gone(edge)
    [key] = edge.account.keys("raw/")
    [body] = raw.read(edge.account.bucket, key).column("_body").to_pylist()
    assert [data for _, data in deaggregate(body)][1] == other
    assert erased_of(raw.read(edge.account.bucket, key)) == {(0, 0), (0, 2)}
    assert (records(edge), checks(edge), where(edge.account)) == ([(OTHER, 2)], set(), [])


@pytest.mark.parametrize("packed", [bytes, gzip.compress], ids=["array", "gzip"])
def test_an_array_of_several_is_told_and_goes_whole_if_asked(edge: Edge, packed: Any) -> None:
    array = b"[" + reading(IT, seq=1) + b"," + reading(OTHER, seq=2) + b"]"
    edge.ingest([packed(array), reading(IT, seq=3)])
    keys = edge.account.keys()
    with pytest.raises(CannotErase, match=r"1 source records hold messages of other devices"):
        gone(edge)
    assert edge.account.keys() == keys
    assert gone(edge, shared=True).erased
    assert (records(edge), checks(edge), where(edge.account)) == ([(OTHER, 2)], set(), [])


@pytest.mark.parametrize("mine", [{}, HOT])
@pytest.mark.parametrize("theirs", [{}, HOT])
def test_whose_an_array_is_does_not_depend_on_verdicts(edge: Edge, mine: Any, theirs: Any) -> None:
    array = b"[" + reading(IT, seq=1, **mine) + b"," + reading(OTHER, seq=2, **theirs) + b"]"
    edge.ingest([array])
    with pytest.raises(CannotErase, match="1 source records"):
        gone(edge)
    gone(edge, shared=True)
    assert (checks(edge), where(edge.account)) == (set(), [])
    assert fates_of(edge) == {"quarantined" if theirs else "delivered": 1}


def test_an_array_of_its_own_goes(edge: Edge) -> None:
    edge.ingest([b"[" + reading(IT, seq=1) + b"," + reading(IT, seq=2, **HOT) + b"]"])
    assert gone(edge).erased
    assert (records(edge), checks(edge), where(edge.account)) == ([], set(), [])
    assert fates_of(edge) == {"erased": 1}


def test_what_may_mention_it_goes_if_asked(edge: Edge) -> None:
    edge.ingest([b"{broken " + IT.encode(), reading(OTHER, seq=1, note=IT), reading(IT, seq=2)])
    assert [one.rpartition("/")[2] for one in gone(edge).mentions] == ["100"]
    assert fates_of(edge) == {"delivered": 1, "quarantined": 1, "erased": 1}
    assert gone(edge, mentions=True).erased
    assert checks(edge) == set()
    assert fates_of(edge) == {"delivered": 1, "erased": 2}
    assert {key.split("/")[0] for key in where(edge.account)} == {"raw", "landing"}  # the note's


def test_what_was_archived_and_never_ran_goes_from_raw(edge: Edge) -> None:
    given = delivery([reading(IT, seq=1), reading(OTHER, seq=2)], NOON, STREAM)
    raw.archive(edge.account.bucket, given, Deadline(edge.clock() + 9, edge.clock))
    assert gone(edge).counts["raw"] == 1
    assert where(edge.account) == []
    edge.ingest([reading(IT, seq=1), reading(OTHER, seq=2)])
    assert (records(edge), checks(edge)) == ([(OTHER, 2)], set())


# ---- Cut short ----


def test_debts_have_to_be_paid_before(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    edge.ingest([reading(IT, seq=1)])
    [attempt] = ledger.attempts(edge.account.ledger)
    owing = replace(attempt, repair=("debt",))
    monkeypatch.setattr(ledger, "books", lambda _: ledger.Books((owing,), {}, {}))
    with pytest.raises(CannotErase, match="1 debts of the hot table"):
        gone(edge)
    assert records(edge) == [(IT, 1)]


WRITES = ("PutObject", "DeleteObjects", "BatchWriteItem")


@dataclass
class Mortal:
    """A world in which the process dies at its n-th write: before it, or before its answer."""

    dies_at: int
    after: bool
    clock: Callable[[], float] = time.time
    writes: int = 0

    def effect(self, call: Call, act: Callable[[], T]) -> T:
        self.writes += call.operation in WRITES
        dies = call.operation in WRITES and self.writes == self.dies_at
        if dies and not self.after:
            raise Crash
        done = act()
        if dies:
            raise Crash
        return done

    def takes(self, call: Call, key: tuple[str, str]) -> bool:  # noqa: ARG002  as it is
        return True


def copied(edge: Edge, world: World) -> Edge:
    """The same state in a world of doubles."""
    old = edge.account
    s3, dynamodb = S3(world), DynamoDB(world)
    s3.create_bucket(Bucket=old.bucket.name)
    stored = {key: Stored(old.bucket.get(key), 0.0) for key in old.bucket.keys("")}
    s3.buckets[old.bucket.name].update(stored)
    for table in (old.hot, old.ledger):
        dynamodb.create_table(TableName=table.name)
        items = {(item["pk"]["S"], item["sk"]["S"]): item for item in table.scan()}
        dynamodb.tables[table.name].update(items)
    account = replace(
        old,
        s3=s3,
        dynamodb=dynamodb,
        bucket=Bucket(s3, old.bucket.name),
        hot=Table(dynamodb, old.hot.name),
        ledger=Table(dynamodb, old.ledger.name),
    )
    return replace(edge, account=account)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_at_any_write_is_finished_by_the_next_run(fleet: Edge, when: str) -> None:
    compacted(fleet)
    whole = copied(fleet, Calm())
    for at in count(1):
        mortal = copied(whole, Mortal(at, after=when == "after"))
        try:
            gone(mortal)
        except Crash:
            left = copied(mortal, Calm())
            assert records(left) in (LEFT, BEFORE), at
            if at % 4 == 0:
                assert ("unexplained", "erasure") in checks(left), at
            assert gone(left).erased, at
            assert (records(left), where(left.account)) == (LEFT, []), at
            if at % 4 == 0:
                assert checks(left) == set(), at
        else:
            break
    assert at > 2 * len(WRITES)
