"""Fresh objects and the lake that they touch, resolved: law 5, then repeats by identity.

It is what a reader adds to the lake and what a compaction writes down, so both say the same. Rows
come out of it sorted, hour by hour of event time. An hour whose standing rows all stay is not read
again as a whole: what is new is added to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from sinks import distinct, parquet
from sinks.lake.contest import ENDS, Contest, Span
from sinks.lake.manifest import Absorbed, File, Manifest
from sinks.lake.plan import Object
from sinks.lake.workspace import Workspace
from transform.contract import Contract

HOUR_MICROS = 3_600_000_000
BATCH_ROWS = 122_880  # of DuckDB's own row groups
IDENTITY = "_record_id, _digest"
_ALL = "* EXCLUDE (filename)"
_FROM_YEAR_ONE = 719_162 * 24  # hours; before 1970 a division must round down as well


class Clash(ValueError):
    """A column is of different types in versions of a contract."""


@dataclass(frozen=True)
class Origins:
    """Of an hour's fresh rows: how many, whose generations, and between which arrivals."""

    rows: int
    generations: tuple[str, ...]


class Resolution:
    """What some fresh objects change in a lake. The tables it makes are its workspace's."""

    def __init__(
        self, work: Workspace, contract: Contract, lake: Manifest, fresh: Sequence[Object]
    ) -> None:
        self._work, self._contract, self._lake = work, contract, lake
        self._landed = [one.key for one in fresh if one.landed]
        micros = f'epoch_us("{contract.event_time}")'
        shift = _FROM_YEAR_ONE * HOUR_MICROS
        self._hour = f"(({micros} + {shift}) // {HOUR_MICROS} - {_FROM_YEAR_ONE})"
        self._survey()
        self._work.db.register("no_rows", self.schema.empty_table())
        marks = [one.key for one in fresh if not one.landed]
        self._contest = Contest(work, lake, self._spans(), marks)
        self._losing = self._contest.hours(self._hour)
        self._gathered: frozenset[int] | None = None

    @property
    def rows_of(self) -> dict[str, int]:
        """By key, how many rows a landed object holds."""
        found = self._work.rows("SELECT path, sum(rows)::BIGINT FROM survey GROUP BY ALL")
        keys = self._work.keys_of(path for path, _ in found)
        return {key: rows for key, (_, rows) in zip(keys, found, strict=True)}

    @property
    def rows(self) -> int:
        """How many fresh landing rows there are."""
        return sum(self.rows_of.values())

    @property
    def marks(self) -> dict[str, Absorbed]:
        """By arrival hour, what fresh marks add to what the manifest says of it."""
        return self._contest.marks()

    @cached_property
    def hours(self) -> list[int]:
        """Hours of event time, since 1970, that are not as the lake has them."""
        found = self._work.rows("SELECT DISTINCT hour FROM survey")
        return sorted({hour for (hour,) in found} | self._losing)

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of all that is here: of each version's declared schema, none inferred.

        What a version has not is null in its rows. Raises `Clash`.
        """
        sql = "SELECT min(path) FROM survey GROUP BY _generation"
        paths = [path for (path,) in self._work.rows(sql)]
        held = {name: file.key for file in self._lake.files for name in file.generations}
        paths += self._work.fetch(set(held.values()))
        return united([self._contract.landing_schema(), *map(parquet.schema_of, sorted(paths))])

    def origins(self, hour: int) -> Origins:
        """Whence an hour's fresh rows are."""
        sql = f"SELECT _generation, sum(rows) FROM survey WHERE hour = {hour} GROUP BY ALL"
        found = dict(self._work.rows(sql))
        return Origins(int(sum(found.values())), tuple(sorted(found)))

    def anew(self, hours: Collection[int]) -> set[int]:
        """Which of some hours must be made anew: a row of them that stands does not stay."""
        held = {hour for hour in hours if (part := self._lake.by_hour.get(hour)) and part.files}
        asked = held - self._losing
        return (set(hours) - asked) | self._preceded(asked)

    def everything(self, hours: Collection[int]) -> pa.RecordBatchReader:
        """All rows of hours that are made anew, in order, with their repeats."""
        held = self._work.read((file.key for file in self._held(hours)), _ALL)
        return self._ordered([*self._fresh(hours), held], self._contest.without)

    def added(self, hours: Collection[int]) -> pa.RecordBatchReader:
        """What is to be added to hours that are not made anew, in order, with its repeats."""
        self._gather(hours)
        standing = self._standing(hours, IDENTITY)
        return self._ordered([f"FROM gathered ANTI JOIN ({standing}) USING ({IDENTITY})"])

    def repeated(self, hours: Collection[int]) -> pa.RecordBatchReader:
        """What repeats rows that stand in such hours and is not held itself, in order."""
        self._gather(hours)
        standing = self._standing(hours, IDENTITY)
        elements = self._work.read((file.key for file in self._held(hours)), distinct.ELEMENT)
        return self._ordered(
            [
                f"FROM gathered SEMI JOIN ({standing}) USING ({IDENTITY}) "
                f"ANTI JOIN ({elements}) USING ({distinct.ELEMENT})"
            ]
        )

    def known(self, hours: Collection[int]) -> dict[str, int]:
        """Record ids of such hours' fresh rows that stand in them, and for how many digests."""
        self._gather(hours)
        found = self._work.rows(f"""
            SELECT _record_id, count(*) FROM ({self._standing(hours, IDENTITY)})
            SEMI JOIN gathered USING (_record_id) GROUP BY ALL
        """)
        return dict(found)

    def _preceded(self, hours: Collection[int]) -> set[int]:
        """Hours in which a fresh row came before its twin that stands."""
        if not hours:
            return set()
        self._gather(hours)
        earliest = distinct.EARLIEST.split(", ")
        fresh, held = (", ".join(f"{t}.{name}" for name in earliest) for t in ("f", "h"))
        standing = self._standing(hours, f"{IDENTITY}, {distinct.EARLIEST}, {self._hour} AS hour")
        found = self._work.rows(f"""
            SELECT DISTINCT hour FROM gathered f JOIN ({standing}) h USING ({IDENTITY})
            WHERE ({fresh}) < ({held})
        """)
        return {hour for (hour,) in found}

    def _standing(self, hours: Collection[int], columns: str) -> str:
        files = (file for hour in sorted(hours) for file in self._lake.by_hour[hour].files)
        return self._work.read((file.key for file in files), columns)

    def _held(self, hours: Collection[int]) -> Iterator[File]:
        """What the lake has of some hours, repeats too."""
        for hour in sorted(hours):
            if partition := self._lake.by_hour.get(hour):
                yield from (*partition.files, *partition.repeats)

    def _gather(self, hours: Collection[int]) -> None:
        """Table `gathered`: fresh rows of some hours, those that lose left out."""
        wanted = frozenset(hours)
        if self._gathered == wanted:
            return
        rows = " UNION ALL BY NAME ".join(filter(None, ["FROM no_rows", *self._fresh(wanted)]))
        self._work.db.execute(
            f"CREATE OR REPLACE TABLE gathered AS FROM ({rows}) {self._contest.without}"
        )
        self._gathered = wanted

    def _fresh(self, hours: Collection[int]) -> list[str]:
        """Fresh rows of some hours.

        Of one: of the objects whose home it is, and of all others together; of more: of all objects
        that have any.
        """
        if len(hours) == 1:
            (hour,) = hours
            strays = f"SELECT * EXCLUDE (_hour) FROM strays WHERE _hour = {hour}"
            others = strays if self._strays else ""
            paths = self._paths(f"SELECT path FROM homes WHERE home = {hour} ORDER BY path")
            return [self._work.read(paths, _ALL, f"{self._hour} = {hour}"), others]
        wanted = ", ".join(map(str, sorted(hours))) or "NULL"
        paths = self._paths(
            f"SELECT DISTINCT path FROM survey WHERE hour IN ({wanted}) ORDER BY path"
        )
        return [self._work.read(paths, _ALL, f"{self._hour} IN ({wanted})")]

    def _paths(self, sql: str) -> list[str]:
        """Keys of the objects at the paths that a query finds."""
        return self._work.keys_of(path for (path,) in self._work.rows(sql))

    def _ordered(self, sources: Iterable[str], without: str = "") -> pa.RecordBatchReader:
        schema = self.schema
        rows = " UNION ALL BY NAME ".join(filter(None, ["FROM no_rows", *sources]))
        names = ", ".join(f'"{name}"' for name in schema.names)
        contract = self._contract
        return self._work.db.sql(
            f'SELECT {names} FROM ({rows}) {without} ORDER BY "{contract.device}", '
            f'"{contract.event_time}", {IDENTITY}, {distinct.EARLIEST}, _raw, _index'
        ).to_arrow_reader(BATCH_ROWS)

    def _survey(self) -> None:
        """Table `survey`: rows by object, event hour and generation, between which arrivals."""
        self._work.db.execute("""
            CREATE TABLE survey (path VARCHAR, hour BIGINT, _generation VARCHAR, rows BIGINT,
                first BIGINT, last BIGINT)
        """)
        columns = f"filename, {self._hour}, _generation, count(*), {ENDS}"
        if found := self._work.read(self._landed, columns):
            self._work.db.execute(f"INSERT INTO survey {found} GROUP BY ALL")

    def _spans(self) -> dict[str, list[Span]]:
        """By landed object, the generations that are in it."""
        found: dict[str, list[Span]] = {key: [] for key in self._landed}
        names = {str(self._work.fetched[key]): key for key in self._landed}
        sql = "SELECT path, _generation, min(first), max(last) FROM survey GROUP BY ALL"
        for path, *span in self._work.rows(sql):
            found[names[path]].append(Span(*span))
        return found

    @cached_property
    def _strays(self) -> bool:
        """Tables `homes`, the hour that an object has most rows of, and `strays`, all its others.

        So an object is read for its home, and once for all other hours together. Whether any has.
        """
        self._work.db.execute("""
            CREATE TABLE homes AS
            SELECT path, arg_max(hour, (n, hour)) AS home, count(*) > 1 AS mixed
            FROM (SELECT path, hour, sum(rows) AS n FROM survey GROUP BY ALL) GROUP BY path
        """)
        mixed = self._paths("SELECT path FROM homes WHERE mixed ORDER BY path")
        if not mixed:
            return False
        rows = self._work.read(mixed, f"*, {self._hour} AS _hour")
        self._work.db.execute(f"""
            CREATE TABLE strays AS SELECT r.* EXCLUDE (filename)
            FROM ({rows}) r JOIN homes ON r.filename = homes.path WHERE _hour <> home
        """)
        return True


def united(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """One schema of several: the first one's columns as they stand, others' of its kind after them.

    What not all have may be null. Raises `Clash`.
    """
    fields: dict[str, pa.Field] = {}
    for schema in schemas:
        for field in schema:
            held = fields.setdefault(field.name, field)
            if held.type != field.type:
                raise Clash(
                    f"versions have {field.name} as {held.type} and as {field.type}, which one "
                    "table cannot hold; queries show it as text, and nothing is compacted"
                )
            fields[field.name] = held.with_nullable(held.nullable or field.nullable)
    everywhere = set.intersection(*(set(schema.names) for schema in schemas))
    own = [n for n in fields if not n.startswith("_")]
    return pa.schema(
        [
            fields[name].with_nullable(fields[name].nullable or name not in everywhere)
            for name in (*own, *(n for n in fields if n.startswith("_")))
        ]
    )
