"""Where a lake is worked on: objects fetched to a folder, and DuckDB, which keeps within a bound.

Each object is fetched once. DuckDB sorts and groups more than fits in memory in files beside them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from sinks.bucket import Bucket

FETCHERS = 8
BATCH_ROWS = 122_880  # of DuckDB's own row groups
MEMORY_MB = 1_024
THREADS = 1


@dataclass(frozen=True)
class Limits:
    """What work may take: of DuckDB's memory, of the machine's threads, of S3 at once."""

    memory_mb: int = MEMORY_MB
    threads: int = THREADS
    fetchers: int = FETCHERS


DEFAULT = Limits()


@dataclass
class Workspace:
    """A folder with copies of objects, and a database. Made by `workspace`."""

    bucket: Bucket
    folder: Path
    db: duckdb.DuckDBPyConnection
    fetchers: int = FETCHERS
    fetched: dict[str, Path] = field(default_factory=dict)

    def fetch(self, keys: Iterable[str]) -> list[str]:
        """Paths of these objects' copies. Raises `Gone`, `Unavailable`, `Misconfigured`."""
        wanted = list(keys)
        missing = [key for key in dict.fromkeys(wanted) if key not in self.fetched]
        if self.fetchers > 1 and len(missing) > 1:
            with ThreadPoolExecutor(self.fetchers) as pool:
                copies = list(pool.map(self._copy, missing))
        else:
            copies = [self._copy(key) for key in missing]
        self.fetched.update(zip(missing, copies, strict=True))
        return [str(self.fetched[key]) for key in wanted]

    def read(self, keys: Iterable[str], columns: str = "*", where: str = "TRUE") -> str:
        """A SELECT of rows of some objects, by the names of their columns.

        `filename` is among them, the path of the copy. Of no objects there are no columns, and it
        is no text.
        """
        paths = self.fetch(keys)
        return select(paths, columns, where) if paths else ""

    def keep(self, name: str, sql: str) -> str:
        """Write what a query answers to a file; returns its path.

        All that is sorted is read from files in one SELECT: a sort of a UNION takes many times the
        memory that it may.
        """
        path = str(self.folder / f"{name}.parquet")
        self.db.execute(f"COPY ({sql}) TO '{path}' (FORMAT parquet, COMPRESSION uncompressed)")
        return path

    def keep_none(self, schema: pa.Schema) -> str:
        """Write a file without rows that has every column of a schema; returns its path."""
        path = str(self.folder / "none.parquet")
        pq.write_table(schema.empty_table(), path)
        return path

    def keys_of(self, paths: Iterable[str]) -> list[str]:
        """Whose copies these are."""
        names = {str(path): key for key, path in self.fetched.items()}
        return [names[path] for path in paths]

    def number(self, sql: str) -> int:
        """The one number that a query is for."""
        return int(self.rows(sql)[0][0])

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query that has few."""
        answer: duckdb.DuckDBPyRelation | None = self.db.sql(sql)
        return [] if answer is None else answer.fetchall()

    def forget(self, keys: Iterable[str]) -> None:
        """Remove copies that will not be read again."""
        for key in keys:
            if (path := self.fetched.pop(key, None)) is not None:
                path.unlink()

    def _copy(self, key: str) -> Path:
        path = self.folder / key.replace("/", "_")
        path.write_bytes(self.bucket.get(key))
        return path


def select(paths: Iterable[str], columns: str = "*", where: str = "TRUE") -> str:
    """A SELECT of rows of some files, by the names of their columns; `filename` is among them."""
    files = ", ".join(f"'{path}'" for path in paths)
    source = f"read_parquet([{files}], union_by_name = true, filename = true)"
    return f"SELECT {columns} FROM {source} WHERE {where}"


@contextmanager
def workspace(bucket: Bucket, limits: Limits = DEFAULT) -> Iterator[Workspace]:
    """A workspace that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="millrace-") as name:
        config: dict[str, str | bool | int | float | list[str]] = {
            "autoinstall_known_extensions": "false",
            "memory_limit": f"{limits.memory_mb}MB",
            "threads": str(limits.threads),
            "temp_directory": f"{name}/spilled",
            "preserve_insertion_order": "false",
        }
        with duckdb.connect(config=config) as db:
            db.execute("SET TimeZone = 'UTC'")
            yield Workspace(bucket, Path(name), db, limits.fetchers)
