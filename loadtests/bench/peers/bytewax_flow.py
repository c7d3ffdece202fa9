"""Bytewax: a dataflow of one worker; rows are batched into Parquet by pyarrow."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import bytewax.operators as op
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from bytewax.connectors.files import FileSource
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main
from job import measured
from rowwise import item_of, row_of

ROWS_A_FILE = 7_000


class Rest(StatelessSinkPartition[dict[str, Any]]):
    """Items line by line, rows a file each few thousand."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._rows, self._number = folder, list[dict[str, Any]](), 0
        self._items = (folder / "items.json").open("wb")

    def write_batch(self, items: list[dict[str, Any]]) -> None:
        self._rows += items
        self._items.writelines(orjson.dumps(item_of(row)) + b"\n" for row in items)
        while len(self._rows) >= ROWS_A_FILE:
            self._write(self._rows[:ROWS_A_FILE])
            del self._rows[:ROWS_A_FILE]

    def close(self) -> None:
        if self._rows:
            self._write(self._rows)
        self._items.close()

    def _write(self, rows: Iterable[dict[str, Any]]) -> None:
        file = self._folder / f"rows-{self._number}.parquet"
        pq.write_table(pa.Table.from_pylist(list(rows)), file, compression="zstd")
        self._number += 1


class Resting(DynamicSink[dict[str, Any]]):
    """A sink in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def build(self, _step: str, _worker: int, _workers: int) -> Rest:
        return Rest(self._folder)


def work(lines: Path, folder: Path) -> None:
    flow = Dataflow("job")
    read = op.input("read", flow, FileSource(lines, batch_size=1_000))
    rows = op.filter_map("judge", read, lambda line: row_of(orjson.loads(line)))
    op.output("write", rows, Resting(folder))
    run_main(flow)


if __name__ == "__main__":
    measured(work)
