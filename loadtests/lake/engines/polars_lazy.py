"""Polars: a lazy frame of a list of files."""

import polars as pl
from question import COLUMNS, Question, Sums, serve


class Polars:
    """`Engine` by polars."""

    def totals(self, question: Question) -> list[tuple[str, Sums]]:
        rows = _scan(question)
        if question.span:
            rows = rows.filter(pl.col("event_time").is_between(*question.span, closed="left"))
        found = rows.group_by("status").agg(SUMS).collect()
        return [(status, tuple(sums)) for status, *sums in found.rows()]

    def history(self, question: Question) -> pl.DataFrame:
        own = _scan(question).filter(pl.col("device_id") == question.device)
        return own.select(COLUMNS).sort("event_time").collect()

    def added(self, history: pl.DataFrame) -> Sums:
        return tuple(history.select(SUMS).row(0))


def _scan(question: Question) -> pl.LazyFrame:
    schema = pl.read_parquet_schema(question.schema)
    return pl.scan_parquet(
        question.files, schema=schema, missing_columns="insert", extra_columns="ignore", glob=False
    )


def _thousandths(name: str) -> pl.Expr:
    return (pl.col(name) * 1_000).round().cast(pl.Int64).sum()


SUMS = [
    pl.len().alias("rows"),
    pl.col("sequence").sum().alias("sequences"),
    _thousandths("temperature").alias("temperatures"),
    pl.col("pressure").count().alias("pressures"),
    _thousandths("pressure").alias("pressure_sum"),
]

if __name__ == "__main__":
    serve(Polars())
