"""The benchmark measures what it says: each part runs, and unequal outputs are seen."""

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pyarrow as pa
import pytest

from loadtests import environments
from loadtests.bench import equality, filejob
from loadtests.bench.__main__ import Extent, run, write
from loadtests.bench.equality import Output
from loadtests.bench.findings import OURS, Findings
from loadtests.bench.paths import BASELINE
from loadtests.bench.traffic import Planted, Traffic, traffic
from tests import worst_shapes
from transform.contract_file import load_contract

LITTLE = Extent(
    rounds={30: 1},
    rate_rounds=1,
    rate_records=200,
    job_records=500,
    job_rounds=1,
    peer_rounds=0,
    cold_rounds=1,
    install=False,
    large=200,
    shapes=(),
)
KEYS = {
    "whole_path_ratio",
    "equal_output",
    "dynamodb_items_per_second",
    "duckdb_ratio",
    "cold_import_ratio",
    "peak_memory_mb",
    "bundle_mb",
    "attributed",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    return run(LITTLE, tmp_path_factory.mktemp("bench"), quick=True)


def test_both_sides_make_the_same_and_find_every_bad_record(found: Findings):
    assert found.paths.differences == []
    assert found.paths.planted > 20
    assert set(found.paths.found.values()) == {found.paths.planted}
    assert found.line()["equal_output"] is True


def test_the_line_has_what_is_read_by_machines(found: Findings):
    line = json.loads(json.dumps(found.line()))
    assert line.keys() >= KEYS
    assert line["whole_path_ratio"].keys() == {"30"}
    assert line["bundle_mb"] <= 130
    assert 40 < line["peak_memory_mb"] < 256


def test_every_stage_costs_something(found: Findings):
    assert {name for name, _, _ in found.paths.measured} == {BASELINE, *found.rates}
    for one in found.paths.measured.values():
        assert len(one.stages) == 4
        assert all(micros > 0 for micros in one.stages.values())
    assert all(told.wall[0] > 0 for told in found.rates.values())


def test_a_run_leaves_a_table_a_file_and_a_chart(found: Findings, tmp_path: Path):
    write(found, tmp_path)
    told = json.loads((tmp_path / "bench.json").read_text())
    assert told["found"] == found.line()
    assert OURS in (tmp_path / "bench.md").read_text()
    bars = ET.parse(tmp_path / "bench.svg").iter("{http://www.w3.org/2000/svg}title")  # noqa: S314
    assert len(list(bars)) == 4 * len(found.rates)


def test_the_file_job_has_the_peers_that_are_there(found: Findings, tmp_path: Path, monkeypatch):
    assert found.jobs[filejob.DUCKDB].items
    assert found.jobs[filejob.DUCKDB].rows
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path / "none")
    jobs = filejob.measure(tmp_path, 100, 1, 1, install=False)
    assert jobs["polars"].absent == environments.ABSENT
    assert not jobs[filejob.DUCKDB].absent


def test_worst_shapes_are_written_as_events(tmp_path: Path):
    worst_shapes.write(tmp_path, ["blank lines"], worst_shapes.ROOMY)
    assert json.loads((tmp_path / "0.json").read_bytes())["Records"]
    assert load_contract(str(tmp_path / "contract.toml")).name == "roomy"


PLAIN = traffic(10, kpl=False)


def output(traffic: Traffic = PLAIN) -> Output:
    rows = pa.table({"_sequence": ["2", "1"], "_sub": [0, 0], "x": [1.5, 2.5]})
    return Output({("p", "s"): {"pk": "p", "x": 1}}, rows, traffic.planted)


def test_equal_outputs_have_no_difference_whatever_the_order_of_their_rows():
    one, other = output(), output()
    other = replace(other, rows=other.rows.take([1, 0]))
    assert equality.differences(one, other, PLAIN) == []


@pytest.mark.parametrize(
    "other",
    [
        replace(output(), items={}),
        replace(output(), items={("p", "s"): {"pk": "p", "x": 2}}),
        replace(output(), rows=output().rows.slice(1)),
        replace(output(), rows=output().rows.set_column(2, "x", [[1.5, 2.0]])),
        replace(output(), bad=(Planted("1", 0, ""),)),
    ],
)
def test_other_outputs_are_told(other: Output):
    assert len(equality.differences(output(), other, PLAIN)) == 1


def test_a_bad_record_counts_by_its_place_and_by_its_reason():
    planted = (Planted("7", 3, "out_of_range"),)
    told = {"out_of_range": 1, "": 1, "too_large": 0}
    for reason, count in told.items():
        assert replace(output(), bad=(Planted("7", 3, reason),)).found(planted) == count
    assert replace(output(), bad=(Planted("7", 2, ""),)).found(planted) == 0
