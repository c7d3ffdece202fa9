"""How one kind of message is read: by which version of the contract, and which of its fields.

An ordinary contract has one plan. With versions side by side, or a choice by message type, there
are several, and `plans` says which is a message's own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import msgspec

from transform import exact_reader
from transform.contract import (
    READING,
    Case,
    Contract,
    Explode,
    Field,
    Path,
    Where,
    dotted,
)
from transform.contract_paths import clash
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
    """One way to read a message: the contract's fields, or those that one case of it has.

    What stands where a `hidden` field of another version or case has its value is kept nowhere.
    """

    contract: Contract
    case: Case | None = None
    hidden: tuple[Field, ...] = ()

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
        listed = [contract.explode] if contract.explode else []
        return Decoder.of(
            own,
            contract.unknown,
            contract.device,
            contract.explode,
            [*known, *self._hidden([*own, *known, *listed], of_reading=False)],
            contract.max_body_bytes,
        )

    @cached_property
    def element(self) -> Decoder:
        """What reads an element of the list."""
        own = [f for f in self.fields if f.of_reading]
        contract = self.contract
        known = self._hidden(own, of_reading=True)
        return Decoder.of(own, contract.unknown, contract.device, known=known)

    def _hidden(self, own: Sequence[Field | Where | Explode], *, of_reading: bool) -> list[Where]:
        """Places of values that nobody shall see, though this plan has no such field."""
        if self.contract.unknown != "rescue":
            return []
        taken: list[Path] = [path for one in own for path in _places_of(one)]
        found: list[Where] = []
        for spec in self.hidden:
            for path in spec.places if spec.of_reading == of_reading else ():
                if not any(clash(path, other) for other in taken):
                    taken.append(path)
                    found.append(Where(path))
        return found

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
        self, body: bytes, attributes: Attributes | None, said: bytes = b"", most: int = sys.maxsize
    ) -> Rejection | Iterator[Reading | Unread]:
        """Every row of a message, or why the message as a whole has none.

        An exploded list that is empty gives no rows, one of more than `most` readings is refused.
        `said` is why this plan reads it.
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
            return iter((Reading(row, rescued, body + material + said, body),))
        readings = values[len(self.message.fields) :]
        wrong = _list_wrong(readings, explode, len(body), most)
        if wrong is not None:
            return wrong
        of_message = repr(_without(body, explode.path)).encode() + material + said
        return self._exploded(row, rescued, of_message, readings[0])

    def _with_attributes(self, row: Row, attributes: Attributes | None) -> bytes | Rejection:
        """Put in what the message's attributes say; returns what they add to its identity."""
        added: dict[str, str] = {}
        for place, spec in self.attributes:
            text = (attributes or {}).get(spec.attribute)
            value = exact_reader.attribute(text, spec)
            if isinstance(value, Rejection):
                return value
            row[place] = value
            if text is not None:
                added[spec.attribute] = text
        return repr(sorted(added.items())).encode() if added else b""

    def _exploded(
        self, message: Row, message_rescued: str | None, of_message: bytes, elements: Sequence[Any]
    ) -> Iterator[Reading | Unread]:
        """A row for each element, which is what it is by its own bytes and what the message says.

        So a reading that is sent again beside others is the same reading, and so is one that is
        read again by a version that knows more fields.
        """
        list_path = dotted(self.contract.explode.path) if self.contract.explode else ""
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
            both = _together(message_rescued, rescued, list_path)
            yield Reading(row, both, b"\0".join((came, of_place, of_message)), came, number)


def _places_of(one: Field | Where | Explode) -> tuple[Path, ...]:
    return one.places if isinstance(one, Field) else (one.path,)


def _list_wrong(
    readings: Sequence[Sequence[bytes]], explode: Explode, size: int, most: int
) -> Rejection | None:
    """Why a message's list, if it has one, does not become rows."""
    path = dotted(explode.path)
    if not readings:
        return Rejection("check", "missing_field", f"{path} is absent or null")
    count = len(readings[0])
    if not count and explode.empty == "reject":
        return Rejection("check", "no_readings", f"{path} is empty")
    if count > most:
        detail = f"{count} readings in {size} bytes; at most {most} are read"
        return Rejection("envelope", "too_many_elements", detail)
    return None


def _without(body: bytes, path: Path) -> list[tuple[str, Any]]:
    """What a message says beside what stands at a path: each member, and its JSON text."""
    key, *rest = path
    if isinstance(key, int):
        members = {str(place): part for place, part in enumerate(_PLACES.decode(body))}
    else:
        members = _MEMBERS.decode(body)
    found: list[tuple[str, Any]] = []
    for name, value in members.items():
        if name != str(key):
            found.append((name, bytes(value)))
        elif rest:
            found.append((name, _without(bytes(value), tuple(rest))))
    return found


_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_PLACES = msgspec.json.Decoder(list[msgspec.Raw])


def _together(message: str | None, element: str | None, list_path: str) -> str | None:
    """What neither the message's fields nor the reading's claim; the reading's under its list."""
    if element is None:
        return message
    own = f"{msgspec.json.encode(list_path).decode()}:{element}"
    return f"{{{own}}}" if message is None else f"{message[:-1]},{own}}}"
