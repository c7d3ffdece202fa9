"""Answers as pictures: what is drawn, what it says, and what cannot be drawn."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pyarrow as pa
import pytest

from infra import charts
from infra.charts import ChartError, NoCharts, draw, specification

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOURS = [NOON + timedelta(hours=n) for n in range(4)]


def answer(**columns: Any) -> pa.Table:
    return pa.table(columns)


def points(rows: pa.Table) -> list[tuple[Any, ...]]:
    return [tuple(one.values()) for one in specification(rows)["data"]["values"]]


def mark(rows: pa.Table) -> str:
    found = specification(rows)["mark"]
    return found if isinstance(found, str) else found["type"]


def axis(rows: pa.Table, name: str = "x") -> Mapping[str, Any]:
    found: Mapping[str, Any] = specification(rows)["encoding"][name]
    return found


# ---- What is drawn ----


def test_numbers_along_time_are_a_line_each():
    rows = answer(hour=HOURS, records=[1, 2, None, 4], rejects=[0.5, 1.0, 1.5, 2.0])
    noon = int(NOON.timestamp() * 1_000)
    assert points(rows)[:3] == [
        (noon, "records", 1),
        (noon, "rejects", 0.5),
        (noon + 3_600_000, "records", 2),
    ]
    assert (noon + 7_200_000, "records", None) in points(rows)
    assert mark(rows) == "line"
    assert axis(rows)["scale"] == {"type": "utc"}
    assert axis(rows)["title"] == "hour (UTC), 2026-11-24"
    assert axis(rows, "color")["field"] == "series"


def test_over_midnight_the_days_are_on_the_axis():
    rows = answer(at=[NOON, NOON + timedelta(days=1)], n=[1, 2])
    assert axis(rows)["title"] == "at (UTC)"


@pytest.mark.parametrize(
    "moment",
    [
        NOON,
        NOON.replace(tzinfo=None),
        pa.scalar(int(NOON.timestamp() * 10**9), pa.timestamp("ns")).as_py,
    ],
)
def test_times_without_a_zone_are_utc_as_well(moment):
    given = pa.array([moment() if callable(moment) else moment])
    assert points(answer(at=given, n=[1])) == [(int(NOON.timestamp() * 1_000), "n", 1)]


def test_days_are_their_midnights():
    ((x, _, _),) = points(answer(day=[date(2026, 11, 24)], n=[1]))
    assert datetime.fromtimestamp(x / 1_000, UTC) == NOON.replace(hour=0)


def test_a_column_of_text_tells_series_apart():
    rows = answer(hour=HOURS, device=["a", "b", "a", None], temperature=[1.0, 2.0, 3.0, 4.0])
    assert [one[1:] for one in points(rows)] == [("a", 1), ("b", 2), ("a", 3), ("(none)", 4)]
    assert axis(rows, "color")["title"] == "device"


def test_beside_text_there_are_bars_in_the_order_of_the_answer():
    rows = answer(reason=["b", None, "a"], n=pa.array([Decimal(2**70), Decimal(2), Decimal(1)]))
    assert mark(rows) == "bar"
    assert points(rows) == [("b", "n", 2**70), ("(none)", "n", 2), ("a", "n", 1)]
    assert axis(rows, "y")["sort"] is None
    assert "color" not in specification(rows)["encoding"]
    two = specification(answer(reason=["a", "b"], n=[1, 2], m=[3, 4]))["encoding"]
    assert two["yOffset"]["field"] == two["color"]["field"] == "series"


def test_what_is_in_no_order_or_there_twice_is_points():
    assert mark(answer(temperature=[3.0, 1.0, 2.0], humidity=[1, 2, 3])) == "point"
    assert mark(answer(at=[NOON, NOON], n=[1, 2])) == "point"
    assert mark(answer(n=[1, 2, 3], square=[1, 4, 9])) == "line"


def test_rows_without_an_x_are_left_out():
    assert len(points(answer(at=[NOON, None], n=[1, 2]))) == 1


def test_whole_numbers_have_no_halves_on_their_axis():
    assert axis(answer(at=HOURS[:2], n=[1, 2]), "y")["axis"] == {"tickMinStep": 1}
    assert "axis" not in axis(answer(at=HOURS[:2], n=[1.5, 2.0]), "y")


# ---- What cannot be drawn ----


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (answer(at=pa.array([], pa.timestamp("us")), n=pa.array([], pa.int64())), "no rows"),
        (answer(at=pa.array([None], pa.timestamp("us")), n=[1]), "no at"),
        (answer(n=[1]), "needs two columns"),
        (answer(x=[[1]], n=[1]), r"column x \(list<item: int64>\) is no time, number or text"),
        (answer(at=HOURS[:1], body=[b"x"]), r"column body \(binary\) is no number"),
        (answer(at=HOURS[:1], seen=HOURS[:1]), "column seen .* is no number"),
        (answer(at=HOURS[:1], device=["a"]), "no column of numbers"),
        (answer(at=HOURS[:1], a=["a"], b=["b"], n=[1]), "a and b are both text"),
        (answer(at=HOURS[:1], a=["a"], n=[1], m=[1]), "n and m for each a"),
        (answer(device=["a", "a"], n=[1, 2]), "a device is there more than once: GROUP BY"),
        (answer(n=range(20_001), m=range(20_001)), "20,001 points are too many"),
        (answer(device=list(map(str, range(61))), n=range(61)), "61 bars are too many"),
        (
            answer(at=[NOON] * 21, device=list(map(str, range(21))), n=range(21)),
            "21 series are too many",
        ),
    ],
)
def test_it_says_why_an_answer_cannot_be_drawn(rows, says):
    with pytest.raises(ChartError, match=says):
        specification(rows)


def test_a_chart_is_a_picture(tmp_path):
    with pytest.raises(ChartError, match=r"a chart is a \.png or \.svg file"):
        draw(answer(x=[1], n=[1]), tmp_path / "chart.pdf")


def test_where_nothing_can_draw_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(NoCharts, match="pip install vl-convert-python"):
        charts.require(tmp_path / "chart.png")


# ---- Pictures ----

DRAWING = """
import sys
from datetime import datetime, timedelta, UTC
from pathlib import Path
import pyarrow as pa
from infra.charts import draw
noon = datetime(2026, 11, 24, 12, tzinfo=UTC)
rows = pa.table({"hour": [noon + timedelta(hours=n) for n in range(24)], "records": range(24)})
draw(rows, Path(sys.argv[1]))
"""


def texts(path: Path) -> list[str]:
    """What an SVG has in words."""
    return [node.text or "" for node in ET.parse(path).iter() if node.tag.endswith("text")]  # noqa: S314  our own drawing


def test_times_are_utc_wherever_it_is_drawn(tmp_path):
    path = tmp_path / "chart.svg"
    environment = {**os.environ, "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", DRAWING, str(path)], env=environment, check=True)
    found = texts(path)
    assert {"12:00", "18:00", "2026-11-25", "06:00", "hour (UTC)", "records"} <= set(found)


def test_a_png_is_as_wide_as_it_says(tmp_path):
    path = tmp_path / "chart.PNG"
    draw(answer(device=["a", "b"], n=[1, 2]), path)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(data[16:20]) > charts.WIDTH * charts.SCALE


def test_names_of_every_series_are_beside_it(tmp_path):
    path = tmp_path / "chart.svg"
    draw(answer(device=["<a> & b", "c"], records=[1, 2], rejects=[3, 4]), path)
    assert {"<a> & b", "c", "device", "records", "rejects"} <= set(texts(path))
