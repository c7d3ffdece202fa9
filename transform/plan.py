"""How one kind of message is read: by which version of the contract, and which of its fields.

An ordinary contract has one plan. With versions side by side, or a choice by message type, a
message says for itself which plan is its own; a look at that one place decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import msgspec

from transform import exact_reader
from transform.contract import READING, Case, Contract, Field, Where, dotted
from transform.decode import Decoder
from transform.exact_reader import Row
from transform.records import Rejection
from transform.wrapped import Attributes


class Reading(NamedTuple):
    """One row as it was read: its values by the contract's fields, those to be made still None.

    `material` is what makes it what it is, for its digest, `came` are those it came in; `place`
    is its place in a list that was exploded.
    """

    row: Row
    rescued: str | None
    material: bytes
    came: bytes
    place: int = 0


class Unread(NamedTuple):
    """An element of a list that cannot be a row, as it came, and why."""

    body: bytes
    rejection: Rejection


@dataclass(frozen=True, eq=False)
class Plan:
    """One way to read a message: the contract's fields, or those that one case of it has."""

    contract: Contract
    case: Case | None = None

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The contract's fields that this kind of message has."""
        if self.case is None:
            return self.contract.fields
        has = {*self.contract.identity, *self.case.fields}
        return tuple(f for f in self.contract.fields if f.name in has)

    @cached_property
    def message(self) -> Decoder:
        """What reads a message, all of it but the elements of an exploded list."""
        own = [f for f in self.fields if f.in_message and not f.of_reading]
        contract = self.contract
        places = (contract.schema, contract.choose.where if contract.choose else None)
        known = [where for where in places if where is not None and where.path]
        return Decoder.of(
            own,
            contract.unknown,
            contract.device,
            contract.explode,
            known,
            contract.max_body_bytes,
        )

    @cached_property
    def element(self) -> Decoder:
        """What reads an element of the list."""
        own = [f for f in self.fields if f.of_reading]
        return Decoder.of(own, self.contract.unknown, self.contract.device)

    @cached_property
    def attributes(self) -> tuple[tuple[int, Field], ...]:
        """The fields that are attributes of the message, by their place in the row."""
        found = enumerate(self.contract.fields)
        return tuple((place, f) for place, f in found if f.attribute and f in self.fields)

    @cached_property
    def simple(self) -> bool:
        """Whether a message's decoded values are its one row as they are."""
        return (
            self.contract.explode is None
            and not self.attributes
            and self.message.fields == self.contract.fields
        )

    @cached_property
    def _message_places(self) -> list[int]:
        return self._places(self.message)

    @cached_property
    def _element_places(self) -> list[int]:
        return self._places(self.element)

    @cached_property
    def _reading_counts(self) -> bool:
        """Whether something is made of a reading's place, which then is part of what it is."""
        made = (f.expression for f in self.contract.fields if f.expression is not None)
        return any(READING in expression.names for expression in made)

    def _places(self, decoder: Decoder) -> list[int]:
        names = [f.name for f in self.contract.fields]
        return [names.index(f.name) for f in decoder.fields]

    def read(
        self, body: bytes, attributes: Attributes | None
    ) -> Rejection | Iterator[Reading | Unread]:
        """Every row of a message, or why the message as a whole has none.

        An exploded list that is empty gives no rows.
        """
        found = self.message.decode(body)
        if isinstance(found, Rejection):
            return found
        values, rescued = found
        row: Row = [None] * len(self.contract.fields)
        for place, value in zip(self._message_places, values, strict=False):
            row[place] = value
        material = self._with_attributes(row, attributes)
        if isinstance(material, Rejection):
            return material
        explode = self.contract.explode
        if explode is None:
            return iter((Reading(row, rescued, body + material, body),))
        if len(values) == len(self.message.fields):
            detail = f"{dotted(explode.path)} is absent or null"
            return Rejection("check", "missing_field", detail)
        if not values[-1] and explode.empty == "reject":
            return Rejection("check", "no_readings", f"{dotted(explode.path)} is empty")
        return self._exploded(row, rescued, values[-1])

    def _with_attributes(self, row: Row, attributes: Attributes | None) -> bytes | Rejection:
        """Put in what the message's attributes say; returns what they add to its identity."""
        added: list[str | None] = []
        for place, spec in self.attributes:
            text = (attributes or {}).get(spec.attribute)
            value = exact_reader.attribute(text, spec)
            if isinstance(value, Rejection):
                return value
            row[place] = value
            added.append(text)
        return repr(added).encode() if added else b""

    def _exploded(
        self, message: Row, message_rescued: str | None, elements: Sequence[Any]
    ) -> Iterator[Reading | Unread]:
        """A row for each element, which is what it is by its own bytes and what is in the message.

        So a reading that is sent again beside others is the same reading.
        """
        of_message = repr((message, message_rescued)).encode()
        decode = self.element.decode
        for number, element in enumerate(elements):
            came = bytes(element)
            found = decode(came if came.startswith(b"{") else b'{"value":%s}' % came)
            if isinstance(found, Rejection):
                yield Unread(came, found)
                continue
            values, rescued = found
            row = message.copy()
            for place, value in zip(self._element_places, values, strict=True):
                row[place] = value
            of_place = b"#%d" % number if self._reading_counts else b""
            both = _together(message_rescued, rescued)
            yield Reading(row, both, b"\0".join((came, of_place, of_message)), came, number)


def _together(message: str | None, element: str | None) -> str | None:
    """What neither the message's fields nor the reading's claim, as one JSON object."""
    if message is None or element is None:
        return message or element
    return f"{message[:-1]},{element[1:]}"


@dataclass(frozen=True, eq=False)
class Plans:
    """The plans of a contract and of its versions beside it, and which one a message asks for."""

    contract: Contract
    versions: Mapping[int, Contract]
    _schema: Peek | None
    _by_version: Mapping[int, Mapping[str, Plan]]
    _types: Mapping[int, Peek]

    @classmethod
    def of(cls, contract: Contract, older: Sequence[Contract] = ()) -> Plans:
        """The plans of `contract`, which reads all that name no version, and of others of it."""
        versions = {c.version: c for c in (*older, contract)}
        return cls(
            contract=contract,
            versions=versions,
            _schema=Peek.at(contract.schema),
            _by_version={version: _plans(c) for version, c in versions.items()},
            _types={v: Peek.at(c.choose.where) for v, c in versions.items() if c.choose},
        )

    @cached_property
    def only(self) -> Plan | None:
        """The one plan there is, if messages have no choice."""
        plan = self._by_version[self.contract.version].get("")
        return plan if self._schema is None and not self._types else None

    def every(self) -> list[Plan]:
        found = [plan for plans in self._by_version.values() for plan in plans.values()]
        return list(dict.fromkeys(found))

    def choose(self, body: bytes, attributes: Attributes | None) -> Plan | Rejection | None:
        """The plan a message asks for, None where it is of a type that is dropped.

        Where the place says nothing that can be read, the newest version reads the message, and
        says what is wrong with it.
        """
        version = self.contract.version
        if self._schema is not None:
            named = self._schema.look(body, attributes)
            if named is not None:
                found = version_named(named, self.contract.name)
                if found is None or found not in self.versions:
                    known = ", ".join(str(number) for number in sorted(self.versions))
                    detail = f"the message names version {_cut(named)!r}; here are {known}"
                    return Rejection("check", "unknown_schema", detail)
                version = found
        plans = self._by_version[version]
        if version not in self._types:
            return plans[""]
        kind = self._types[version].look(body, attributes)
        if kind is not None and kind in plans:
            return plans[kind]
        choose = self.versions[version].choose
        if choose is not None and choose.otherwise == "drop" and _readable(body):
            return None
        told = "no type" if kind is None else f"type {_cut(kind)!r}"
        broken = plans[next(iter(plans))].message.decode(body) if kind is None else None
        if isinstance(broken, Rejection) and broken.step == "decode":
            return broken
        return Rejection("check", "unknown_type", f"the message names {told}")


@dataclass(frozen=True)
class Peek:
    """A look at one place of a message."""

    where: Where
    _decoder: msgspec.json.Decoder[Any] | None

    @classmethod
    def at(cls, where: Where | None) -> Any:
        if where is None:
            return None
        kind: Any = str | int | bool | None
        for number, key in enumerate(reversed(where.path)):
            kind = msgspec.defstruct(
                f"Peek{number}", [("at", kind | None, None)], rename={"at": str(key)}, gc=False
            )
        return cls(where, msgspec.json.Decoder(kind) if where.path else None)

    def look(self, body: bytes, attributes: Attributes | None) -> str | None:
        """What stands there, as text; None where nothing does, or nothing that can be read."""
        if self._decoder is None:
            return (attributes or {}).get(self.where.attribute)
        try:
            found = self._decoder.decode(body)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None
        for _ in self.where.path:
            found = None if found is None else found.at
        if isinstance(found, bool):
            return "true" if found else "false"
        return None if found is None else str(found)


def version_named(text: str, contract: str) -> int | None:
    """The version in `3`, `v3`, `fleet@3`, `fleet/3` or `fleet:v3`; None where it names none."""
    for mark in "@/:":
        name, found, rest = text.partition(mark)
        if found:
            text = rest if name == contract else ""
    number = text.removeprefix("v")
    return int(number) if number.isascii() and number.isdecimal() and len(number) < 9 else None  # noqa: PLR2004


def _plans(contract: Contract) -> Mapping[str, Plan]:
    """A contract's plans by what a message says of its type; `""` where it need say nothing."""
    if contract.choose is None:
        return {"": Plan(contract)}
    plans = [(case, Plan(contract, case)) for case in contract.choose.cases]
    return {value: plan for case, plan in plans for value in case.values}


def _readable(body: bytes) -> bool:
    """Whether a message is an object in JSON: what is not was not dropped by its type."""
    try:
        msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        body.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _cut(text: str) -> str:
    return (
        text
        if len(text) <= exact_reader.SHOWN_MAX_BYTES
        else text[: exact_reader.SHOWN_MAX_BYTES] + "..."
    )
