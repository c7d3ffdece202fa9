"""An answer as a picture: lines over time, points over numbers, bars beside names.

The first column is x. If it is a time or a number, each other number is a series; one column of
text among them tells series apart instead (`hour, device, avg`). If it is text, there is a bar for
each row. A specification in Vega-Lite says it all; vl-convert draws it, offline, without a browser.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from infra.lake import plain

FORMATS = (".png", ".svg")
POINTS_MAX = 20_000  # beyond, a line is a smear
BARS_MAX = 60
SERIES_MAX = 20  # as many as there are colours
DOTS_MAX = 60  # points of a series up to which each is marked
WIDTH, HEIGHT, BAR = 720, 360, 18  # pixels of what is between the axes, and of a bar
SCALE = 2  # of a PNG: sharp on any screen

Kind = Literal["time", "number", "text"]


class ChartError(ValueError):
    """An answer that cannot be drawn; says why, and what could be."""


class NoCharts(RuntimeError):
    """Nothing here can draw."""


@dataclass(frozen=True)
class Shape:
    """How an answer is read: the kind of its first column, its numbers, and what tells them apart.

    `by` is a column of text, or nothing.
    """

    x: str
    kind: Kind
    values: tuple[str, ...]
    by: str | None


def require(path: Path) -> Any:
    """What draws into this file. Raises `ChartError`, `NoCharts`."""
    if path.suffix.lower() not in FORMATS:
        raise ChartError(f"--chart {path}: a chart is a {' or '.join(FORMATS)} file")
    try:
        return importlib.import_module("vl_convert")
    except ImportError:
        raise NoCharts(
            "charts are drawn by vl-convert, which is not here; pip install vl-convert-python"
        ) from None


def draw(rows: pa.Table, path: Path) -> None:
    """Draw an answer into a PNG or SVG file. Raises `ChartError`, `NoCharts`, `OSError`."""
    vl_convert = require(path)
    wanted = specification(rows)
    if path.suffix.lower() == ".png":
        path.write_bytes(vl_convert.vegalite_to_png(wanted, scale=SCALE))
    else:
        path.write_text(vl_convert.vegalite_to_svg(wanted), encoding="utf-8")


def specification(rows: pa.Table) -> dict[str, Any]:
    """The chart of an answer, in Vega-Lite. Raises `ChartError`."""
    shape = shape_of(rows)
    if shape.kind != "text":
        rows = rows.filter(pc.is_valid(rows.column(shape.x)))
    if not rows.num_rows:
        raise ChartError(f"no {shape.x} has a value, so there is nothing to draw along")
    series = _series(rows, shape)
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": WIDTH,
        "height": {"step": BAR} if shape.kind == "text" else HEIGHT,
        "background": "white",
        "padding": 16,
        "config": _CONFIG,
        "data": {"values": _data(rows, shape)},
        "mark": "bar" if shape.kind == "text" else _mark(rows, shape, len(series)),
        "encoding": _encoding(rows, shape, len(series)),
    }


def shape_of(rows: pa.Table) -> Shape:
    """How an answer is drawn. Raises `ChartError`."""
    if not rows.num_rows:
        raise ChartError("the answer has no rows, so there is nothing to draw")
    if rows.num_columns < 2:  # noqa: PLR2004  an x and a y
        raise ChartError(
            "a chart needs two columns: SELECT what goes along x, then the numbers to draw"
        )
    x, *others = rows.schema
    kind = _kind(x.type)
    if kind is None:
        raise ChartError(f"column {x.name} ({x.type}) is no time, number or text to draw along")
    texts = [field.name for field in others if _kind(field.type) == "text"]
    values = tuple(field.name for field in others if _kind(field.type) == "number")
    odd = [f for f in others if f.name not in texts and f.name not in values]
    if odd:
        raise ChartError(f"column {odd[0].name} ({odd[0].type}) is no number to draw; leave it out")
    if not values:
        raise ChartError(f"beside {x.name} there is no column of numbers to draw")
    if len(texts) > 1:
        raise ChartError(f"columns {' and '.join(texts)} are both text: keep one to tell series by")
    if texts and len(values) > 1:
        raise ChartError(
            f"{' and '.join(values)} for each {texts[0]} are too much for one chart: keep one"
        )
    return Shape(x.name, kind, values, texts[0] if texts else None)


def _series(rows: pa.Table, shape: Shape) -> Sequence[str]:
    """Names of what is drawn, and a check that it is not too much to see."""
    found = list(shape.values)
    if shape.by is not None:
        found = [_name(name) for name in rows.column(shape.by).unique().to_pylist()]
    most = BARS_MAX if shape.kind == "text" else POINTS_MAX
    what = "bars" if shape.kind == "text" else "points"
    count = rows.num_rows * len(shape.values)
    if count > most:
        raise ChartError(f"{count:,} {what} are too many to see (at most {most:,}); GROUP or LIMIT")
    if _repeated(rows, shape) and shape.kind == "text":
        raise ChartError(f"a {shape.x} is there more than once: GROUP BY it, for a bar each")
    if len(found) > SERIES_MAX:
        raise ChartError(f"{len(found):,} series are too many to see (at most {SERIES_MAX})")
    return found


def _kind(kind: pa.DataType) -> Kind | None:
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "time"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind):
        return "text"
    return None


def _data(rows: pa.Table, shape: Shape) -> list[dict[str, Any]]:
    """One row per point. Times are milliseconds since 1970: text would be read in a local zone."""
    column = rows.column(shape.x)
    if shape.kind == "time":
        along = column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64()).to_pylist()
    else:
        along = [row["x"] for row in plain(pa.table({"x": column}))]
        along = [_name(x) for x in along] if shape.kind == "text" else along
    held = plain(rows.select([*shape.values, *([shape.by] if shape.by else [])]))
    return [
        {"x": x, "series": _name(row[shape.by]) if shape.by else name, "value": row[name]}
        for x, row in zip(along, held, strict=True)
        for name in shape.values
    ]


def _name(value: Any) -> str:
    return "(none)" if value is None else str(value)


def _repeated(rows: pa.Table, shape: Shape) -> bool:
    """Whether a series has two values for one x."""
    names = [shape.x, *([shape.by] if shape.by else [])]
    return bool(rows.select(names).group_by(names).aggregate([]).num_rows < rows.num_rows)


def _mark(rows: pa.Table, shape: Shape, series: int) -> dict[str, Any]:
    """A line where x goes on and has one value for each series, else points."""
    along = rows.column(shape.x)
    ordered = pc.all(pc.less_equal(along[:-1], along[1:])).as_py() is not False
    if _repeated(rows, shape) or (shape.kind == "number" and not ordered):
        return {"type": "point", "filled": True, "size": 24, "opacity": 0.6}
    few = rows.num_rows // (series if shape.by else 1) <= DOTS_MAX
    return {"type": "line", "point": few, "strokeWidth": 2}


def _encoding(rows: pa.Table, shape: Shape, series: int) -> dict[str, Any]:
    value = {"field": "value", "type": "quantitative", "title": _title(shape)}
    value |= _whole(rows, shape.values)
    if shape.kind == "text":
        name = {"field": "x", "type": "nominal", "title": shape.x, "sort": None}
        found: dict[str, Any] = {"x": value, "y": name}
    else:
        found = {"x": _axis(rows, shape), "y": value | {"scale": {"zero": False}}}
    if series > 1 or shape.by:
        colour = {"field": "series", "type": "nominal", "title": shape.by, "sort": None}
        scheme = {"scale": {"scheme": "tableau20"}} if series > len(_PALETTE) else {}
        found["color"] = colour | scheme
        if shape.kind == "text":
            found["yOffset"] = {"field": "series", "sort": None}
    return found


def _axis(rows: pa.Table, shape: Shape) -> dict[str, Any]:
    if shape.kind == "number":
        number = {"field": "x", "type": "quantitative", "title": shape.x, "scale": {"zero": False}}
        return number | _whole(rows, [shape.x])
    days = rows.column(shape.x).cast(pa.timestamp("ms"), safe=False).cast(pa.date32(), safe=False)
    first, last = pc.min(days).as_py(), pc.max(days).as_py()
    day = f", {first}" if first == last else ""  # else midnights say it
    return {
        "field": "x",
        "type": "temporal",
        "scale": {"type": "utc"},
        "title": f"{shape.x} (UTC){day}",
        "axis": {"labelExpr": _MOMENT, "labelFlush": False},
    }


def _whole(rows: pa.Table, names: Sequence[str]) -> dict[str, Any]:
    """Of whole numbers there are no halves on the axis."""
    types = (rows.schema.field(name).type for name in names)
    return {"axis": {"tickMinStep": 1}} if all(map(pa.types.is_integer, types)) else {}


def _title(shape: Shape) -> str | None:
    return shape.values[0] if len(shape.values) == 1 else None


_MOMENT = (
    "utchours(datum.value) == 0 && utcminutes(datum.value) == 0"
    " && utcseconds(datum.value) == 0 ? utcFormat(datum.value, '%Y-%m-%d')"
    " : utcFormat(datum.value, utcseconds(datum.value) == 0 ? '%H:%M' : '%H:%M:%S')"
)
_PALETTE = ("#1b6ca8", "#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#a6761d", "#666666", "#66a61e")
_CONFIG = {
    "view": {"stroke": None},
    "range": {"category": list(_PALETTE)},
    "axis": {
        "gridColor": "#e4e4e4",
        "domainColor": "#888888",
        "tickColor": "#888888",
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 240,
    },
    "legend": {"labelFontSize": 11, "labelLimit": 240, "symbolSize": 80},
    "bar": {"color": _PALETTE[0]},
    "line": {"color": _PALETTE[0]},
    "point": {"color": _PALETTE[0]},
}
