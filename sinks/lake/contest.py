"""Which rows law 5 takes away: of a position that several generations were at, all but one's.

Most of it is decided without looking at rows: an arrival belongs to its position, so where at no
moment of arrival more than one generation was at work, every position has one. Only rows of a time
in which generations overlap are grouped by position.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations

from sinks import distinct
from sinks.lake.manifest import Absorbed, Manifest, absorbed_keys, arrival_hour
from sinks.lake.workspace import Workspace
from sinks.landing import DROPPED, LANDING, QUARANTINE
from transform import markers
from transform.tables import MICROS

LOSERS = "losers"
KEY = f"{distinct.POSITION}, _generation"
_NARROW = f"{distinct.ELEMENT}, {distinct.GENERATION}, _elements"
_NO_MARKER = f"_rule <> '{markers.RULE}'"
ENDS = "epoch_us(min(_arrival)), epoch_us(max(_arrival))"


@dataclass(frozen=True)
class Span:
    """A generation, and between which arrivals it was at work; microseconds since 1970."""

    generation: str
    first: int
    last: int


def overlap(spans: Iterable[Span]) -> tuple[int, int] | None:
    """From when until when more than one generation was at work, if ever."""
    hulls: dict[str, Span] = {}
    for span in spans:
        held = hulls.get(span.generation, span)
        first, last = min(held.first, span.first), max(held.last, span.last)
        hulls[span.generation] = Span(span.generation, first, last)
    shared = [
        (max(a.first, b.first), min(a.last, b.last)) for a, b in combinations(hulls.values(), 2)
    ]
    shared = [(first, last) for first, last in shared if first <= last]
    if not shared:
        return None
    return min(first for first, _ in shared), max(last for _, last in shared)


class Contest:
    """Landed objects and marks that are new to a lake, and what that takes away of either.

    `landed` says of each object which generations are in it. Markers' marks are passed over: at a
    marker's position there is no record, by any generation.
    """

    def __init__(
        self,
        work: Workspace,
        lake: Manifest,
        landed: Mapping[str, Sequence[Span]],
        marks: Sequence[str],
    ) -> None:
        self._work, self._lake = work, lake
        self._landed, self._marks = landed, marks
        self._fresh_marks = self._seen(marks)
        fresh = [span for spans in landed.values() for span in spans]
        fresh += [span for _, span in self._fresh_marks]
        self.window = overlap(self._spans(fresh))
        self._any = self.window is not None and self._decided(*self.window)

    @property
    def without(self) -> str:
        """What to put behind a FROM to leave the rows that stay."""
        return f"ANTI JOIN {LOSERS} USING ({KEY})" if self._any else ""

    def hours(self, hour: str) -> set[int]:
        """Event hours of the lake that lose rows; `hour` is SQL for that of a row."""
        if not self._any or self.window is None:
            return set()
        held = self._work.read(self._held(*self.window), f"{KEY}, {hour} AS hour")
        if not held:
            return set()
        sql = f"SELECT DISTINCT hour FROM ({held}) SEMI JOIN {LOSERS} USING ({KEY})"
        return {hour for (hour,) in self._work.rows(sql)}

    def marks(self) -> dict[str, Absorbed]:
        """By arrival hour, what the new marks add to what the manifest says of it."""
        found: dict[str, Absorbed] = {}
        for key, span in self._fresh_marks:
            held = found.get(arrival_hour(key), Absorbed(arrival_hour(key), "", 0))
            made = tuple(sorted({*held.marked_by, span.generation}))
            found[held.hour] = Absorbed(held.hour, "", 0, max(held.marks_until, span.last), made)
        return found

    def _seen(self, keys: Sequence[str]) -> list[tuple[str, Span]]:
        """Which generations made marks, and between which arrivals, by key."""
        columns = f"filename, _generation, {ENDS}"
        dropped = _of(DROPPED, keys)
        found = [
            self._work.read([key for key in keys if key not in dropped], columns),
            self._work.read(dropped, columns, _NO_MARKER),
        ]
        rows = [row for sql in found if sql for row in self._work.rows(f"{sql} GROUP BY ALL")]
        named = {str(self._work.fetched[key]): key for key in keys}
        return [(named[path], Span(*rest)) for path, *rest in rows]

    def _spans(self, fresh: Sequence[Span]) -> Iterator[Span]:
        """Of the new objects, and of what is held and arrived while these did."""
        if not fresh:
            return
        first, last = min(s.first for s in fresh), max(s.last for s in fresh)
        yield from fresh
        for partition in self._lake.partitions:
            for file in (*partition.files, *partition.repeats):
                low, high = max(file.first_arrival, first), min(file.last_arrival, last)
                yield from (Span(name, low, high) for name in file.generations if low <= high)
        for known in self._marked(first, last):
            low, high = max(_start(known.hour), first), min(known.marks_until, last)
            yield from (Span(name, low, high) for name in known.marked_by)

    def _decided(self, first: int, last: int) -> bool:
        """Make the table of losers; whether there are any."""
        if not self._tables(first, last):
            return False
        position = distinct.POSITION
        names = ("landing", QUARANTINE, DROPPED)
        every = " UNION ALL ".join(f"SELECT {KEY} FROM all_{name}" for name in names)
        self._work.db.execute(f"""
            CREATE TABLE contested AS SELECT {position} FROM ({every})
            GROUP BY ALL HAVING min(_generation) <> max(_generation)
        """)
        only = {n: f"(FROM all_{n} SEMI JOIN contested USING ({position}))" for n in names}
        chosen = distinct.Tables(**only).chosen()
        self._work.db.execute(f"""
            CREATE TABLE {LOSERS} AS
            SELECT DISTINCT {KEY} FROM {only["landing"]} ANTI JOIN ({chosen}) USING ({KEY})
        """)
        return self._work.number(f"SELECT count(*) FROM {LOSERS}") > 0

    def _tables(self, first: int, last: int) -> bool:
        """Tables of what law 5 asks of rows that arrived in between; whether any landed."""
        marks = [*self._marks, *self._old_marks(first, last)]
        kinds = {
            "landing": [*self._landed, *self._held(first, last)],
            QUARANTINE: _of(QUARANTINE, marks),
            DROPPED: _of(DROPPED, marks),
        }
        within = f"epoch_us(_arrival) BETWEEN {first} AND {last}"
        for name, keys in kinds.items():
            where = f"{within} AND {_NO_MARKER}" if name == DROPPED else within
            rows = self._work.read(keys, _NARROW, where)
            if not rows and name == "landing":
                return False
            self._work.db.execute(
                f"CREATE TABLE all_{name} AS {rows or 'FROM all_landing LIMIT 0'}"
            )
        return True

    def _held(self, first: int, last: int) -> list[str]:
        """Files of the lake with rows that may have arrived in between."""
        return [
            file.key
            for partition in self._lake.partitions
            for file in (*partition.files, *partition.repeats)
            if file.first_arrival <= last and first <= file.last_arrival
        ]

    def _marked(self, first: int, last: int) -> list[Absorbed]:
        """Arrival hours with marks that may have arrived in between and that the lake knows."""
        return [
            known
            for known in self._lake.absorbed
            if known.marks_until >= first and _start(known.hour) <= last
        ]

    def _old_marks(self, first: int, last: int) -> list[str]:
        lists = self._marked(first, last)
        keys = absorbed_keys(self._work.bucket, lists).column("key").to_pylist()
        return [key for key in keys if not key.startswith(f"{LANDING}/")]


def _of(kind: str, keys: Iterable[str]) -> list[str]:
    return [key for key in keys if key.startswith(f"{kind}/")]


def _start(hour: str) -> int:
    """When an arrival hour (`2026-11-24/12`) begins, in microseconds since 1970."""
    moment = datetime.strptime(f"{hour}+0000", "%Y-%m-%d/%H%z").astimezone(UTC)
    return int(moment.timestamp()) * MICROS
