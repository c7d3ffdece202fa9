"""Pathway, in batch mode: lines in, JSON lines out, an item as a text within its line.

It writes no Parquet.
"""

import json
from pathlib import Path

import pathway as pw
from job import measured
from rowwise import item_of, row_of


def work(lines: Path, folder: Path) -> None:
    table = pw.io.plaintext.read(str(lines), mode="static")
    items = table.select(item=pw.apply_with_type(made, str, table.data))
    pw.io.jsonlines.write(items.filter(items.item != ""), str(folder / "items.json"))
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)


def made(line: str) -> str:
    row = row_of(json.loads(line))
    return "" if row is None else json.dumps(item_of(row))


if __name__ == "__main__":
    measured(work)
