"""dlt: a pipeline to files, once as Parquet and once as JSON lines.

It names and lays out files itself, under `rows/` and `items/`.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ |= {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "EXTRACT__WORKERS": "1",
    "NORMALIZE__WORKERS": "1",
    "LOAD__WORKERS": "1",
    "NORMALIZE__DATA_WRITER__DISABLE_COMPRESSION": "true",
}

import dlt
import orjson
from dlt.destinations import filesystem
from job import measured
from rowwise import item_of, row_of

ROWS_AT_ONCE = 5_000


def work(lines: Path, folder: Path) -> None:
    for name, form in (("rows", "parquet"), ("items", "jsonl")):
        pipeline = dlt.pipeline(
            name,
            pipelines_dir=str(folder / "state"),
            destination=filesystem(bucket_url=(folder / name).as_uri()),
            dataset_name="job",
        )
        resource = dlt.resource(read(lines, name), name=name, max_table_nesting=0)
        pipeline.run(resource, loader_file_format=form)


def read(lines: Path, name: str) -> Iterator[list[dict[str, Any]]]:
    """Rows or items, a few thousand at a time."""
    some: list[dict[str, Any]] = []
    with lines.open("rb") as source:
        for line in source:
            row = row_of(orjson.loads(line))
            if row is not None:
                some.append(row if name == "rows" else item_of(row))
            if len(some) >= ROWS_AT_ONCE:
                yield some
                some = []
    yield some


if __name__ == "__main__":
    measured(work)
