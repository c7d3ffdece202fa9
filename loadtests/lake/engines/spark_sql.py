"""Spark: a local session of one core, in Java's own time zone set to UTC."""

import time
from collections.abc import Iterable
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f
from question import COLUMNS, Question, Sums, serve


class Spark:
    """`Engine` by pyspark."""

    def __init__(self) -> None:
        settings = {
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.shuffle.partitions": "1",
            "spark.ui.enabled": "false",
            "spark.driver.memory": "2g",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1",
        }
        builder = SparkSession.builder.master("local[1]")
        for name, value in settings.items():
            builder = builder.config(name, value)
        self._session = builder.getOrCreate()

    def totals(self, question: Question) -> list[tuple[str, Sums]]:
        rows = self._rows(question)
        if question.span:
            since, until = map(f.lit, question.span)
            rows = rows.filter((rows.event_time >= since) & (rows.event_time < until))
        found = rows.groupBy("status").agg(*_sums()).collect()
        return [(status, _whole(sums)) for status, *sums in found]

    def history(self, question: Question) -> list[Any]:
        own = self._rows(question).filter(f.col("device_id") == question.device)
        return own.select(*COLUMNS).orderBy("event_time").collect()

    def added(self, history: list[Any]) -> Sums:
        pressures = [round(row.pressure * 1_000) for row in history if row.pressure is not None]
        sequence = sum(row.sequence for row in history)
        temperature = sum(round(row.temperature * 1_000) for row in history)
        return len(history), sequence, temperature, len(pressures), sum(pressures)

    def _rows(self, question: Question) -> DataFrame:
        schema = self._session.read.parquet(question.schema).schema
        return self._session.read.schema(schema).parquet(*question.files)


def _thousandths(name: str) -> Any:
    return f.sum(f.round(f.col(name) * 1_000).cast("bigint"))


def _sums() -> list[Any]:
    return [
        f.count("*"),
        f.sum("sequence"),
        _thousandths("temperature"),
        f.count("pressure"),
        _thousandths("pressure"),
    ]


def _whole(sums: Iterable[Any]) -> Sums:
    rows, sequence, temperature, pressures, pressure = (one or 0 for one in sums)
    return rows, sequence, temperature, pressures, pressure


if __name__ == "__main__":
    serve(Spark(), time.perf_counter)  # its work is done by another process
