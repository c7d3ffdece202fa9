"""Where an answer goes: to the terminal, or into a file in a format that others read."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq

from infra.cli import shown
from infra.lake import plain

FORMATS = ("table", "csv", "json", "parquet")


def chosen(form: str | None, out: Path | None, *, as_json: bool) -> str:
    """The format that is meant: what is said, else what the file's name says, else a table."""
    if as_json and form not in (None, "json"):
        raise click.UsageError(f"--json and --format {form} are two formats; keep one")
    if as_json:
        return "json"
    if out is None:
        if form == "parquet":
            raise click.UsageError("--format parquet needs a file: add --out FILE.parquet")
        return form or "table"
    named = out.suffix.lower().removeprefix(".")
    form = form or (named if named in FORMATS else None)
    if form in (None, "table"):
        raise click.UsageError(
            f"--out {out}: say which format by its name or by --format csv, json or parquet"
        )
    return form


def give(rows: pa.Table, form: str, out: Path | None) -> None:
    """Show an answer, or write it into a file. Raises `OSError`."""
    if form == "table":
        shown.print_table(rows)
    elif form == "parquet" and out is not None:
        with out.open("wb") as file:
            pq.write_table(rows, file, compression="zstd")
    elif out is not None:
        out.write_text(_TEXTS[form](rows), encoding="utf-8", newline="")
    else:
        sys.stdout.write(_TEXTS[form](rows))
        sys.stdout.flush()


def _csv(rows: pa.Table) -> str:
    """As RFC 4180: what is missing is empty, and what is nested is JSON."""
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow(rows.column_names)
    lines.writerows([_cell(value) for value in row.values()] for row in plain(rows))
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool | dict | list):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return value


def _json(rows: pa.Table) -> str:
    return shown.json_line(plain(rows))


_TEXTS = {"csv": _csv, "json": _json}
