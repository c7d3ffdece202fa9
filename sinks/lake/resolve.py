"""Fresh objects and the lake that they touch, resolved: law 5, then repeats by identity.

It is what a reader adds to the lake and what a compaction writes down, so both say the same. Rows
come out of it sorted, hour by hour of event time. An hour whose standing rows all stay is not read
again as a whole: what is new is added to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from sinks import distinct, parquet
from sinks.lake.columns import united
from sinks.lake.contest import ENDS, Contest, Span
from sinks.lake.manifest import Absorbed, File, Manifest
from sinks.lake.plan import Object
from sinks.lake.workspace import BATCH_ROWS, Workspace, select
from sinks.landing import CONTRACT
from transform.contract import Contract

if TYPE_CHECKING:
    import pyarrow as pa

HOUR_MICROS = 3_600_000_000
IDENTITY = "_record_id, _digest"
_ALL = "* EXCLUDE (filename)"
_FROM_YEAR_ONE = 719_162 * 24  # hours; before 1970 a division must round down as well


class Resolution:
    """What some fresh objects change in a lake. The tables it makes are its workspace's.

    With `within` only in those hours, and of other hours nothing is fetched but what law 5 has to
    be asked of: it is about positions, and the rows of one may lie in any hours.
    """

    def __init__(
        self,
        work: Workspace,
        contract: Contract,
        lake: Manifest,
        fresh: Sequence[Object],
        within: Collection[int] | None = None,
    ) -> None:
        self._work, self._contract, self._only = work, contract, within
        self._lake = lake if within is None else lake.within(within)
        self._landed = [one.key for one in fresh if one.landed]
        micros = f'epoch_us("{contract.event_time}")'
        shift = _FROM_YEAR_ONE * HOUR_MICROS
        self._hour = f"(({micros} + {shift}) // {HOUR_MICROS} - {_FROM_YEAR_ONE})"
        self._survey()
        self._none = work.keep_none(self.schema)
        marks = [one.key for one in fresh if not one.landed]
        self._contest = Contest(work, lake, self._spans(), marks)
        self._losing = self._contest.hours(self._hour)
        self._last: tuple[frozenset[int], str] | None = None

    @property
    def rows_of(self) -> dict[str, int]:
        """By key, how many rows a landed object holds."""
        found = self._work.rows("SELECT path, sum(rows)::BIGINT FROM survey GROUP BY ALL")
        keys = self._work.keys_of(path for path, _ in found)
        return {key: rows for key, (_, rows) in zip(keys, found, strict=True)}

    @property
    def loses(self) -> bool:
        """Whether law 5 takes any row away, of fresh ones or the lake's."""
        return bool(self._contest.without)

    @property
    def marks(self) -> dict[str, Absorbed]:
        """By arrival hour, what fresh marks add to what the manifest says of it."""
        return self._contest.marks()

    @cached_property
    def hours(self) -> list[int]:
        """Hours of event time, since 1970, that are not as the lake has them."""
        found = self._work.rows("SELECT DISTINCT hour FROM survey")
        every = {hour for (hour,) in found} | self._losing
        return sorted(every if self._only is None else every.intersection(self._only))

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of all that is here: of each version's declared schema, none inferred.

        What a version has not is null in its rows. Raises `Clash`.
        """
        sql = "SELECT min(path) FROM survey GROUP BY _generation ORDER BY 1"
        fresh = [parquet.schema_of(path) for (path,) in self._work.rows(sql)]
        held = [] if self._lake.schema is None else [self._lake.schema]
        return united([self._contract.landing_schema(), *held, *fresh])

    @property
    def contracts(self) -> dict[str, str]:
        """By fresh generation, the digest of the contract that its objects are noted to be by."""
        sql = "SELECT _generation, min(path) FROM survey GROUP BY ALL ORDER BY ALL"
        noted = {
            name: parquet.schema_of(path).metadata or {} for name, path in self._work.rows(sql)
        }
        return {name: said[CONTRACT].decode() for name, said in noted.items() if CONTRACT in said}

    def fresh_rows(self, hour: int) -> int:
        """How many fresh rows an hour has, repeats and losers among them."""
        sql = f"SELECT coalesce(sum(rows), 0) FROM survey WHERE hour = {hour}"
        return self._work.number(sql)

    def anew(self, hours: Collection[int]) -> set[int]:
        """Which of some hours must be made anew: a row of them that stands does not stay."""
        held = {hour for hour in hours if (part := self._lake.by_hour.get(hour)) and part.files}
        asked = held - self._losing
        return (set(hours) - asked) | self._preceded(asked)

    def everything(self, hours: Collection[int]) -> pa.RecordBatchReader:
        """All rows of hours that are made anew, in order, with their repeats."""
        held = self._work.fetch(file.key for file in self._held(hours))
        return self._ordered(
            [*self._fresh(hours), *held], self._within(hours), self._contest.without
        )

    def added(self, hours: Collection[int]) -> pa.RecordBatchReader:
        """What is to be added to hours that are not made anew, in order, with its repeats."""
        standing = self._standing(hours, IDENTITY)
        return self._ordered(
            [self._gathered(hours)], "TRUE", f"ANTI JOIN ({standing}) USING ({IDENTITY})"
        )

    def repeated(self, hours: Collection[int]) -> pa.RecordBatchReader:
        """What repeats rows that stand in such hours and is not held itself, in order."""
        standing = self._standing(hours, IDENTITY)
        elements = self._work.read((file.key for file in self._held(hours)), distinct.ELEMENT)
        return self._ordered(
            [self._gathered(hours)],
            "TRUE",
            f"SEMI JOIN ({standing}) USING ({IDENTITY}) "
            f"ANTI JOIN ({elements}) USING ({distinct.ELEMENT})",
        )

    def known(self, hours: Collection[int]) -> dict[str, int]:
        """Record ids of such hours' fresh rows that stand in them, and for how many digests."""
        gathered = select([self._gathered(hours)], "_record_id")
        found = self._work.rows(f"""
            SELECT _record_id, count(*) FROM ({self._standing(hours, IDENTITY)})
            SEMI JOIN ({gathered}) USING (_record_id) GROUP BY ALL
        """)
        return dict(found)

    def _preceded(self, hours: Collection[int]) -> set[int]:
        """Hours in which a fresh row came before its twin that stands."""
        if not hours:
            return set()
        gathered = select([self._gathered(hours)], f"{IDENTITY}, {distinct.EARLIEST}")
        earliest = distinct.EARLIEST.split(", ")
        fresh, held = (", ".join(f"{t}.{name}" for name in earliest) for t in ("f", "h"))
        standing = self._standing(hours, f"{IDENTITY}, {distinct.EARLIEST}, {self._hour} AS hour")
        found = self._work.rows(f"""
            SELECT DISTINCT hour FROM ({gathered}) f JOIN ({standing}) h USING ({IDENTITY})
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

    def _gathered(self, hours: Collection[int]) -> str:
        """A file with the fresh rows of some hours, those that lose left out."""
        wanted = frozenset(hours)
        if self._last is None or self._last[0] != wanted:
            rows = select([*self._fresh(wanted), self._none], _ALL, self._within(wanted))
            path = self._work.keep("gathered", f"FROM ({rows}) {self._contest.without}")
            self._last = wanted, path
        return self._last[1]

    def _fresh(self, hours: Collection[int]) -> list[str]:
        """Files that have the fresh rows of some hours, and others.

        Of one hour: the objects whose home it is, and what is astray; of more: all that have any.
        """
        if len(hours) == 1:
            (hour,) = hours
            astray = self._astray  # makes `homes`
            homes = self._work.rows(f"SELECT path FROM homes WHERE home = {hour} ORDER BY path")
            return [*(path for (path,) in homes), *([astray] if astray else ())]
        wanted = ", ".join(map(str, sorted(hours))) or "NULL"
        sql = f"SELECT DISTINCT path FROM survey WHERE hour IN ({wanted}) ORDER BY path"
        return [path for (path,) in self._work.rows(sql)]

    def _within(self, hours: Collection[int]) -> str:
        """SQL of rows of some hours, by which files and row groups of others are passed over."""
        time = f'"{self._contract.event_time}"'
        spans = (
            f"({time} >= make_timestamptz({hour * HOUR_MICROS}) "
            f"AND {time} < make_timestamptz({(hour + 1) * HOUR_MICROS}))"
            for hour in sorted(hours)
        )
        return f"({' OR '.join(spans)})" if hours else "FALSE"

    def _ordered(self, paths: Iterable[str], where: str, among: str) -> pa.RecordBatchReader:
        names = ", ".join(f'"{name}"' for name in self.schema.names)
        contract = self._contract
        return self._work.db.sql(
            f"SELECT {names} FROM ({select([*paths, self._none], _ALL, where)}) {among} "
            f'ORDER BY "{contract.device}", "{contract.event_time}", {IDENTITY}, '
            f"{distinct.EARLIEST}, _raw, _index"
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
    def _astray(self) -> str:
        """A file of all rows that are not of their object's home, if there are any.

        An object's home is the hour that it has most rows of (table `homes`). So it is read for its
        home, and once for all other hours together.
        """
        self._work.db.execute("""
            CREATE TABLE homes AS
            SELECT path, arg_max(hour, (n, hour)) AS home, count(*) > 1 AS mixed
            FROM (SELECT path, hour, sum(rows) AS n FROM survey GROUP BY ALL) GROUP BY path
        """)
        mixed = self._work.rows("SELECT path FROM homes WHERE mixed ORDER BY path")
        if not mixed:
            return ""
        rows = select([path for (path,) in mixed], f"*, {self._hour} AS _hour")
        return self._work.keep(
            "astray",
            f"SELECT r.* EXCLUDE (filename, _hour) FROM ({rows}) r "
            "JOIN homes ON r.filename = homes.path WHERE _hour <> home ORDER BY _hour",
        )
