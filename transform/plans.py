"""Which plan reads a message: by the version and the type that it names.

A message says for itself which plan is its own; a look at that one place decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from transform import exact_reader, readable
from transform.contract import Contract, Field, Where
from transform.plan import Plan
from transform.records import Rejection
from transform.wrapped import Attributes


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
        every = versions.values()
        hidden = tuple(f for c in every for f in c.fields if f.privacy)
        return cls(
            contract=contract,
            versions=versions,
            _schema=Peek.at(contract.schema, hidden),
            _by_version={c.version: _plans(c, hidden) for c in every},
            _types={c.version: Peek.at(c.choose.where, hidden) for c in every if c.choose},
        )

    @cached_property
    def only(self) -> Plan | None:
        """The one plan there is, if messages have no choice."""
        plan = self._by_version[self.contract.version].get("")
        return plan if self._schema is None and not self._types else None

    def every(self) -> list[Plan]:
        found = [plan for plans in self._by_version.values() for plan in plans.values()]
        return list(dict.fromkeys(found))

    def choose(
        self, body: bytes, attributes: Attributes | None
    ) -> tuple[Plan, bytes] | Rejection | None:
        """The plan a message asks for, None where it is of a type that is dropped.

        Where the place says nothing that can be read, the newest version reads the message, and
        says what is wrong with it. Beside the plan is what was said, as a part of what a row is:
        nothing where the row's own bytes say it.
        """
        version, said = self.contract.version, b""
        if self._schema is not None:
            named = self._schema.look(body, attributes)
            if named is not None:
                found = version_named(named, self.contract.name)
                if found is None or found not in self.versions:
                    known = ", ".join(str(number) for number in sorted(self.versions))
                    told = self._schema.told(named)
                    detail = f"the message names version {told}; here are {known}"
                    return Rejection("check", "unknown_schema", detail)
                version = found
                said = b"@%d" % version if self._schema.where.attribute else b""
        plans = self._by_version[version]
        peek = self._types.get(version)
        if peek is None:
            return plans[""], said
        kind = peek.look(body, attributes)
        if kind is not None and kind in plans:
            return plans[kind], said + (b"=" + repr(kind).encode() if peek.where.attribute else b"")
        wrong = readable.unreadable(body)
        if wrong is not None:
            return wrong
        choose = self.versions[version].choose
        if choose is not None and choose.otherwise == "drop":
            return None
        told = "no type" if kind is None else f"type {peek.told(kind)}"
        return Rejection("check", "unknown_type", f"the message names {told}")


@dataclass(frozen=True)
class Peek:
    """A look at one place of a message.

    `hidden` says that a field whose values nobody shall see is there too.
    """

    where: Where
    hidden: bool
    _decoder: msgspec.json.Decoder[Any] | None

    @classmethod
    def at(cls, where: Where | None, hidden: Sequence[Field]) -> Any:
        """A look at this place, None for nowhere."""
        if where is None:
            return None
        kind: Any = str | int | bool | None
        for number, key in enumerate(reversed(where.path)):
            kind = msgspec.defstruct(
                f"Peek{number}", [("at", kind | None, None)], rename={"at": str(key)}, gc=False
            )
        return cls(
            where=where,
            hidden=any(_beside(where, f) for f in hidden),
            _decoder=msgspec.json.Decoder(kind) if where.path else None,
        )

    def look(self, body: bytes, attributes: Attributes | None) -> str | None:
        """What stands there, as text; None where nothing does, or nothing that can be read."""
        if self._decoder is None:
            return (attributes or {}).get(self.where.attribute)
        try:
            found = self._decoder.decode(body)
            for _ in self.where.path:
                found = None if found is None else found.at
        except (msgspec.DecodeError, ValueError, RecursionError):
            found = self._slowly(body)
        if isinstance(found, bool):
            return "true" if found else "false"
        return None if found is None else str(found)

    def _slowly(self, body: bytes) -> Any:
        """The same of any message: of a key that is there twice, the last value counts."""
        try:
            found: Any = msgspec.Raw(body)
            for key in self.where.path:
                found = msgspec.json.decode(found, type=dict[str, msgspec.Raw])[str(key)]
            return msgspec.json.decode(found, type=str | int | bool | None)
        except (msgspec.DecodeError, ValueError, KeyError, RecursionError):
            return None

    def told(self, text: str) -> str:
        """What a message said there, as a detail tells it."""
        if self.hidden:
            return exact_reader.HIDDEN
        most = exact_reader.SHOWN_MAX_BYTES
        return repr(text if len(text) <= most else text[:most] + "...")


def _beside(where: Where, spec: Field) -> bool:
    """Whether a field is at a place, or in it, or around it."""
    if where.attribute:
        return where.attribute == spec.attribute
    pairs = ((path, where.path) for path in spec.places if not spec.of_reading)
    return any(a[: len(b)] == b[: len(a)] for a, b in pairs)


def version_named(text: str, contract: str) -> int | None:
    """The version in `3`, `v3`, `fleet@3`, `fleet/3` or `fleet:v3`; None where it names none."""
    for mark in "@/:":
        name, found, rest = text.partition(mark)
        if found:
            text = rest if name == contract else ""
    number = text.removeprefix("v")
    return int(number) if number.isascii() and number.isdecimal() and len(number) < 9 else None  # noqa: PLR2004


def _plans(contract: Contract, hidden: tuple[Field, ...]) -> Mapping[str, Plan]:
    """A contract's plans by what a message says of its type; `""` where it need say nothing."""
    if contract.choose is None:
        return {"": Plan(contract, None, hidden)}
    plans = [(case, Plan(contract, case, hidden)) for case in contract.choose.cases]
    return {value: plan for case, plan in plans for value in case.values}
