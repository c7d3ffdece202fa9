"""`millrace erase`, in an order in which every cut leaves what another run finishes.

    note what will be done ─▶ marks ─▶ raw ─▶ quarantine, landing ─▶ lake ─▶ hot ─▶ note that it is

A mark in dropped, of rule `erased`, stands for each element whose row goes, of the same generation:
so every position keeps its fate by law 5, and every count its sum. Marks come first, raw before the
rows that lead to it: what is half done is found by what is left of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from infra.erasing import rewrites
from infra.erasing.find import LINEAGE, Choice, Found, find
from sinks import erasures, hot, ledger, parquet
from sinks.bucket import Bucket
from sinks.deadline import Deadline
from sinks.erasures import Erasure
from sinks.lake import erase as lake
from sinks.lake.erase import Mark
from sinks.landing import DROPPED
from sinks.table import Key, Table, Waiting
from transform.erased import RULE
from transform.records import DROPPED_SCHEMA
from transform.tables import MICROS

HOT_SECONDS = 600.0  # in which the hot table must take the deletes
HOUR_MICROS = 3_600 * MICROS
DAY_CHARACTERS = len("#2026-11-24")  # behind the device, in the partition key of a reading

Rewrite = Callable[[bytes | None], bytes]


class CannotErase(ValueError):
    """Nothing was written; the message says why, and what to do."""


@dataclass(frozen=True)
class Places:
    """Where a device can be, and time. `publish` makes other tables show the lake as it is then."""

    bucket: Bucket
    ledger: Table
    hot: Table
    clock: Callable[[], float]
    waiting: Waiting
    publish: Callable[[], None] = lambda: None


@dataclass
class Report:
    """What there is of a device, by place; `erased` once it is there no longer.

    `mentions` and `shared` are positions: records that cannot be read and have the id in them, and
    those whose whole body goes although others sent part of it.
    """

    counts: dict[str, int] = field(default_factory=dict)
    mentions: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    owed: int = 0
    audit: str = ""
    erased: bool = False

    def to_json(self) -> dict[str, Any]:
        return vars(self)


def preview(places: Places, choice: Choice) -> Report:
    """What an erasure would do; nothing is written. Raises a `SinkError`."""
    return _Erasing(places, choice).report


def erase(places: Places, choice: Choice) -> Report:
    """Remove a device from every place. Again does no harm, and goes on where one was cut short.

    What arrives after it began is new, and stays. Raises `CannotErase`, `Raced`, a `SinkError`.
    """
    return _Erasing(places, choice).run()


class _Erasing:
    """One run: what was found, and what becomes of it."""

    def __init__(self, places: Places, choice: Choice) -> None:
        self._places, self._choice = places, choice
        self._books = ledger.books(places.ledger)
        self._found = found = find(places.bucket, self._books.attempts, choice)
        self.report = Report(_counted(found), sorted(found.mentions), sorted(found.shared))
        self.report.counts["hot"] = len(self._hot_keys())
        self.report.owed = self._owed()

    def run(self) -> Report:
        self._check()
        bucket, report = self._places.bucket, self.report
        note = self._begun()
        if note is None:
            report.erased = True
            return report
        self._note(note)
        marks = list(self._marks())
        note.marks = sorted({*note.marks, *(mark.key for mark in marks)})
        note.write(bucket)
        for key, rewrite in self._rewrites():
            data = bucket.change(key, rewrite)
            note.objects[key] = hashlib.sha256(data).hexdigest()
        self._leave_lake(note, marks)
        left = self._leave_hot()
        if not left:
            note.finished_at = _iso(self._places.clock())
        note.write(bucket)
        report.audit, report.erased = note.key, not left
        return report

    def _check(self) -> None:
        """Raise `CannotErase` where something else has to be decided or done before."""
        if self.report.shared and not self._choice.shared:
            raise CannotErase(
                f"{len(self.report.shared):,} source records hold messages of other devices that "
                "cannot be told apart in them; with --shared their bodies in raw go whole, and the "
                f"others' rows stay; the first is {self.report.shared[0]}"
            )
        if self.report.owed:
            raise CannotErase(
                f"{self.report.owed:,} debts of the hot table point at objects that would change; "
                "run it again when they are paid"
            )

    def _begun(self) -> Erasure | None:
        """The note of this erasure, or of one that was cut short; None where there is nothing."""
        bucket, choice = self._places.bucket, self._choice
        name = erasures.name_of(bucket, choice.device)
        own = [e for e in erasures.known(bucket) if e.contract == choice.contract.name]
        for one in own:
            if one.device == name and not one.finished_at:
                return one
        if not any(self.report.counts.values()):
            return None
        taken, now = {one.key for one in own}, self._places.clock()
        while (made := Erasure(choice.contract.name, name, _iso(now))).key in taken:
            now += 0.001  # a note is never replaced by that of another run
        return made

    def _note(self, note: Erasure) -> None:
        """Write down what will be there, so that no crash leaves bytes that nobody explains."""
        for place, count in self.report.counts.items():
            note.counts[place] = max(count, note.counts.get(place, 0))
        for key, rewrite in self._rewrites():
            data = rewrite(self._places.bucket.get(key))
            note.objects[key] = hashlib.sha256(data).hexdigest()
        note.write(self._places.bucket)

    def _rewrites(self) -> Iterator[tuple[str, Rewrite]]:
        """Objects to be written again, and how: raw first."""
        found, choice = self._found, self._choice
        for key, elements in sorted(found.raw.items()):
            yield key, partial(rewrites.raw_without, elements=elements, device=choice.device)
        for key in sorted(found.quarantine):
            yield key, partial(rewrites.quarantine_without, found=found, choice=choice)
        for key in sorted(found.landing):
            yield key, partial(rewrites.landing_without, choice=choice)

    def _marks(self) -> Iterator[Mark]:
        """Marks for what goes, written: an object for each arrival hour and generation."""
        for rows in _apart(self._found.lineage):
            rule = pa.array([RULE] * rows.num_rows, pa.string())
            names = DROPPED_SCHEMA.names[1:]
            table = pa.table([rule, *rows.select(names).columns], schema=DROPPED_SCHEMA)
            ends = pc.min_max(table.column("_arrival"))
            prefix = f"{DROPPED}/{self._choice.contract.name}"
            data = parquet.encode(table)
            key = self._places.bucket.put_once(prefix, ends["min"].value, data)
            generation = table.column("_generation")[0].as_py()
            yield Mark(key, table.num_rows, ends["max"].value, generation)

    def _leave_lake(self, note: Erasure, marks: Sequence[Mark]) -> None:
        now = int(self._places.clock() * MICROS)
        choice, publish = self._choice, self._places.publish
        done = lake.erase(self._places.bucket, choice.contract, choice.device, marks, now, publish)
        note.lake_version = done.version
        note.files = sorted({*note.files, *done.files})
        note.manifests = sorted({*note.manifests, *done.manifests})

    def _leave_hot(self) -> set[Key]:
        """Delete the device's items; those that the table did not take in time."""
        deadline = Deadline(self._places.clock() + HOT_SECONDS, self._places.clock)
        return self._places.hot.delete_all(self._hot_keys(), deadline, self._places.waiting)

    def _hot_keys(self) -> list[Key]:
        """Keys of the device's items, of both layouts: what is hot may have outlived its record."""
        device, found = self._choice.device, []
        for pk, sk in self._places.hot.all_keys():
            if self._choice.contract.latest:
                if pk == device:
                    found.append((pk, hot.LATEST))
            elif pk[:-DAY_CHARACTERS] == device and pk[-DAY_CHARACTERS] == "#":
                found.append((pk, sk))
        return found

    def _owed(self) -> int:
        """Debts that point at rows of landing objects by their place."""
        books, changed = self._books, self._found.landing.keys()
        owed = [made for made in books.owed.values() if made.landing_key in changed]
        return len(owed) + sum(mark.landing_key in changed for mark in books.open_swept)


def _counted(found: Found) -> dict[str, int]:
    return {
        "raw": found.records,
        "landing": sum(found.landing.values()),
        "quarantine": sum(found.quarantine.values()),
        "lake": sum(rows for key, rows in found.lake.items() if "/repeats/" not in key),
        "lake_repeats": sum(rows for key, rows in found.lake.items() if "/repeats/" in key),
    }


def _apart(lineage: Sequence[pa.Table]) -> Iterator[pa.Table]:
    """Each element of each generation once, by arrival hour and generation."""
    rows = pa.concat_tables([LINEAGE.empty_table(), *lineage])
    once: dict[tuple[Any, ...], int] = {}
    names = ("_raw", "_index", "_sub", "_child", "_generation")
    columns = [rows.column(name).to_pylist() for name in names]
    for place, element in enumerate(zip(*columns, strict=True)):
        once.setdefault(element, place)
    arrivals = rows.column("_arrival").cast(pa.int64()).to_pylist()
    groups: dict[tuple[int, str], list[int]] = {}
    for (*_, generation), place in once.items():
        groups.setdefault((arrivals[place] // HOUR_MICROS, generation), []).append(place)
    for _, places in sorted(groups.items()):
        some = rows.take(pa.array(sorted(places), pa.int64()))
        yield some.sort_by([(n, "ascending") for n in (*names[:4], "_arrival")]).combine_chunks()


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
