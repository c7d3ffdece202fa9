"""DuckDB: SQL over a list of files."""

from collections.abc import Iterable
from typing import Any

import duckdb
from question import COLUMNS, Question, Sums, serve

SUMS = """
    count(*),
    coalesce(sum(sequence), 0),
    coalesce(sum(round(temperature * 1000)::BIGINT), 0),
    count(pressure),
    coalesce(sum(round(pressure * 1000)::BIGINT), 0)
"""


class DuckDB:
    """`Engine` by DuckDB."""

    def __init__(self) -> None:
        self._db = duckdb.connect()
        self._db.execute("SET TimeZone = 'UTC'; SET threads = 1")
        self._db.execute("SET enable_external_file_cache = false")  # each question reads for itself

    def totals(self, question: Question) -> list[tuple[str, Sums]]:
        where, values = "", list[object]()
        if question.span:
            where, values = "WHERE event_time >= ? AND event_time < ?", list(question.span)
        sql = f"SELECT status, {SUMS} FROM {_rows(question)} {where} GROUP BY ALL"
        rows = self._db.execute(sql, [*_files(question), *values]).fetchall()
        return [(status, _whole(sums)) for status, *sums in rows]

    def history(self, question: Question) -> Any:
        sql = f"""
            SELECT {", ".join(COLUMNS)} FROM {_rows(question)}
            WHERE device_id = ? ORDER BY event_time
        """
        return self._db.execute(sql, [*_files(question), question.device]).to_arrow_table()

    def added(self, history: Any) -> Sums:
        self._db.register("history", history)
        (row,) = self._db.execute(f"SELECT {SUMS} FROM history").fetchall()
        return _whole(row)


def _rows(question: Question) -> str:
    if question.distinct:
        return f"(SELECT DISTINCT ON (_record_id, _digest) * FROM {READ})"
    return READ


READ = "read_parquet(?, union_by_name = true)"


def _files(question: Question) -> list[list[str]]:
    return [[question.schema, *question.files]]


def _whole(sums: Iterable[Any]) -> Sums:
    rows, sequence, temperature, pressures, pressure = map(int, sums)
    return rows, sequence, temperature, pressures, pressure


if __name__ == "__main__":
    serve(DuckDB())
