"""Tables as Glue takes them, and as statements for Athena."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.catalog.tables import Table

DATABASE = "millrace"
LEDGER_DATABASE = "millrace_ledger"
LEDGER_FLAG = "dynamo-db-flag"  # by which Athena's DynamoDB connector knows a database as its own
BUCKET = "BUCKET"  # bucket names are global, so a deployment puts its own here
SINCE = "2026-11-01"  # nothing has landed before there was a Millrace; each day is 24 prefixes
PARTITIONS = {"_day": "date", "_hour": "int"}  # of the arrival; no field begins with an underscore


@dataclass(frozen=True)
class Format:
    """How Hive names a format's reader."""

    serde: str
    reads: str
    writes: str


FORMATS: Mapping[str, Format] = {
    "parquet": Format(
        "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
        "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
        "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
    ),
    "json": Format(
        "org.openx.data.jsonserde.JsonSerDe",
        "org.apache.hadoop.mapred.TextInputFormat",
        "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
    ),
}


def database_input() -> dict[str, str]:
    """Glue's `DatabaseInput`."""
    return {"Name": DATABASE, "Description": "Records, by contract. Times are UTC"}


def ledger_database_input() -> dict[str, str]:
    """The database of the ledger, which Athena's DynamoDB connector finds by its location."""
    return {
        "Name": LEDGER_DATABASE,
        "Description": "For Athena's DynamoDB connector",
        "LocationUri": LEDGER_FLAG,
    }


def table_input(table: Table, bucket: str = BUCKET) -> dict[str, Any]:
    """Glue's `TableInput`; partitions are projected, so no crawler has to run."""
    stored: dict[str, Any] = {
        "Columns": [
            {"Name": c.name, "Type": c.type.replace("`", ""), "Comment": c.comment}
            for c in table.columns
        ],
        "Location": location(table, bucket),
    }
    if table.kind in FORMATS:
        form = FORMATS[table.kind]
        stored |= {
            "InputFormat": form.reads,
            "OutputFormat": form.writes,
            "SerdeInfo": {"SerializationLibrary": form.serde},
        }
    keys = PARTITIONS if table.partitioned else {}
    return {
        "Name": table.name,
        "Description": table.about,
        "TableType": "EXTERNAL_TABLE",
        "Parameters": {"classification": table.kind, **properties(table, bucket)},
        "PartitionKeys": [{"Name": name, "Type": kind} for name, kind in keys.items()],
        "StorageDescriptor": stored,
    }


def database_ddl() -> str:
    """The database as a statement for Athena."""
    made = database_input()
    return f"CREATE DATABASE IF NOT EXISTS {made['Name']} COMMENT {_text(made['Description'])};"


def ddl(table: Table, bucket: str = BUCKET) -> str:
    """A table as a statement for Athena. Not of the ledger: DDL knows no DynamoDB."""
    columns = ",\n".join(
        f"  `{c.name}` {c.type}" + (f" COMMENT {_text(c.comment)}" if c.comment else "")
        for c in table.columns
    )
    told = {"classification": table.kind, **properties(table, bucket)}
    keys = ", ".join(f"`{name}` {kind}" for name, kind in PARTITIONS.items())
    form = FORMATS[table.kind]
    lines = [
        f"CREATE EXTERNAL TABLE IF NOT EXISTS `{DATABASE}`.`{table.name}` (\n{columns}\n)",
        f"COMMENT {_text(table.about)}",
        f"PARTITIONED BY ({keys})" if table.partitioned else "",
        "STORED AS PARQUET" if table.kind == "parquet" else f"ROW FORMAT SERDE {_text(form.serde)}",
        f"LOCATION {_text(location(table, bucket))}",
        "TBLPROPERTIES (\n" + ",\n".join(f"  {_text(k)} = {_text(v)}" for k, v in told.items()),
    ]
    return "\n".join(filter(None, lines)) + "\n);"


def location(table: Table, bucket: str) -> str:
    """Where its objects are."""
    if table.kind == "dynamodb":
        return f"arn:aws:dynamodb:::table/{table.place}"
    return f"s3://{bucket}/{table.place}"


def properties(table: Table, bucket: str) -> dict[str, str]:
    """What Athena reads beside the schema.

    It works partitions out of the keys by itself: `landing/<name>/2026-11-24/12/`.
    """
    if table.kind == "dynamodb":
        return {"sourceTable": table.place}
    if not table.partitioned:
        return {}
    return {
        "projection.enabled": "true",
        "projection._day.type": "date",
        "projection._day.format": "yyyy-MM-dd",
        "projection._day.range": f"{SINCE},NOW",
        "projection._hour.type": "integer",
        "projection._hour.range": "0,23",
        "projection._hour.digits": "2",
        "storage.location.template": location(table, bucket) + "${_day}/${_hour}/",
    }


def _text(text: str) -> str:
    """A literal of Athena's DDL, which is Hive's: there a backslash escapes, two quotes do not."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
