"""Compaction: crashes, zombies, races and retries change no answer, and nothing is read twice."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TypeVar

import pytest

from infra.doubles.world import Call
from sinks import landing
from sinks.bucket import Bucket
from sinks.lake import compact, manifest, retire
from sinks.lake.compact import Compacted
from sinks.lake.manifest import Raced, Seal
from sinks.lake.plan import UNKNOWN, Object, Plan
from sinks.lake.retire import Keep
from sinks.lake.workspace import Limits
from tests import lakes
from tests.lakes import Attempt, Verdict, World

T = TypeVar("T")
OLD, NEW = (0, 1), (0, 2)
GOOD, BAD, GONE = landing.LANDING, landing.QUARANTINE, landing.DROPPED
ONE_AT_A_TIME = Limits(fetchers=1)
SOON = datetime.now(UTC) + timedelta(days=1)


class Died(BaseException):
    """The process, at an effect."""


@dataclass
class Mortal:
    """A world in which the process dies at its n-th effect: before it, or before its answer."""

    dies_at: int = -1
    after: bool = False
    clock: Callable[[], float] = time.time
    calls: list[Call] = field(default_factory=list)

    def effect(self, call: Call, act: Callable[[], T]) -> T:
        self.calls.append(call)
        dies = len(self.calls) == self.dies_at
        if dies and not self.after:
            raise Died
        done = act()
        if dies:
            raise Died
        return done

    def takes(self, call: Call, key: tuple[str, str]) -> bool:  # noqa: ARG002  no table here
        return True


def verdict(kind: str = GOOD, hour: int = 0, digest: bytes = b"x", device: str = "a") -> Verdict:
    return Verdict(kind, device, lakes.NOON + hour * lakes.HOUR, digest * 16)


def world(**verdicts: dict[tuple[int, int], Verdict]) -> World:
    """Positions `p0`, `p1`... of one element each, and what generations make of them."""
    numbers = [int(name[1:]) for name in verdicts]
    return World(
        dict.fromkeys(numbers, 1),
        {number: lakes.NOON + number * 1_000_000 for number in numbers},
        {
            (number, 0, generation): made
            for number in numbers
            for generation, made in verdicts[f"p{number}"].items()
        },
        (),
    )


FLEET = world(
    p0={OLD: verdict(), NEW: verdict(BAD)},
    p1={OLD: verdict(digest=b"y"), NEW: verdict(digest=b"y")},
    p2={OLD: verdict(hour=1), NEW: verdict(hour=-1)},
    p3={OLD: verdict(), NEW: verdict()},
)


def written(
    bucket: Bucket, *positions: int, generation: tuple[int, int] = OLD, raw: str = "raw/1"
) -> list[Object]:
    return lakes.write(bucket, FLEET, Attempt(positions, generation, 3), raw)


def compacted(bucket: Bucket, objects: list[Object], grown: int = 0) -> Compacted:
    """One compaction; with `grown` 0 hours are added to wherever that can be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compact, "GROWN_TIMES", grown)
        plan = Plan(tuple(objects), 0)
        return compact.compact(bucket, lakes.CONTRACT, plan, ONE_AT_A_TIME)


@pytest.fixture
def bucket() -> Bucket:
    return lakes.made()


# ---- What one compaction does ----


def test_rows_become_hours_each_record_once(bucket: Bucket) -> None:
    done = compacted(bucket, written(bucket, 0, 1, 2, 3))
    assert (done.rows, done.repeats, done.anew) == (4, 1, 2)
    noon = lakes.NOON // lakes.HOUR
    told = {p.hour: (p.rows, p.ids, p.conflicts) for p in done.lake.partitions}
    assert told == {noon: (2, 1, 1), noon + 1: (1, 1, 0)}
    assert lakes.lake_rows(bucket) == lakes.rule(bucket)


def test_a_second_compaction_of_the_same_takes_in_nothing(bucket: Bucket) -> None:
    objects = written(bucket, 0, 1)
    first = compacted(bucket, objects)
    again = compacted(bucket, objects)
    assert (again.objects, again.lake) == (0, first.lake)


def test_an_object_is_read_once(bucket: Bucket) -> None:
    objects = written(bucket, 0, 1, 2, 3)
    seen = Mortal()
    compacted(lakes.made(seen, bucket), objects)
    gets = Counter(call.detail for call in seen.calls if call.operation == "GetObject")
    assert {gets[one.key] for one in objects} == {1}


def test_files_say_their_contracts_columns_sorted_by_device_and_time(bucket: Bucket) -> None:
    done = compacted(bucket, written(bucket, 0, 1, 2, 3))
    for file in done.lake.files:
        rows = landing.read(bucket, file.key)
        assert rows.schema.equals(lakes.CONTRACT.landing_schema())
        assert rows.column("at").to_pylist() == sorted(rows.column("at").to_pylist())


def test_objects_whose_rows_are_not_as_told_are_not_taken_in(bucket: Bucket) -> None:
    [told] = written(bucket, 0, 1)
    with pytest.raises(AssertionError, match="objects of 3 rows hold 2"):
        compacted(bucket, [replace(told, rows=3)])
    assert manifest.read(bucket, "t").version == 0


# ---- Later attempts ----


@pytest.mark.parametrize("grown", [0, 8])
def test_a_zombies_late_object_changes_no_answer(bucket: Bucket, grown: int) -> None:
    compacted(bucket, written(bucket, 0, 1, 2, 3))
    before = lakes.lake_rows(bucket)
    late = written(bucket, 1, 2, raw="raw/zombie")
    assert lakes.told(bucket) == before
    done = compacted(bucket, late, grown)
    assert lakes.lake_rows(bucket) == before
    repeats = [file.rows for part in done.lake.partitions for file in part.repeats]
    assert sum(repeats) == 1, "the one that was there"
    assert lakes.told(bucket) == before


def test_a_retry_by_newer_rules_takes_rows_away_from_other_hours(bucket: Bucket) -> None:
    compacted(bucket, written(bucket, 2))
    done = compacted(bucket, written(bucket, 2, generation=NEW, raw="raw/2"))
    noon = lakes.NOON // lakes.HOUR
    assert [part.hour for part in done.lake.partitions] == [noon - 1]
    assert lakes.lake_rows(bucket) == lakes.rule(bucket)


def test_a_repeat_stands_again_when_the_row_before_it_is_taken_away(bucket: Bucket) -> None:
    first, second = (
        {OLD: verdict(), (1, 1): verdict(GONE)},
        {OLD: verdict(), (1, 1): verdict(GONE)},
    )
    fleet = world(p0=first, p1=second)
    objects = lakes.write(bucket, fleet, Attempt((0, 1), OLD, 3), "raw/1")
    assert compacted(bucket, objects).repeats == 1
    again = lakes.write(bucket, fleet, Attempt((0,), (1, 1), 3), "raw/2")
    compacted(bucket, again)
    [(*_, raw, index)] = lakes.lake_rows(bucket)
    assert (raw, index) == ("raw/1", 1)


def test_an_hour_to_which_many_files_were_added_is_made_anew(bucket: Bucket) -> None:
    fleet = world(**{f"p{n}": {OLD: verdict(digest=bytes([n]))} for n in range(12)})
    made = []
    for n in range(12):
        attempt = Attempt((n,), OLD, 3)
        done = compacted(bucket, lakes.write(bucket, fleet, attempt, f"raw/{n}"))
        made.append(len(done.lake.partitions[0].files))
    assert max(made) == compact.ADDED_MAX
    assert made[-1] < compact.ADDED_MAX
    assert lakes.lake_rows(bucket) == lakes.rule(bucket)


# ---- Crashes and races ----


def crashes() -> Iterator[tuple[int, bool]]:
    return ((at, after) for at in count(1) for after in (False, True))


@pytest.mark.parametrize("grown", [0, 8])
def test_a_crash_at_any_effect_leaves_the_old_or_the_new(grown: int) -> None:
    def begun() -> tuple[Bucket, list[Object]]:
        bucket = lakes.made()
        compacted(bucket, written(bucket, 0, 2, 3))
        return bucket, [
            *written(bucket, 1, raw="raw/2"),
            *written(bucket, 0, 2, generation=NEW, raw="raw/3"),
        ]

    bucket, objects = begun()
    old = manifest.read(bucket, "t")
    new = compacted(bucket, objects, grown).lake
    died = 0
    for at, after in crashes():
        bucket, objects = begun()
        seen = Mortal(at, after)
        try:
            compacted(lakes.made(seen, bucket), objects, grown)
        except Died:
            if after and seen.calls[-1].operation != "PutObject":
                continue  # what only reads is the same before and after
            died += 1
        else:
            break
        found = manifest.read(bucket, "t")
        assert found.partitions in (old.partitions, new.partitions)
        assert lakes.told(bucket) == lakes.rule(bucket)
        done = compacted(bucket, objects, grown)
        assert done.lake.partitions == new.partitions
        assert lakes.lake_rows(bucket) == lakes.rule(bucket)
    assert died > 10


def test_of_two_compactions_at_once_one_begins_again(bucket: Bucket) -> None:
    objects = written(bucket, 0, 1)
    others = written(bucket, 2, 3, raw="raw/2")

    class Slower(Mortal):
        def effect(self, call: Call, act: Callable[[], T]) -> T:
            if call.operation == "PutObject" and call.detail.endswith("manifest.json"):
                compacted(bucket, others)
            return super().effect(call, act)

    with pytest.raises(Raced, match="version 1 was committed meanwhile"):
        compacted(lakes.made(Slower(), bucket), objects)
    assert lakes.told(bucket) == lakes.rule(bucket)
    compacted(bucket, objects)
    assert lakes.lake_rows(bucket) == lakes.rule(bucket)


@dataclass
class Overtaken(Mortal):
    """A world in which something happens just after it was first read which manifest counts."""

    meanwhile: Callable[[], object] = int
    happened: bool = False

    def effect(self, call: Call, act: Callable[[], T]) -> T:
        done = super().effect(call, act)
        if call.detail == "lake/t/manifest.json" and not self.happened:
            self.happened = True
            self.meanwhile()
        return done


def test_a_reader_that_is_overtaken_by_a_commit_sees_the_old_lake_whole(bucket: Bucket) -> None:
    """What is fresh is what the manifest that it read had not taken in."""
    compacted(bucket, written(bucket, 0))
    objects = written(bucket, 1, 2, 3, raw="raw/2")
    overtaken = Overtaken(meanwhile=lambda: compacted(bucket, objects))
    assert lakes.told(lakes.made(overtaken, bucket)) == lakes.rule(bucket)
    assert manifest.read(bucket, "t").version == 2


# ---- Seals ----


def sealed(bucket: Bucket) -> None:
    lake = manifest.read(bucket, "t")
    seal = Seal(as_of=1, sealed_at=2, exact=True, missing=0)
    parts = tuple(replace(part, seal=seal) for part in lake.partitions)
    manifest.commit(bucket, lake, replace(lake, partitions=parts))


@pytest.mark.parametrize("grown", [0, 8])
def test_a_new_id_reopens_its_hour_and_no_other(bucket: Bucket, grown: int) -> None:
    compacted(bucket, written(bucket, 0, 2))
    sealed(bucket)
    done = compacted(bucket, written(bucket, 1, raw="raw/2"), grown)
    noon = lakes.NOON // lakes.HOUR
    assert {part.hour: bool(part.seal) for part in done.lake.partitions} == {
        noon: False,
        noon + 1: True,
    }


@pytest.mark.parametrize("grown", [0, 8])
def test_a_repeat_does_not_reopen_an_hour(bucket: Bucket, grown: int) -> None:
    compacted(bucket, written(bucket, 0))
    sealed(bucket)
    done = compacted(bucket, written(bucket, 3, raw="raw/2"), grown)
    assert done.repeats == 1
    assert all(part.seal for part in done.lake.partitions)


# ---- What is past its time ----


def test_replaced_files_and_old_manifests_go_when_nobody_can_need_them(bucket: Bucket) -> None:
    compacted(bucket, written(bucket, 0), 8)
    new = compacted(bucket, written(bucket, 1, raw="raw/2"), 8).lake
    at_once = Keep(timedelta(0), None)
    dry = retire.retire(bucket, "t", datetime.now(UTC), at_once, dry_run=True)
    assert dry.files == 0, "a compaction may be about to name them"
    dry = retire.retire(bucket, "t", SOON, at_once, dry_run=True)
    assert retire.retire(bucket, "t", SOON, at_once) == dry
    assert (dry.files, dry.manifests, dry.landing) == (2, 1, 0)  # a file, and a list of absorbed
    assert set(manifest.history(bucket, "t").values()) == {new}
    assert lakes.lake_rows(bucket) == lakes.told(bucket) == lakes.rule(bucket)


def test_what_a_manifest_of_the_last_days_names_is_kept(bucket: Bucket) -> None:
    first = compacted(bucket, written(bucket, 0), 8).lake
    compacted(bucket, written(bucket, 1, raw="raw/2"), 8)
    kept = retire.retire(bucket, "t", SOON)
    assert (kept.files, kept.manifests, kept.landing) == (0, 0, 0)
    assert all(bucket.find(file.key) for file in first.files)


def test_landing_that_was_taken_in_goes_after_the_longest_retry(bucket: Bucket) -> None:
    taken = written(bucket, 0, 1)
    compacted(bucket, taken)
    fresh = written(bucket, 2, raw="raw/2")
    before = lakes.told(bucket)
    assert retire.retire(bucket, "t", SOON).landing == 0
    assert retire.retire(bucket, "t", SOON + retire.LANDED, Keep(timedelta(days=99))).landing == 1
    assert set(bucket.keys("landing/")) == {one.key for one in fresh}
    assert lakes.told(bucket) == before
    zombie = written(bucket, 0, 1)  # the very same bytes
    assert lakes.told(bucket) == before
    assert compacted(bucket, zombie).objects == 0


def test_objects_that_were_only_listed_are_taken_in_too(bucket: Bucket) -> None:
    listed = [Object(one.key, UNKNOWN) for one in written(bucket, 0, 1)]
    done = compacted(bucket, listed)
    rows = manifest.absorbed_keys(bucket, done.lake.absorbed).column("rows").to_pylist()
    assert rows == [2]
