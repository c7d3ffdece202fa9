"""The lake broken on purpose, it is caught: as `tests/test_planted.py` does for the pipeline.

Of 500 seeds those are run in which anything is compacted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest

import ingest.sealing
import sinks.lake.compact
import sinks.lake.contest
import sinks.lake.files
import sinks.lake.manifest
import sinks.lake.plan
import sinks.lake.reader
import sinks.lake.work
from infra.simulation.many import many
from infra.simulation.scenario import LAKES_EVERY
from sinks import landing
from sinks.bucket import Bucket
from sinks.lake.manifest import Absorbed, Manifest, Partition
from sinks.lake.plan import Object
from sinks.ledger import Attempt
from tests.test_planted import CHUNK_SEEDS, SEEDS_MAX, UNFIT, Plant, raised


def rows_that_lost_stay(patch: pytest.MonkeyPatch) -> None:
    """An hour is made anew with all its rows, those that law 5 took away too."""
    patch.setattr(sinks.lake.contest.Contest, "without", "")


def only_hours_of_new_rows_change(patch: pytest.MonkeyPatch) -> None:
    """Where a retry by other rules put a record into another hour, the old one keeps it."""
    patch.setattr(sinks.lake.contest.Contest, "hours", lambda *_: set())


def marks_that_were_taken_in_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A position is judged by its new marks alone."""
    patch.setattr(sinks.lake.contest.Contest, "_old_marks", lambda *_: [])


def rows_that_were_taken_in_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A position is judged by its new rows alone."""
    patch.setattr(sinks.lake.contest.Contest, "_held", lambda *_: [])


def marks_are_left_to_lie(patch: pytest.MonkeyPatch) -> None:
    """Whoever lists what is fresh lists landing."""

    def sources(contract: str) -> tuple[str, ...]:
        return (f"{landing.LANDING}/{contract}/",)

    patch.setattr(sinks.lake.manifest, "sources", sources)


def an_attempt_is_taken_in_half(patch: pytest.MonkeyPatch) -> None:
    """Landing first, the marks of the same attempt next time."""
    real = sinks.lake.plan.fresh_of

    def fresh_of(made: Attempt, absorbed: Collection[str]) -> set[Object]:
        found = real(made, absorbed)
        return {one for one in found if one.landed} or found

    patch.setattr(sinks.lake.plan, "fresh_of", fresh_of)
    patch.setattr(sinks.lake.work, "fresh_of", fresh_of)


def repeats_are_thrown_away(patch: pytest.MonkeyPatch) -> None:
    """Of equal records one is kept: when it is taken away, there is none."""
    real = sinks.lake.files.Files.write

    def write(files: Any, rows: Any) -> None:
        if "/repeats/" not in files._where:
            real(files, rows)

    patch.setattr(sinks.lake.files.Files, "write", write)


def taken_in_before_it_is_there(patch: pytest.MonkeyPatch) -> None:
    """One commit says what was taken in, the next one where it is."""
    real = sinks.lake.manifest.commit

    def commit(bucket: Bucket, old: Manifest, new: Manifest) -> Manifest:
        first = real(bucket, old, replace(new, partitions=old.partitions))
        return real(bucket, first, new)

    patch.setattr(sinks.lake.manifest, "commit", commit)


def a_list_replaced_in_place(patch: pytest.MonkeyPatch) -> None:
    """The list of what was taken in is one object an hour: it is longer before the commit."""
    real = sinks.lake.manifest.absorb

    def absorb(bucket: Bucket, manifest: Manifest, more: Absorbed, objects: Any) -> Absorbed:
        made = real(bucket, manifest, more, objects)
        key = f"lake/{manifest.contract}/absorbed/{more.hour.replace('/', '-')}.parquet"
        bucket.put(key, bucket.get(made.key))
        return replace(made, key=key)

    patch.setattr(sinks.lake.manifest, "absorb", absorb)


def a_file_named_by_its_hour(patch: pytest.MonkeyPatch) -> None:
    """A name that is taken means written."""
    real = sinks.lake.files.Files.close

    def close(files: Any) -> None:
        name = hashlib.sha256(files._where.encode())
        with patch.context() as named:
            named.setattr(sinks.lake.files.hashlib, "sha256", lambda _: name)
            real(files)

    patch.setattr(sinks.lake.files.Files, "close", close)


def a_seal_that_stays(patch: pytest.MonkeyPatch) -> None:
    """What is added to an hour that was sealed makes it no other one."""

    def sealed_as(old: Partition | None, new: Partition) -> Partition:
        return new if old is None else replace(new, seal=old.seal)

    patch.setattr(sinks.lake.compact, "_sealed_as", sealed_as)


def sealed_before_all_is_taken_in(patch: pytest.MonkeyPatch) -> None:
    """What is settled is taken for what is in the lake."""
    patch.setattr(ingest.sealing, "fresh_hours", lambda *_: ())


PLANTED: dict[str, Plant] = {
    plant.__name__: plant
    for plant in (
        rows_that_lost_stay,
        only_hours_of_new_rows_change,
        marks_that_were_taken_in_are_forgotten,
        rows_that_were_taken_in_are_forgotten,
        marks_are_left_to_lie,
        an_attempt_is_taken_in_half,
        repeats_are_thrown_away,
        taken_in_before_it_is_there,
        a_list_replaced_in_place,
        a_file_named_by_its_hour,
        a_seal_that_stays,
        sealed_before_all_is_taken_in,
    )
}


@pytest.mark.timeout(400)  # some are found after fifty seeds, each with a lake
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED[name](monkeypatch)
    step = CHUNK_SEEDS * LAKES_EVERY
    for first in range(0, SEEDS_MAX, step):
        found = many(range(first, first + step, LAKES_EVERY))
        if found.failing:
            assert UNFIT.isdisjoint(raised(found))
            return
    pytest.fail(f"{name} was not found in {SEEDS_MAX} seeds")
