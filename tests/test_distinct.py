"""One position, one fate (law 5): the SQL that every reader counts by, and the rule in Python.

The words that Trino and DuckDB share are asked beside DuckDB's own, in every test.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import duckdb
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.catalog import distinct as shared
from sinks import distinct
from transform.records import DIGEST, UTC_MICROS

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
COLUMNS = ["_raw", "_index", "_sub", "_child", "_generation"]


@dataclass(frozen=True, order=True)
class Row:
    """One row of a landing or quarantine object; only what the rule looks at."""

    sequence: str
    record: str = ""
    digest: str = "x"
    sub: int = 0
    child: int = 0
    epoch: int = 0
    version: int = 1
    raw: str = "raw/a"
    index: int = 0
    arrival: int = 0
    shard: str = "shard-0"
    stream: str = "fleet"
    rules: str = ""
    elements: int = 0  # of its source record; 0 is as many as are there

    @property
    def position(self) -> tuple[str, str, str]:
        return (self.stream, self.shard, self.sequence)

    @property
    def element(self) -> tuple[tuple[str, str, str], int, int]:
        return (self.position, self.sub, self.child)

    @property
    def generation(self) -> str:
        return f"{self.epoch}-{self.version}{self.rules}"

    @property
    def identity(self) -> tuple[str, str]:
        return (self.record, self.digest)

    def at(self, raw: str, index: int) -> Row:
        """The same row, from another attempt."""
        return replace(self, raw=raw, index=index)


def whole(rows: Iterable[Row]) -> dict[tuple[object, str], int]:
    """How many elements each position has under each generation."""
    found: dict[tuple[object, str], set[object]] = {}
    for row in rows:
        found.setdefault((row.position, row.generation), set()).add(row.element)
    return {key: len(elements) for key, elements in found.items()}


def table(rows: Iterable[Row], there: Mapping[tuple[object, str], int]) -> pa.Table:
    rows = list(rows)
    elements = [row.elements or there[row.position, row.generation] for row in rows]
    digests = [row.digest.encode().ljust(16, b"\0") for row in rows]
    return pa.table(
        {
            "_record_id": pa.array([row.record for row in rows], pa.string()),
            "_digest": pa.array(digests, DIGEST),
            "_stream": pa.array([row.stream for row in rows], pa.string()),
            "_shard": pa.array([row.shard for row in rows], pa.string()),
            "_sequence": pa.array([row.sequence for row in rows], pa.string()),
            "_arrival": pa.array(
                [NOON + timedelta(seconds=row.arrival) for row in rows], UTC_MICROS
            ),
            "_raw": pa.array([row.raw for row in rows], pa.string()),
            "_index": pa.array([row.index for row in rows], pa.int32()),
            "_sub": pa.array([row.sub for row in rows], pa.int32()),
            "_child": pa.array([row.child for row in rows], pa.int32()),
            "_elements": pa.array(elements, pa.int32()),
            "_epoch": pa.array([row.epoch for row in rows], pa.int32()),
            "_version": pa.array([row.version for row in rows], pa.int64()),
            "_generation": pa.array([row.generation for row in rows], pa.string()),
        }
    )


@dataclass(frozen=True)
class Counted:
    """What readers see: rows by origin, in no order."""

    delivered: list[Row]
    set_aside: list[Row]
    records: list[Row]
    left_out: list[Row]


def counted(
    landing: Iterable[Row], quarantine: Iterable[Row] = (), dropped: Iterable[Row] = ()
) -> Counted:
    """What the SQL makes of these objects."""
    landed, rejected, left_out = list(landing), list(quarantine), list(dropped)
    every = landed + rejected + left_out
    by_origin = {(row.raw, row.index, row.sub, row.child, row.generation): row for row in every}
    db = database()
    there = whole(every)
    tables = distinct.Tables("landing", "quarantine", "dropped")
    db.register("landing", table(landed, there))
    db.register("quarantine", table(rejected, there))
    db.register("dropped", table(left_out, there).drop_columns(["_record_id", "_digest"]))

    def rows(sql: str) -> list[Row]:
        found = db.sql(sql).select("_raw, _index, _sub, _child, _generation").fetchall()
        return sorted(by_origin[origin] for origin in found)

    def members(table: str) -> list[Row]:
        return rows(f"WITH {shared.members(tables, table, COLUMNS)} FROM _members")

    found = Counted(
        rows(tables.delivered()),
        rows(tables.set_aside()),
        rows(tables.records()),
        rows(tables.left_out()),
    )
    one_each = [*COLUMNS, "_record_id", "_digest", "_arrival", "_stream", "_shard", "_sequence"]
    assert found == Counted(
        members("landing"),
        members("quarantine"),
        rows(f"WITH {shared.records(tables, one_each)} FROM _records"),
        members("dropped"),
    )
    return found


@cache
def database() -> duckdb.DuckDBPyConnection:
    """One for all: it takes longer to open than most answers."""
    return duckdb.connect()


def rule(landing: Iterable[Row], quarantine: Iterable[Row], dropped: Iterable[Row]) -> Counted:
    """The same in words of Python: one generation for a position, one row for an element."""
    landed, rejected, left_out = list(landing), list(quarantine), list(dropped)
    every = landed + rejected + left_out
    chosen = {}
    for position in {row.position for row in every}:
        bad = {row.generation for row in rejected if row.position == position}
        good = {row.generation for row in landed if row.position == position}
        there = [row for row in every if row.position == position]
        found = whole(there), whole(row for row in there if row in landed)
        claimed = {
            row.generation: max(r.elements for r in there if r.generation == row.generation)
            for row in there
        }

        def rank(
            row: Row,
            bad: set[str] = bad,
            good: set[str] = good,
            found: Any = found,
            claimed: Any = claimed,
        ) -> tuple[bool, int, bool, bool, int, int]:
            named = (row.position, row.generation)
            complete = found[0][named] >= claimed[row.generation]
            fate = (row.generation not in bad, row.generation in good)
            return (complete, row.epoch, fate[0], all(fate), found[1].get(named, 0), row.version)

        chosen[position] = max(there, key=rank).generation

    def members(rows: list[Row]) -> list[Row]:
        kept: dict[object, Row] = {}
        for row in sorted(rows, key=lambda row: (row.raw, row.index)):
            if row.generation == chosen[row.position]:
                kept.setdefault(row.element, row)
        return sorted(kept.values())

    delivered = members(landed)
    firsts: dict[tuple[str, str], Row] = {}
    for row in sorted(delivered, key=lambda row: (row.arrival, row.element)):
        firsts.setdefault(row.identity, row)
    return Counted(delivered, members(rejected), sorted(firsts.values()), members(left_out))


def batch(raw: str, *rows: Row) -> list[Row]:
    """An attempt at a Delivery of these records, in this order."""
    return [row.at(raw, index) for index, row in enumerate(rows)]


A, B, C, D = (Row(number, record=f"r{number}") for number in "1234")


def sequences(rows: Iterable[Row]) -> list[str]:
    return [row.sequence for row in rows]


# ---- Attempts overlap ----


def test_every_record_once():
    found = counted(batch("raw/a", A, B, C))
    assert sequences(found.delivered) == sequences(found.records) == ["1", "2", "3"]
    assert found.set_aside == []


def test_a_replayed_attempt_counts_once():
    found = counted([*batch("raw/a", A, B), *batch("raw/b", A, B)])
    assert sequences(found.delivered) == ["1", "2"]
    assert sequences(found.records) == ["1", "2"]


def test_replays_with_moved_batch_edges_count_once():
    attempts = [
        *batch("raw/c", A, B, C),
        *batch("raw/b", B, C, D),
        *batch("raw/a", C),
        *batch("raw/d", A, B, C, D),
    ]
    found = counted(attempts)
    assert sequences(found.delivered) == ["1", "2", "3", "4"]
    assert sequences(found.records) == ["1", "2", "3", "4"]


def test_replayed_rejects_count_once():
    found = counted([], [*batch("raw/a", A, B), *batch("raw/b", B, C)])
    assert sequences(found.set_aside) == ["1", "2", "3"]
    assert found.delivered == found.records == []


def test_equal_sequences_of_other_shards_and_streams_are_other_positions():
    rows = [A, replace(A, shard="shard-1", record="s"), replace(A, stream="other", record="t")]
    assert len(counted(batch("raw/a", *rows)).delivered) == 3


# ---- Repeats and conflicts ----


def test_repeats_of_a_producer_are_one_record_and_the_earliest_stands_for_it():
    late, early = replace(A, arrival=9), replace(B, record="r1", arrival=3)
    found = counted(batch("raw/a", late, early))
    assert sequences(found.delivered) == ["1", "2"]
    assert sequences(found.records) == ["2"]


def test_repeats_at_one_moment_are_told_apart_by_position():
    found = counted(batch("raw/b", replace(B, record="r1"), A))
    assert sequences(found.records) == ["1"]


def test_equal_ids_with_other_bytes_are_both_kept():
    found = counted(batch("raw/a", A, replace(B, record="r1", digest="y")))
    assert sequences(found.records) == ["1", "2"]


def test_equal_bytes_with_other_ids_are_both_kept():
    assert sequences(counted(batch("raw/a", A, B)).records) == ["1", "2"]


# ---- Generations ----


def test_the_greater_epoch_wins_even_when_it_rejects_and_is_of_a_lesser_version():
    old = batch("raw/a", replace(A, epoch=0, version=9), B)
    new = batch("raw/a", replace(A, epoch=1, version=1))
    found = counted(old, new)
    assert sequences(found.delivered) == ["2"]
    assert sequences(found.set_aside) == ["1"]


def test_in_one_epoch_delivered_wins_over_quarantined_even_of_a_greater_version():
    """What an attempt has delivered stays delivered, whoever tries again with stricter rules."""
    found = counted(batch("raw/a", replace(A, version=1)), batch("raw/b", replace(A, version=2)))
    assert [row.version for row in found.delivered] == [1]
    assert found.set_aside == []


def test_then_the_greater_version_wins():
    both = [*batch("raw/a", replace(A, version=1)), *batch("raw/b", replace(A, version=2))]
    assert [row.version for row in counted(both).delivered] == [2]
    assert [row.version for row in counted([], both).set_aside] == [2]


def test_versions_are_compared_as_numbers():
    both = [*batch("raw/a", replace(A, version=9)), *batch("raw/b", replace(A, version=10))]
    assert [row.version for row in counted(both).delivered] == [10]


def test_of_two_generations_with_one_version_one_counts_whole():
    """A contract edited without raising its version: any choice will do, but one for all rows."""
    old = [replace(row, rules="-old") for row in members(0, 1)]
    new = [replace(row, rules="-new") for row in members(0, 1, 2)]
    kept = counted(old + new).delivered
    assert kept in (sorted(old), sorted(new))
    assert counted(new + old).delivered == kept


def test_an_identity_seen_under_two_generations_at_two_positions_is_one_record():
    found = counted(
        [
            *batch("raw/a", replace(A, version=1)),
            *batch("raw/b", replace(B, record="r1", version=2)),
        ]
    )
    assert sequences(found.delivered) == ["1", "2"]
    assert sequences(found.records) == ["1"]


# ---- Dropped by a rule ----


def test_what_a_rule_dropped_is_neither_delivered_nor_set_aside():
    kept, out = batch("raw/a", A, B)
    found = counted([kept], [], [out])
    assert sequences(found.records) == ["1"]
    assert sequences(found.left_out) == ["2"]
    assert found.set_aside == []


def test_in_one_epoch_dropped_comes_after_delivered_and_before_quarantined():
    """A rule that was deployed between two attempts at one position."""
    old, new = batch("raw/a", A), batch("raw/b", replace(A, version=2))
    assert sequences(counted(old, [], new).delivered) == ["1"]
    assert counted(old, [], new).left_out == []
    assert sequences(counted([], old, new).left_out) == ["1"]
    assert sequences(counted([], new, old).left_out) == ["1"]


def test_a_greater_epoch_takes_out_what_its_rules_drop():
    found = counted(batch("raw/a", A, B), [], batch("raw/a", replace(A, epoch=1)))
    assert sequences(found.records) == ["2"]
    assert sequences(found.left_out) == ["1"]


def test_a_message_of_which_a_rule_dropped_some_is_whole_without_them():
    found = counted(members(0, 2), [], members(1))
    assert [row.sub for row in found.delivered] == [0, 2]
    assert [row.sub for row in found.left_out] == [1]


# ---- Aggregates ----


def members(*subs: int, version: int = 1, epoch: int = 0) -> list[Row]:
    """Members of one aggregate."""
    return [Row("1", f"m{sub}", sub=sub, version=version, epoch=epoch) for sub in subs]


def test_all_members_of_an_aggregate_are_counted():
    found = counted(members(0, 1, 2))
    assert [row.sub for row in found.delivered] == [0, 1, 2]


def test_of_a_partly_quarantined_aggregate_both_parts_count():
    found = counted(members(0, 2), members(1))
    assert [row.sub for row in found.delivered] == [0, 2]
    assert [row.sub for row in found.set_aside] == [1]


def test_an_aggregate_is_of_one_generation_with_all_its_members():
    """Never the good members of one attempt beside the good members of another."""
    found = counted([*members(0, 2), *members(0, 1, 2, version=2)], members(1))
    assert [(row.sub, row.version) for row in found.delivered] == [(0, 2), (1, 2), (2, 2)]
    assert found.set_aside == []


def test_of_two_partly_quarantined_attempts_the_greater_version_counts_whole():
    found = counted([*members(0), *members(1, version=2)], [*members(1), *members(0, version=2)])
    assert [(row.sub, row.version) for row in found.delivered] == [(1, 2)]
    assert [(row.sub, row.version) for row in found.set_aside] == [(0, 2)]


def test_but_first_the_one_that_delivers_most():
    """Its rows are in the hot table: a greater version that knows one member less hides none."""
    found = counted(
        [*members(0, 2), *members(0, version=2)], [*members(1), *members(1, 2, version=2)]
    )
    assert [(row.sub, row.version) for row in found.delivered] == [(0, 1), (2, 1)]
    assert [(row.sub, row.version) for row in found.set_aside] == [(1, 1)]


def test_of_what_rules_dropped_the_least_counts():
    found = counted([*members(0, 2), *members(0, version=2)], (), members(2, version=2))
    assert [(row.sub, row.version) for row in found.delivered] == [(0, 1), (2, 1)]
    assert found.left_out == []


def test_children_of_one_message_are_elements_of_their_own():
    rows = [replace(A, child=child, record=f"c{child}") for child in range(3)]
    found = counted([row.at("raw/a", 0) for row in rows] + [row.at("raw/b", 5) for row in rows])
    assert [row.child for row in found.delivered] == [0, 1, 2]


# ---- The rule itself ----

HOLDS = st.lists(  # what each position holds: records from few ids and few digests
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.integers(0, 2)),
        min_size=1,
        max_size=3,
    ),
    min_size=1,
    max_size=4,
)
ATTEMPTS = st.lists(  # epoch, version, first position, positions, died before landing
    st.tuples(
        st.integers(0, 1),
        st.sampled_from([1, 2, 10]),
        st.integers(0, 3),
        st.integers(1, 4),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=100, deadline=None)
@given(HOLDS, ATTEMPTS, st.randoms(use_true_random=False))
def test_the_sql_is_the_rule(holds, attempts, random):
    """Any attempts at any positions, with verdicts that depend on element and generation alone."""
    verdicts: dict[object, list[Row]] = {}
    landing: list[Row] = []
    quarantine: list[Row] = []
    dropped: list[Row] = []
    for number, (epoch, version, first, count, died) in enumerate(attempts):
        for index, position in enumerate(range(first, min(first + count, len(holds)))):
            for sub, (record, digest, arrival) in enumerate(holds[position]):
                row = Row(
                    str(position),
                    record,
                    digest,
                    sub=sub,
                    epoch=epoch,
                    version=version,
                    raw=f"raw/{number}",
                    index=index,
                    arrival=arrival,
                    elements=len(holds[position]),
                )
                fates = (landing, landing, landing, quarantine, dropped)
                fate = verdicts.setdefault((row.element, row.generation), random.choice(fates))
                if not (fate is landing and died):  # what is set aside is written first
                    fate.append(row)
    assert counted(landing, quarantine, dropped) == rule(landing, quarantine, dropped)


def test_an_attempt_that_died_half_way_hides_nothing():
    """It set the bad member aside and died before landing; the retry ran under a lower version."""
    died = Row("1", "bad", sub=1, version=2, elements=2)
    good = Row("1", "good", sub=0, version=1, raw="raw/b", elements=2)
    bad = Row("1", "bad", sub=1, version=1, raw="raw/b", elements=2)
    found = counted([good], [died, bad])
    assert (found.delivered, found.set_aside) == ([good], [bad])


def test_until_an_attempt_is_whole_its_rows_are_what_there_is():
    died = Row("1", "bad", sub=1, version=2, elements=2)
    assert counted([], [died]).set_aside == [died]
