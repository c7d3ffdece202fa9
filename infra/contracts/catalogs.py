"""A contract as the tables it makes: Arrow and DynamoDB. `infra/catalog` has Glue and Athena."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sinks.comments import described
from sinks.hot import LATEST
from sinks.writes import NEWEST_BY
from transform.contract import Contract
from transform.field_types import FieldType

if TYPE_CHECKING:
    import pyarrow as pa

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
            **_about(field),
        }
        for field in contract.landing_schema()
    ]


def arrow_text(contract: Contract) -> str:
    """The same, as pyarrow writes it."""
    lines = []
    for column in arrow(contract):
        null = "" if column["nullable"] else " not null"
        about = described(column["description"], column["unit"])
        lines.append(f"{column['name']}: {column['type']}{null}{about and f'  -- {about}'}")
    return "\n".join(lines)


def dynamodb(contract: Contract) -> dict[str, Any]:
    """The hot table's keys, and the attributes of an item."""
    positional = "" if contract.record_id else "#<record id>"
    attributes = [
        {
            "name": f.name,
            "type": ATTRIBUTE_TYPES[f.type],
            "always": contract.always(f),
            "about": described(f.description, f.unit),
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


def _about(field: pa.Field) -> dict[str, str]:
    found = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    return {"description": found.get("description", ""), "unit": found.get("unit", "")}
