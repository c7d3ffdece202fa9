"""A contract as JSON Schema (2020-12): which messages are accepted whole, as far as that goes.

It cannot say: bytes of a body or of a device id, that an integer is not written `1.0`, text that
looks like a time and is none (the 31st of February), what depends on arrival, on attributes or on
another version, and what is judged only once it is converted, looked up or derived.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from transform.contract import (
    Case,
    Contract,
    Explode,
    Field,
    Path,
    Tree,
    Where,
    leaves,
    of_list,
    tree_of,
)
from transform.exact_reader import DEVICE_ID_MAX_BYTES
from transform.field_types import INT64_MAX, INT64_MIN
from transform.plan import Plan
from transform.timestamps import DIGITS_MAX, EARLIEST, LATEST

DIALECT = "https://json-schema.org/draft/2020-12/schema"
ISO_PATTERN = (
    r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]"
    r"(:[0-5][0-9]([.,][0-9]+)?)?([Zz]|[+-]([01][0-9]|2[0-3])(:?[0-5][0-9])?)$"
)
EPOCH_MICROS = {"epoch_seconds": 1_000_000, "epoch_millis": 1_000}
EPOCH_PATTERN = r"^-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
TYPES = {"string": "string", "int64": "integer", "float64": "number", "bool": "boolean"}
BARE = ("value",)  # where a reading stands that is no object

Schema = dict[str, Any]


def json_schema(contract: Contract) -> Schema:
    """The schema of one message."""
    cases = contract.choose.cases if contract.choose else (None,)
    kinds = [_kind(Plan(contract, case)) for case in cases]
    return {
        "$schema": DIALECT,
        "title": f"{contract.name} {contract.version}",
        **({"description": contract.description} if contract.description else {}),
        "$comment": f"at most {contract.max_body_bytes} bytes",
        **(kinds[0] if len(kinds) == 1 else {"anyOf": kinds}),
    }


def _kind(plan: Plan) -> Schema:
    """Messages of one type."""
    contract = plan.contract
    own = [f for f in plan.fields if f.in_message and not f.of_reading]
    choose = contract.choose.where if contract.choose else None
    known = [where for where in (contract.schema, choose) if where is not None and where.path]
    listed = [contract.explode] if contract.explode else []
    schema = _Writer(plan).object(tree_of((*_places(own), *listed, *known)))
    more = [*_one_of_its_places(own), *_says_its_type(choose, plan.case)]
    return schema | ({"allOf": more} if more else {})


def _places(fields: Iterable[Field]) -> Iterator[Field]:
    """Each field at each of its places, with the rules that are about what the message holds."""
    for field in fields:
        here = field
        if field.judged_late:
            here = replace(field, minimum=None, maximum=None, allowed=None)
        if field.aliases:
            here = replace(here, required=False, default=None)
        yield here
        for alias in field.aliases:
            yield replace(here, path=alias.path)


def _one_of_its_places(fields: Iterable[Field]) -> Iterator[Schema]:
    """A required field with aliases is at one of its paths."""
    for field in fields:
        if field.required and field.aliases:
            paths = (field.path, *(alias.path for alias in field.aliases))
            yield {"anyOf": [_at(path, {"not": {"type": "null"}}) for path in paths]}


def _says_its_type(where: Where | None, case: Case | None) -> Iterator[Schema]:
    if where is not None and where.path and case is not None:
        written: list[Any] = list(case.values)
        written += [int(v) for v in case.values if v.isdecimal() and str(int(v)) == v]
        written += [v == "true" for v in case.values if v in {"true", "false"}]
        yield _at(where.path, {"enum": written})


def _at(path: Path, schema: Schema) -> Schema:
    """What says that there is something at a path, and what."""
    for key in reversed(path):
        if isinstance(key, int):
            items = [*[True] * key, schema]
            schema = {"type": "array", "minItems": key + 1, "prefixItems": items}
        else:
            schema = {"type": "object", "required": [key], "properties": {key: schema}}
    return schema


class _Writer:
    """The schemas of one plan's objects, lists and fields."""

    def __init__(self, plan: Plan) -> None:
        self.contract, self.fields = plan.contract, plan.fields

    def object(self, tree: Tree) -> Schema:
        if of_list(tree):
            return self._places_of(tree)
        needed = [key for key, branch in tree.items() if _needed(branch)]
        return {
            "type": "object",
            "properties": {key: self._branch(branch) for key, branch in tree.items()},
            **({"required": needed} if needed else {}),
            **({"additionalProperties": False} if self.contract.unknown == "reject" else {}),
        }

    def _branch(self, branch: Any) -> Schema:
        if isinstance(branch, Field):
            return self._field(branch)
        if isinstance(branch, Explode):
            return self._list(branch)
        if isinstance(branch, Where):
            return {}
        schema = self.object(branch)
        return schema if _needed(branch) else schema | {"type": [schema["type"], "null"]}

    def _places_of(self, tree: Tree) -> Schema:
        """A list whose places are fields; elsewhere in it is what the contract does not name."""
        other = {"type": "null"} if self.contract.unknown == "reject" else True
        needed = [place + 1 for place in tree if _needed(tree[place])]
        return {
            "type": "array",
            "prefixItems": [
                self._branch(tree[place]) if place in tree else other
                for place in range(max(tree) + 1)
            ],
            "items": other,
            **({"minItems": max(needed)} if needed else {}),
        }

    def _list(self, explode: Explode) -> Schema:
        """The list whose elements become rows; one that is no object stands for its `value`."""
        own = [field for field in self.fields if field.of_reading]
        element = self.object(tree_of(_places(own)))
        more = list(_one_of_its_places(own))
        element |= {"allOf": more} if more else {}
        items = {"anyOf": [element, *self._bare(element)]}
        least = {"minItems": 1} if explode.empty == "reject" else {}
        return {"type": "array", "items": items, **least}

    def _bare(self, element: Schema) -> Iterator[Schema]:
        named = element["properties"].get(*BARE)
        if set(element.get("required", ())) <= set(BARE) and "allOf" not in element:
            if named is not None:
                yield named
            elif self.contract.unknown != "reject":
                yield {"not": {"type": "object"}}

    def _field(self, field: Field) -> Schema:
        schema = dict(_time(field) if field.format else _value(field))
        if field.name == self.contract.device and field.required:
            schema |= {"minLength": 1, "maxLength": DEVICE_ID_MAX_BYTES}
        if not field.required:
            kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            schema["type"] = [*kinds, "null"]
            if "enum" in schema:
                schema["enum"] = [*schema["enum"], None]
        return schema | _about(field)


def _needed(branch: Any) -> bool:
    """Whether a message must have this: a required field, the list, or an object with one."""
    if isinstance(branch, (Field, Where)):
        return isinstance(branch, Field) and branch.required
    if isinstance(branch, Explode):
        return True
    lists = any(isinstance(inner, Explode) for inner in branch.values())
    deeper = any(_needed(inner) for inner in branch.values() if isinstance(inner, Mapping))
    return lists or deeper or any(leaf.required for leaf in leaves(branch))


def _about(field: Field) -> Schema:
    unit = f"{'Converted to' if field.conversion else 'Unit:'} {field.unit}" if field.unit else ""
    told = ". ".join(filter(None, (field.description, unit)))
    return {"description": told} if told else {}


def _value(field: Field) -> Mapping[str, Any]:
    whole = field.type == "int64"
    given = {
        "enum": None if field.allowed is None else list(field.allowed),
        "minimum": INT64_MIN if whole and field.minimum is None else field.minimum,
        "maximum": INT64_MAX if whole and field.maximum is None else field.maximum,
        "default": field.default,
    }
    return {"type": TYPES[field.type], **{k: v for k, v in given.items() if v is not None}}


def _time(field: Field) -> Mapping[str, Any]:
    if field.format == "iso8601":
        return {"type": "string", "pattern": ISO_PATTERN}
    unit = EPOCH_MICROS[field.format or ""]
    return {
        "type": ["number", "string"],
        "pattern": EPOCH_PATTERN,
        "maxLength": DIGITS_MAX,
        "minimum": EARLIEST / unit,
        "maximum": LATEST / unit,
    }
