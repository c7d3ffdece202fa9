"""Contracts: what a stream's records look like.

Everything that must agree about a record comes from its contract: the decoder, the landing object's
Arrow schema, the DynamoDB attributes, the generator's devices. `contract_file` reads them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import pyarrow as pa

from transform.records import ROW_FIELDS, UTC_MICROS
from transform.timestamps import TimestampFormat

FieldType = Literal["string", "int64", "float64", "bool", "timestamp"]
Value = str | int | float | bool

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

ARROW_TYPES: Mapping[FieldType, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": UTC_MICROS,
}


@dataclass(frozen=True)
class Field:
    """One field of a contract.

    `path` leads to it in the JSON. `default` is in its own type (a timestamp's in microseconds),
    `None` where it has none.
    """

    name: str
    path: tuple[str, ...]
    type: FieldType
    format: TimestampFormat | None = None
    required: bool = False
    default: Value | None = None
    minimum: int | float | None = None
    maximum: int | float | None = None
    allowed: tuple[Value, ...] | None = None
    description: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Example:
    """A message, and what must become of it: one of `expect` and below is given.

    `arrival` is in microseconds. `expect` holds some values of its (first) row by column, `rows` is
    how many rows it comes to, or -1; `field` is to blame for `rejected`; `dropped` names the rule.
    """

    name: str
    message: bytes
    arrival: int | None
    attributes: Mapping[str, str]
    expect: Mapping[str, Any] | None
    rejected: str | None
    field: str | None
    dropped: str | None
    rows: int


@dataclass(frozen=True)
class Contract:
    """What a stream's records look like.

    `record_id` names the fields that make two records the same, device id and event time first;
    empty means positional identity: every record of the source is its own. `source` is the file
    itself: its digest, the code's version and the epoch make a generation.
    """

    name: str
    version: int
    description: str
    fields: tuple[Field, ...]
    device: str
    event_time: str
    record_id: tuple[str, ...]
    max_body_bytes: int
    max_future_seconds: int
    hot_ttl_seconds: int | None
    source: bytes
    examples: tuple[Example, ...] = ()

    @property
    def digest(self) -> str:
        return hashlib.blake2b(self.source, digest_size=8).hexdigest()

    def field(self, name: str) -> Field:
        return next(field for field in self.fields if field.name == name)

    def landing_schema(self) -> pa.Schema:
        """The declared schema of landing objects: never inferred, the same for every object."""
        own = [
            pa.field(
                f.name,
                ARROW_TYPES[f.type],
                nullable=not f.required and f.default is None,
                metadata={"description": f.description, "unit": f.unit},
            )
            for f in self.fields
        ]
        return pa.schema([*own, pa.field("_rescued", pa.string()), *ROW_FIELDS])

    def tree(self) -> Tree:
        """The fields by their paths, as nested mappings with a `Field` at each leaf."""
        tree: dict[str, Any] = {}
        for spec in self.fields:
            branch = tree
            for key in spec.path[:-1]:
                branch = branch.setdefault(key, {})
            branch[spec.path[-1]] = spec
        return tree


Tree: TypeAlias = Mapping[str, Any]
"""Paths of a contract: a `Field` at each leaf, a `Tree` at each branch."""


def leaves(tree: Tree) -> list[Field]:
    """Every field below, in the order of the contract's paths."""
    found: list[Field] = []
    for branch in tree.values():
        found.extend([branch] if isinstance(branch, Field) else leaves(branch))
    return found
