"""A contract as JSON Schema (2020-12): which messages are accepted, as far as it can say that.

It cannot say: bytes of a body or of a device id, an integer that is not written `1.0`, text that
looks like a time and is none (the 31st of February), and anything that depends on arrival.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transform.contract import Contract, Field, Tree, leaves, of_list, tree_of
from transform.exact_reader import DEVICE_ID_MAX_BYTES
from transform.field_types import INT64_MAX, INT64_MIN
from transform.timestamps import DIGITS_MAX

DIALECT = "https://json-schema.org/draft/2020-12/schema"
ISO_PATTERN = (
    r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]"
    r"(:[0-5][0-9]([.,][0-9]+)?)?([Zz]|[+-]([01][0-9]|2[0-3])(:?[0-5][0-9])?)$"
)
EPOCH_PATTERN = r"^-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
TYPES = {"string": "string", "int64": "integer", "float64": "number", "bool": "boolean"}


def json_schema(contract: Contract) -> dict[str, Any]:
    """The schema of one message."""
    return {
        "$schema": DIALECT,
        "title": f"{contract.name} {contract.version}",
        **({"description": contract.description} if contract.description else {}),
        "$comment": f"at most {contract.max_body_bytes} bytes",
        **_object(tree_of(f for f in contract.fields if f.path and not f.of_reading), contract),
    }


def _object(tree: Tree, contract: Contract) -> dict[str, Any]:
    if of_list(tree):
        return _list(tree, contract)
    members = {
        key: _field(branch, contract) if isinstance(branch, Field) else _branch(branch, contract)
        for key, branch in tree.items()
    }
    needed = [key for key, branch in tree.items() if _needed(branch)]
    return {"type": "object", "properties": members, **({"required": needed} if needed else {})}


def _list(tree: Tree, contract: Contract) -> dict[str, Any]:
    places = [tree.get(place, True) for place in range(max(tree) + 1)]
    items = [
        branch is True or (_field if isinstance(branch, Field) else _branch)(branch, contract)
        for branch in places
    ]
    needed = max((place for place in tree if _needed(tree[place])), default=-1) + 1
    return {"type": "array", "prefixItems": items, **({"minItems": needed} if needed else {})}


def _branch(tree: Tree, contract: Contract) -> dict[str, Any]:
    schema = _object(tree, contract)
    return schema if _needed(tree) else schema | {"type": [schema["type"], "null"]}


def _needed(branch: Any) -> bool:
    """Whether a message must have this: a required field, or an object that holds one."""
    return any(
        leaf.required for leaf in ([branch] if isinstance(branch, Field) else leaves(branch))
    )


def _field(field: Field, contract: Contract) -> dict[str, Any]:
    schema = dict(_time(field) if field.format else _value(field))
    if field.name == contract.device:
        schema |= {"minLength": 1, "maxLength": DEVICE_ID_MAX_BYTES}
    if not field.required:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        schema["type"] = [*kinds, "null"]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
    about = ". ".join(filter(None, (field.description, f"Unit: {field.unit}" * bool(field.unit))))
    return schema | ({"description": about} if about else {})


def _value(field: Field) -> Mapping[str, Any]:
    whole = field.type == "int64"
    low = INT64_MIN if whole and field.minimum is None else field.minimum
    high = INT64_MAX if whole and field.maximum is None else field.maximum
    given = {
        "enum": None if field.allowed is None else list(field.allowed),
        "minimum": low,
        "maximum": high,
        "default": field.default,
    }
    return {"type": TYPES[field.type], **{k: v for k, v in given.items() if v is not None}}


def _time(field: Field) -> Mapping[str, Any]:
    if field.format == "iso8601":
        return {"type": "string", "pattern": ISO_PATTERN}
    return {"type": ["number", "string"], "pattern": EPOCH_PATTERN, "maxLength": DIGITS_MAX}
