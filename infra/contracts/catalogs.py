"""A contract as the tables it makes: Arrow, Glue and Athena, DynamoDB."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sinks import landing
from sinks.hot import LATEST
from sinks.writes import NEWEST_BY
from transform.contract import Contract
from transform.field_types import FieldType

BUCKET = "BUCKET"  # bucket names are global, so a deployment puts its own here
SERDE = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"
INPUT = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat"
OUTPUT = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat"
PARTITIONS = {"_day": "date", "_hour": "int"}  # of the arrival; no field begins with an underscore
ATTRIBUTE_TYPES: Mapping[FieldType, str] = {
    "string": "S",
    "int64": "N",
    "float64": "N",
    "bool": "BOOL",
    "timestamp": "S",
}


def arrow(contract: Contract) -> list[dict[str, Any]]:
    """The landing objects' columns."""
    return [
        {
            "name": field.name,
            "type": str(field.type),
            "nullable": field.nullable,
            **landing.about(field),
        }
        for field in contract.landing_schema()
    ]


def arrow_text(contract: Contract) -> str:
    """The same, as pyarrow writes it."""
    lines = []
    for column in arrow(contract):
        null = "" if column["nullable"] else " not null"
        about = landing.comment(column)
        lines.append(f"{column['name']}: {column['type']}{null}{about and f'  -- {about}'}")
    return "\n".join(lines)


def glue(contract: Contract) -> dict[str, Any]:
    """Glue's `TableInput`; partitions are projected, so no crawler has to run."""
    where = f"s3://{BUCKET}/{landing.LANDING}/{contract.name}/"
    return {
        "Name": contract.name.replace("-", "_"),
        "Description": contract.description,
        "TableType": "EXTERNAL_TABLE",
        "Parameters": {"classification": "parquet", **_projection(where)},
        "PartitionKeys": [{"Name": name, "Type": kind} for name, kind in PARTITIONS.items()],
        "StorageDescriptor": {
            "Columns": [
                {"Name": c["name"], "Type": _athena(c["type"]), "Comment": landing.comment(c)}
                for c in arrow(contract)
            ],
            "Location": where,
            "InputFormat": INPUT,
            "OutputFormat": OUTPUT,
            "SerdeInfo": {"SerializationLibrary": SERDE},
        },
    }


def ddl(contract: Contract) -> str:
    """The same as a statement for Athena."""
    table = glue(contract)
    columns = ",\n".join(
        f"  `{c['Name']}` {c['Type']}" + (f" COMMENT {_sql(c['Comment'])}" if c["Comment"] else "")
        for c in table["StorageDescriptor"]["Columns"]
    )
    partitions = ", ".join(f"`{name}` {kind}" for name, kind in PARTITIONS.items())
    properties = ",\n".join(f"  {_sql(k)} = {_sql(v)}" for k, v in table["Parameters"].items())
    about = f"\nCOMMENT {_sql(contract.description)}" if contract.description else ""
    return (
        f"CREATE EXTERNAL TABLE `{table['Name']}` (\n{columns}\n){about}\n"
        f"PARTITIONED BY ({partitions})\nSTORED AS PARQUET\n"
        f"LOCATION {_sql(table['StorageDescriptor']['Location'])}\n"
        f"TBLPROPERTIES (\n{properties}\n);"
    )


def dynamodb(contract: Contract) -> dict[str, Any]:
    """The hot table's keys, and the attributes of an item."""
    positional = "" if contract.record_id else "#<record id>"
    attributes = [
        {
            "name": f.name,
            "type": ATTRIBUTE_TYPES[f.type],
            "always": contract.always(f),
            "about": landing.comment({"description": f.description, "unit": f.unit}),
        }
        for f in contract.hot_columns
        if f.privacy != "redact"
    ]
    attributes.append(_attribute("_rescued", "S", "fields the contract does not name, as JSON"))
    if contract.hot_ttl_seconds is not None:
        days = contract.hot_ttl_seconds // 86_400
        attributes.append(
            _attribute("expires_at", "N", f"epoch seconds, {days} days after the event time")
            | {"always": True}
        )
    place = f"<{contract.event_time} to the microsecond>#<digest of the message>{positional}"
    keys = {"pk": f"S, <{contract.device}>#<UTC day of {contract.event_time}>", "sk": f"S, {place}"}
    if contract.latest:
        keys = {"pk": f"S, <{contract.device}>", "sk": f"S, {LATEST}"}
        about = f"{place}: a put replaces only what is not newer"
        attributes.append(_attribute(NEWEST_BY, "S", about) | {"always": True})
    return {
        "layout": contract.hot_layout,
        "keys": keys,
        "when": contract.hot_when.text if contract.hot_when else "always",
        "ttl": None if contract.hot_ttl_seconds is None else "expires_at",
        "attributes": attributes,
    }


def _attribute(name: str, kind: str, about: str) -> dict[str, Any]:
    return {"name": name, "type": kind, "always": False, "about": about}


def _projection(where: str) -> dict[str, str]:
    """Athena works partitions out of the keys by itself: `landing/<name>/2026-11-24/12/`."""
    return {
        "projection.enabled": "true",
        "projection._day.type": "date",
        "projection._day.format": "yyyy-MM-dd",
        "projection._day.range": "2020-01-01,NOW",
        "projection._hour.type": "integer",
        "projection._hour.range": "0,23",
        "projection._hour.digits": "2",
        "storage.location.template": where + "${_day}/${_hour}/",
    }


def _athena(kind: str) -> str:
    """An Arrow type in Athena's words."""
    if kind.startswith("fixed_size_binary"):
        return "binary"
    return {
        "int64": "bigint",
        "int32": "int",
        "double": "double",
        "bool": "boolean",
        "string": "string",
        "timestamp[us, tz=UTC]": "timestamp",
    }[kind]


def _sql(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
