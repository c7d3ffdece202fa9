"""Polars: the file as a lazy frame with a schema, Parquet and NDJSON from it."""

from pathlib import Path

import polars as pl
from job import ALLOWED, NUMBERS, PATHS, RANGES, STRINGS, TTL_SECONDS, measured

SCHEMA = {
    **dict.fromkeys(("id", "fw", "status"), pl.String),
    **dict.fromkeys(("ts", "seq", "rssi"), pl.Int64),
    **dict.fromkeys(("temp", "hum", "press", "rain", "bat", "lat", "lon"), pl.Float64),
    "wind": pl.Struct({"speed": pl.Float64, "dir": pl.Float64}),
    "charging": pl.Boolean,
}


def work(lines: Path, folder: Path) -> None:
    frame = pl.scan_ndjson(lines, schema=SCHEMA)
    good = [
        pl.col(name).is_null() | pl.col(name).is_between(low, high)
        for name, (low, high) in RANGES.items()
    ]
    good += [pl.col("status").is_in(ALLOWED)]
    good += [
        pl.col(n).is_not_null() for n in ("device_id", "event_time", "sequence", "temperature")
    ]
    rows = frame.select(*(field(name) for name in PATHS)).filter(*good).collect()
    rows.write_parquet(folder / "rows.parquet", compression="zstd", compression_level=1)
    items(rows).write_ndjson(folder / "items.json")


def field(name: str) -> pl.Expr:
    path = PATHS[name]
    value = pl.col(path[0])
    for key in path[1:]:
        value = value.struct.field(key)
    if name == "event_time":
        value = pl.from_epoch(value, time_unit="ms").cast(pl.Datetime("us", "UTC"))
    return value.alias(name)


def items(rows: pl.DataFrame) -> pl.DataFrame:
    """Each attribute an object with its type, as DynamoDB has it."""
    moment = pl.col("event_time").dt.strftime("%Y-%m-%dT%H:%M:%S.%6fZ")
    expires = pl.col("event_time").dt.epoch("s") + TTL_SECONDS
    found = [
        text(pl.concat_str(pl.col("device_id"), pl.lit("#"), moment.str.slice(0, 10)), "pk"),
        text(pl.concat_str(moment, pl.lit("#"), pl.col("sequence").cast(pl.String)), "sk"),
        pl.struct(expires.cast(pl.String).alias("N")).alias("expires_at"),
    ]
    for name in PATHS:
        if name == "event_time":
            found.append(text(moment, name))
        elif name in STRINGS:
            found.append(text(pl.col(name), name))
        elif name in NUMBERS:
            found.append(pl.struct(pl.col(name).cast(pl.String).alias("N")).alias(name))
        else:
            found.append(pl.struct(pl.col(name).alias("BOOL")).alias(name))
    return rows.select(*found)


def text(value: pl.Expr, name: str) -> pl.Expr:
    return pl.struct(value.alias("S")).alias(name)


if __name__ == "__main__":
    measured(work)
