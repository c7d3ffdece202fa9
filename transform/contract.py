"""Contracts: what a stream's records look like, and what is to be made of them.

Everything that must agree about a record comes from its contract: the decoder, the landing object's
Arrow schema, the DynamoDB attributes, the generator's devices. `contract_file` reads them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

import pyarrow as pa

from transform.envelope import Envelope
from transform.expression import Expression
from transform.field_types import ARROW_TYPES, FieldType, Value
from transform.records import ROW_FIELDS
from transform.timestamps import TimestampFormat
from transform.units import Conversion

Path: TypeAlias = tuple[str | int, ...]
"""Where something is in a message: the keys of objects, and places in lists, from 0."""

Privacy = Literal["", "redact", "hash"]
Unknown = Literal["rescue", "drop", "reject"]
HotLayout = Literal["reading", "latest"]
"""What the hot table has an item of: each reading, or each device, which is its newest reading."""

ARRIVAL = "_arrival"  # a name of expressions: when the source had the record
READING = "_reading"  # ... and the row's place in an exploded list, 0 without one
EXPRESSION_NAMES: Mapping[str, FieldType] = {ARRIVAL: "timestamp", READING: "int64"}

ROW_MARKS = [
    pa.field("_rescued", pa.string()),
    pa.field("_skew", pa.int64()),  # microseconds from event time to arrival; negative: ahead
    pa.field("_late", pa.bool_()),  # whether that is over the contract's largest lateness
    pa.field("_schema", pa.int32()),  # version of the contract that read the record
]
"""What a landing row says of itself, between the contract's fields and its lineage."""


@dataclass(frozen=True)
class Alias:
    """Another place where a field's value may be, from older firmware, and its unit there."""

    path: Path
    conversion: Conversion | None = None


@dataclass(frozen=True)
class Field:
    """One field of a contract: a column, and where its value comes from.

    It is one of: in the message, at `path` or else at the first of `aliases` that has it; one of
    the message's attributes, `attribute`; made of other fields, `expression`; or found in a lookup
    by another field, `lookup` and `column`. `default` is in its own type (a timestamp's in
    microseconds), `None` where it has none. `conversion` leads from the message's unit to `unit`.
    """

    name: str
    path: Path
    type: FieldType
    format: TimestampFormat | None = None
    required: bool = False
    default: Value | None = None
    minimum: int | float | None = None
    maximum: int | float | None = None
    allowed: tuple[Value, ...] | None = None
    description: str = ""
    unit: str = ""
    aliases: tuple[Alias, ...] = ()
    conversion: Conversion | None = None
    attribute: str = ""
    expression: Expression | None = None
    lookup: str = ""
    column: str = ""
    of_reading: bool = False
    privacy: Privacy = ""

    @property
    def in_message(self) -> bool:
        return bool(self.path)

    @property
    def places(self) -> tuple[Path, ...]:
        """Every path where its value may be."""
        return (self.path, *(alias.path for alias in self.aliases)) if self.path else ()

    @property
    def made(self) -> bool:
        """Whether its value is made of other columns, after the message was read."""
        return self.expression is not None or bool(self.lookup)

    @property
    def mixed(self) -> bool:
        """Whether its places hold different units, so that values are converted one by one."""
        return any(alias.conversion for alias in self.aliases)

    @property
    def judged_late(self) -> bool:
        """Whether its rules are about a value that the message does not hold as such."""
        return self.made or self.conversion is not None or self.mixed


@dataclass(frozen=True)
class Filter:
    """A rule that drops rows: those for which `expression` is not true, or with `drop` is true."""

    name: str
    expression: Expression
    drop: bool


@dataclass(frozen=True)
class Explode:
    """A list in the message, each element of which becomes a row.

    A message whose list is empty is dropped by the rule `explode`, or rejected.
    """

    path: Path
    empty: Literal["drop", "reject"] = "reject"


@dataclass(frozen=True)
class Where:
    """A place that says something of a whole message: a path in it, or one of its attributes."""

    path: Path = ()
    attribute: str = ""


@dataclass(frozen=True)
class Case:
    """One type of message: the values that say so, and the fields it has beside identity's."""

    values: tuple[str, ...]
    fields: tuple[str, ...]


@dataclass(frozen=True)
class Choose:
    """Which fields a message has, by what it says of its type. Another type goes `otherwise`."""

    where: Where
    cases: tuple[Case, ...]
    otherwise: Literal["drop", "reject"] = "reject"


@dataclass(frozen=True)
class Lookup:
    """A table beside the contract, by which fields are found: the row whose `key` is field `on`.

    `digest` is of its bytes (SHA-256), which are part of the rules. `table` and `data` are None in
    a contract that was read for its columns alone.
    """

    name: str
    file: str
    on: str
    key: str
    digest: str
    table: pa.Table | None = field(default=None, repr=False, compare=False)
    data: bytes | None = field(default=None, repr=False, compare=False)


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
    empty means positional identity: every record of the source is its own. `sequence` counts a
    device's messages and `boot` tells its counts apart, each empty where there is none. `source` is
    the file itself, with the digests of its lookups: its own digest, the code's version and the
    epoch make a generation.
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
    max_lateness_seconds: int | None = None
    unknown: Unknown = "rescue"
    envelope: Envelope = Envelope()  # noqa: RUF009  frozen
    schema: Where | None = None
    choose: Choose | None = None
    explode: Explode | None = None
    lookups: tuple[Lookup, ...] = ()
    filters: tuple[Filter, ...] = ()
    sample: float | None = None
    hot_when: Expression | None = None
    hot_fields: tuple[str, ...] | None = None
    hot_layout: HotLayout = "reading"
    sequence: str = ""
    boot: str = ""
    examples: tuple[Example, ...] = ()

    @cached_property
    def digest(self) -> str:
        return hashlib.blake2b(self.source, digest_size=8).hexdigest()

    @property
    def identity(self) -> tuple[str, ...]:
        """The fields that every record has, whatever else it is."""
        return tuple(dict.fromkeys((self.device, self.event_time, *self.record_id)))

    @cached_property
    def hot_columns(self) -> tuple[Field, ...]:
        """The fields that hot items keep; identity is always among them."""
        if self.hot_fields is None:
            return self.fields
        kept = {*self.hot_fields, *self.identity}
        return tuple(f for f in self.fields if f.name in kept)

    @property
    def latest(self) -> bool:
        """Whether the hot table has one item a device: its newest reading."""
        return self.hot_layout == "latest"

    def field(self, name: str) -> Field:
        return next(field for field in self.fields if field.name == name)

    def types(self) -> dict[str, FieldType]:
        """What expressions over whole rows can name."""
        return {**{f.name: f.type for f in self.fields}, **EXPRESSION_NAMES}

    def landing_schema(self) -> pa.Schema:
        """The declared schema of landing objects: never inferred, the same for every object."""
        own = [
            pa.field(
                f.name,
                ARROW_TYPES[f.type],
                nullable=not self.always(f),
                metadata={k: v for k, v in (("description", f.description), ("unit", f.unit)) if v},
            )
            for f in self.fields
        ]
        return pa.schema([*own, *ROW_MARKS, *ROW_FIELDS])

    def always(self, field: Field) -> bool:
        """Whether every row has a value of this field."""
        if field.privacy == "redact":
            return False
        cases = self.choose.cases if self.choose else ()
        everywhere = field.name in self.identity or all(field.name in c.fields for c in cases)
        return everywhere and (field.required or field.default is not None)


Tree: TypeAlias = Mapping[Any, Any]
"""Paths of a contract: a `Tree` at each branch, whose keys are texts or, of a list, places; at each
leaf a `Field`, the `Explode` of the list that will be exploded, or a `Where` that is known but kept
nowhere."""


def tree_of(leaves_: Iterable[Field | Explode | Where]) -> Tree:
    """Leaves by their paths, as nested mappings. The first at a path, or on its way, stays."""
    tree: dict[Any, Any] = {}
    for leaf in leaves_:
        branch: Any = tree
        for key in leaf.path[:-1]:
            branch = branch.setdefault(key, {})
            if not isinstance(branch, dict):
                break
        else:
            branch.setdefault(leaf.path[-1], leaf)
    return tree


def of_list(tree: Tree) -> bool:
    """Whether a branch of a tree is a list, not an object."""
    return any(isinstance(key, int) for key in tree)


def dotted(path: Path) -> str:
    """A path for people: `rx_metadata.0.rssi`."""
    return ".".join(map(str, path))


def leaves(tree: Tree) -> list[Field]:
    """Every field below, in the order of the contract's paths."""
    found: list[Field] = []
    for branch in tree.values():
        if isinstance(branch, Field):
            found.append(branch)
        elif isinstance(branch, Mapping):
            found.extend(leaves(branch))
    return found
