"""The lake's benchmark measures what it says: its records, its oracle, its engines."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree as ET

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from infra.lake import Lake
from loadtests.lake import asking, checked, firehose, folder, landed
from loadtests.lake.__main__ import Measure, run, write
from loadtests.lake.asking import EngineFailed, differences
from loadtests.lake.engines.question import Question
from loadtests.lake.landed import Made
from loadtests.lake.oracle import Tally, total
from loadtests.lake.traffic import (
    AGAIN,
    LATE_SHARE,
    MALFORMED,
    NAME,
    REPEATED,
    START_HOUR,
    Extent,
    versions,
)

EXTENT = Extent(records=20_000, per_delivery=100, hours=2, shards=2, devices=300)
LATE_MICROS = 60_000_000
SUMS = """
    count(*), sum(sequence), sum(round(temperature * 1000)::BIGINT),
    count(pressure), coalesce(sum(round(pressure * 1000)::BIGINT), 0)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lake")


@pytest.fixture(scope="module")
def made(root: Path) -> Made:
    return landed.made(root, EXTENT)


def test_the_same_extent_gives_the_same_objects_by_however_many_processes(made, root, tmp_path):
    again = landed.make(tmp_path, EXTENT, processes=1)
    assert replace(again, seconds=0) == replace(made, seconds=0)
    keys = [list(folder.bucket(at).keys("")) for at in (root, tmp_path)]
    assert keys[0] == keys[1]
    assert len(keys[0]) > EXTENT.records / EXTENT.per_delivery


def test_what_was_made_is_found_again_and_never_taken_for_other_records(made, root):
    assert landed.made(root, EXTENT) == made
    assert landed.attempts(root) == made.attempts
    with pytest.raises(ValueError, match="holds other records"):
        landed.made(root, replace(EXTENT, seed=2))


def test_the_records_are_repeated_late_delivered_again_and_of_two_versions(made, root):
    keys = made.landing_keys
    rows = [pq.read_table(folder.path(root, key)) for key in keys]
    late = sum(pc.sum(pc.greater(part["_skew"], LATE_MICROS)).as_py() or 0 for part in rows)
    firsts = total(made.oracle.totals(repeated=True)).rows
    distinct = total(made.oracle.totals()).rows
    assert LATE_SHARE < late / firsts < LATE_SHARE + REPEATED + 0.005  # a repeat may be late, too
    assert abs((firsts - distinct) / EXTENT.records - REPEATED) < 0.004
    assert made.landing_rows - firsts == pytest.approx(firsts / AGAIN / 2, rel=0.9)
    assert EXTENT.records - firsts == pytest.approx(EXTENT.records * MALFORMED, rel=0.5)
    assert len(keys) - len(made.firsts) == pytest.approx(len(made.firsts) / AGAIN, rel=0.9)
    assert {"pressure" in part.column_names for part in rows} == {True, False}
    assert len({attempt.version for attempt in made.attempts}) == 2


@pytest.mark.parametrize("hour", [None, START_HOUR])
def test_the_oracle_says_what_the_records_view_does(made, root, hour):
    lake = Lake(folder.bucket(root), cast("Any", None), versions()[-1:])
    where = f"epoch(event_time)::BIGINT // 3600 = {hour}" if hour else "true"
    found = lake.query(f"SELECT status, {SUMS} FROM {NAME} WHERE {where} GROUP BY ALL")
    rows = zip(*found.to_pydict().values(), strict=True)
    tallies = {status: Tally(*sums) for status, *sums in rows}
    assert differences(tallies, made.oracle.totals(hour)) == []


def test_every_engine_that_is_there_says_what_the_oracle_does(made, root, tmp_path):
    questions = checked.asked(made, tmp_path)
    layouts = [firehose.small(root, made, tmp_path / "small")]
    layouts.append(firehose.large(root, made, tmp_path / "large"))
    assert [len(one.files) for one in layouts] == [len(made.firsts), 1]
    with asking.engines([one for one in asking.kinds() if not one.lack]) as engines:
        assert {"DuckDB", "pyarrow", "polars"} <= {engine.kind.name for engine in engines}
        for layout in layouts:
            own = questions.questions(layout.paths, layout.since(questions.hour))
            for name, expected in questions.answers(repeated=True).items():
                for engine in engines:
                    assert differences(engine.ask(own[name]).tallies, expected) == []
        own = questions.questions(layouts[0].paths, layouts[0].paths, distinct=True)
        for name, expected in questions.answers().items():
            assert differences(engines[0].ask(own[name]).tallies, expected) == []


def test_an_engine_that_is_not_there_is_told_and_why(monkeypatch):
    monkeypatch.delenv(asking.SPARK, raising=False)
    lacks = {kind.name: kind.lack for kind in asking.kinds()}
    assert asking.SPARK in lacks["Spark"]


def test_an_engine_that_fails_says_its_last_words(tmp_path):
    kind = next(asking.kinds())
    with asking.engines([kind]) as engines, pytest.raises(EngineFailed, match=r"none\.parquet"):
        engines[0].ask(Question([], str(tmp_path / "none.parquet")))


def test_a_wrong_answer_is_told():
    assert differences({"ok": Tally(1)}, {"ok": Tally(1)}) == []
    assert len(differences({"ok": Tally(1)}, {"ok": Tally(2), "degraded": Tally(1)})) == 2


def test_a_run_leaves_a_table_a_file_and_a_chart(made, root, tmp_path):
    found = run(Measure(EXTENT, task_rows=7_000, rounds=1), root, quick=True)
    assert found.differences == []
    assert found.compacting.rows == made.landing_rows
    assert found.watched.commits > found.compacting.commits == 1
    assert found.sizes["Millrace lake"].rows == total(made.oracle.totals()).rows
    write(found, tmp_path)
    told = json.loads((tmp_path / "lake.json").read_text())
    assert told["found"] == json.loads(json.dumps(found.line()))
    assert told["found"]["equal"] is True
    assert told["found"]["reads"].keys() == {"before", "during", "after"}
    assert all(engine in (tmp_path / "lake.md").read_text() for engine in found.engines)
    bars = ET.parse(tmp_path / "lake.svg").iter("{http://www.w3.org/2000/svg}title")  # noqa: S314
    assert len(list(bars)) == 3 * 3 * len(found.engines)
