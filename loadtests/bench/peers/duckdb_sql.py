"""DuckDB: one table from the file, two COPY."""

from pathlib import Path

import duckdb
from job import ALLOWED, NUMBERS, PATHS, RANGES, STRINGS, TTL_SECONDS, measured

COLUMNS = {
    **dict.fromkeys(("id", "fw", "status"), "VARCHAR"),
    **dict.fromkeys(("ts", "seq", "rssi"), "BIGINT"),
    **dict.fromkeys(("temp", "hum", "press", "rain", "bat", "lat", "lon"), "DOUBLE"),
    "wind": "STRUCT(speed DOUBLE, dir DOUBLE)",
    "charging": "BOOLEAN",
}
TIME = "strftime(event_time, '%Y-%m-%dT%H:%M:%S.%fZ')"


def work(lines: Path, folder: Path) -> None:
    database = duckdb.connect()
    database.execute("SET threads = 1; SET TimeZone = 'UTC'")
    fields = [
        "make_timestamp(ts * 1000) AS event_time"
        if name == "event_time"
        else f"{'.'.join(path)} AS {name}"
        for name, path in PATHS.items()
    ]
    good = [
        f"({name} IS NULL OR {name} BETWEEN {low} AND {high})"
        for name, (low, high) in RANGES.items()
    ]
    good += [f"status IN {ALLOWED}", "device_id IS NOT NULL", "event_time IS NOT NULL"]
    good += ["sequence IS NOT NULL", "temperature IS NOT NULL"]
    columns = ", ".join(f"{name}: '{kind}'" for name, kind in COLUMNS.items())
    database.execute(
        f"CREATE TABLE good AS SELECT * FROM (SELECT {', '.join(fields)} FROM "
        f"read_json('{lines}', format = 'newline_delimited', columns = {{{columns}}})) "
        f"WHERE {' AND '.join(good)}"
    )
    database.execute(
        f"COPY (SELECT * REPLACE (event_time::TIMESTAMPTZ AS event_time) FROM good) "
        f"TO '{folder}/rows.parquet' (FORMAT parquet, COMPRESSION zstd)"
    )
    database.execute(f"COPY ({items()}) TO '{folder}/items.json' (FORMAT json)")


def items() -> str:
    """Each attribute an object with its type, as DynamoDB has it."""
    found = [
        f"{{S: device_id || '#' || {TIME}[:10]}} AS pk",
        f"{{S: {TIME} || '#' || sequence}} AS sk",
        f"{{N: (epoch_ms(event_time) // 1000 + {TTL_SECONDS})::VARCHAR}} AS expires_at",
    ]
    for name in PATHS:
        if name in STRINGS:
            value = f"{{S: {name}}}"
        elif name in NUMBERS:
            value = f"{{N: {name}::VARCHAR}}"
        else:
            value = f"{{S: {TIME}}}" if name == "event_time" else f"{{BOOL: {name}}}"
        found.append(f"{value} AS {name}")
    return f"SELECT {', '.join(found)} FROM good"


if __name__ == "__main__":
    measured(work)
