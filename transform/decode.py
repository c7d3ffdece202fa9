"""One JSON message at a time into the values of its fields, every failure attributed.

There are two readers. `Decoder.fast` is msgspec's typed decoder, which accepts the ordinary record
in half a microsecond and otherwise says nothing. `Decoder.slow` walks the message key by key and is
the definition: it names step, reason and field, keeps unknown fields, and its verdict stands. The
fast reader may refuse what the slow one accepts, never the other way round (a property test).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec

from transform import exact_reader, readable
from transform.contract import Explode, Field, Tree, Unknown, Where, tree_of
from transform.exact_reader import Row
from transform.field_types import Value
from transform.records import Rejection
from transform.timestamps import Reader, TimestampFormat, read_each, reader_of
from transform.typed_reader import struct_of
from transform.units import Conversion


class _Alias(NamedTuple):
    """An input that stands in for a field which its own path, and aliases before it, leave null."""

    place: int
    field: int
    conversion: Conversion | None


@dataclass(frozen=True)
class Decoder:
    """Both readers of some fields of a message. Build once per process: `Decoder.of(fields)`.

    With a `readings` path the row's last value is the list there, each element as its JSON text. A
    value in another unit than the contract's is not converted here, and has no default yet, unless
    its aliases have other units again.
    """

    fields: tuple[Field, ...]
    unknown: Unknown
    max_body_bytes: int
    _completed: tuple[Field, ...]
    _inputs: tuple[Field, ...]
    _typed: Callable[[bytes], Any]
    _values: Callable[[Any], Row]
    _tree: Tree
    _skips: bool
    _open: bool
    _times: tuple[tuple[int, TimestampFormat, Reader], ...]
    _mixed: tuple[tuple[int, Conversion], ...]
    _aliases: tuple[_Alias, ...]
    _needed: tuple[int, ...]
    _defaults: tuple[tuple[int, Value], ...]
    _device: int

    @classmethod
    def of(  # noqa: PLR0913, PLR0917  what a contract says of its messages
        cls,
        fields: Iterable[Field],
        unknown: Unknown = "rescue",
        device: str = "",
        readings: Explode | None = None,
        known: Iterable[Where] = (),
        max_body_bytes: int = sys.maxsize,
    ) -> Decoder:
        """Readers of the fields that are in the message; `device` may be among them.

        What stands at a `known` place is not kept, and is not unknown.
        """
        asked = tuple(fields)
        own = tuple(replace(f, default=None) if f.conversion and not f.mixed else f for f in asked)
        inputs, aliases = _inputs(own)
        tree = tree_of((*inputs, *((readings,) if readings else ()), *known))
        struct, reach = struct_of(tree, unknown)
        skips = unknown == "drop" or _has_more(tree)
        names = [*(f.name for f in inputs), *((exact_reader.READINGS,) if readings else ())]
        return cls(
            fields=asked,
            unknown=unknown,
            max_body_bytes=max_body_bytes,
            _completed=own,
            _inputs=inputs,
            _typed=msgspec.json.Decoder(struct).decode,
            _values=_getter(reach[name] for name in names),
            _tree=tree,
            _skips=skips,
            _open=skips or bool(aliases),
            _times=tuple(
                (i, f.format, reader_of(f.format, required=f.required))
                for i, f in enumerate(inputs)
                if f.format
            ),
            _mixed=tuple((i, f.conversion) for i, f in enumerate(own) if f.mixed and f.conversion),
            _aliases=aliases,
            _needed=tuple(i for i, f in enumerate(own) if f.aliases and f.required),
            _defaults=tuple((i, f.default) for i, f in enumerate(own) if f.default is not None),
            _device=next((i for i, f in enumerate(own) if f.name == device), -1),
        )

    def decode(self, body: bytes) -> tuple[Row, str | None] | Rejection:
        """The row of a message and its `_rescued` JSON, or why there is none."""
        row = self.fast(body) if len(body) <= self.max_body_bytes else None
        return (row, None) if row is not None else self.odd(body)

    def odd(self, body: bytes) -> tuple[Row, str | None] | Rejection:
        """`decode` of a message that is too large, or that the fast reader has refused."""
        if len(body) > self.max_body_bytes:
            detail = f"{len(body)} bytes; the contract takes {self.max_body_bytes}"
            return Rejection("envelope", "too_large", detail)
        return self.slow(body)

    def fast(self, body: bytes) -> Row | None:
        """The row of an ordinary message; `None` for every other, whatever is the matter."""
        try:
            row: Row = self._values(self._typed(body))
            for i, _, read in self._times:
                row[i] = read(bytes(row[i]))
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None
        if self._open:
            settled = self._settled(row, body)
            if settled is None:
                return None
            row = settled
        for i, default in self._defaults:
            if row[i] is None:
                row[i] = default
        if self._device < 0:
            return row
        device = row[self._device]
        if not isinstance(device, str):
            return None
        ordinary = 0 < len(device) <= exact_reader.SURE_CHARACTERS
        return row if ordinary or exact_reader.fits_key(device) else None

    def fast_each(self, bodies: Sequence[bytes]) -> list[Row | None]:
        """`fast` of each that is not too large."""
        most = self.max_body_bytes
        together = self._together(bodies)
        if together is not None:
            return [*together]
        return [None if len(body) > most else self.fast(body) for body in bodies]

    def _together(self, bodies: Sequence[bytes]) -> list[Row] | None:
        """The same a step at a time for all, which takes a quarter less; None says nothing."""
        if self._open or not bodies or max(map(len, bodies)) > self.max_body_bytes:
            return None
        try:
            rows: list[Row] = list(map(self._values, map(self._typed, bodies)))
            for i, form, read in self._times:
                moments = read_each([bytes(row[i]) for row in rows], form, read)
                for row, moment in zip(rows, moments, strict=True):
                    row[i] = moment
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None
        for i, default in self._defaults:
            for row in rows:
                if row[i] is None:
                    row[i] = default
        if self._device < 0:
            return rows
        devices = [row[self._device] for row in rows]
        sizes = {*map(len, devices)} if {*map(type, devices)} == {str} else {0}
        return rows if 0 < min(sizes) <= max(sizes) <= exact_reader.SURE_CHARACTERS else None

    def _settled(self, row: Row, body: bytes) -> Row | None:
        """The row with what the typed decoder leaves open, None where it is not ordinary."""
        if self._skips and not readable.is_json(body):
            return None
        row = self._merged(row) if self._aliases else row
        return None if any(row[place] is None for place in self._needed) else row

    def slow(self, body: bytes) -> tuple[Row, str | None] | Rejection:
        """The row of any message, or its rejection with step, reason and field."""
        found = exact_reader.read(body, self._inputs, self._tree, self.unknown)
        if isinstance(found, Rejection):
            return found
        row, rescued = found
        if self._aliases:
            row = self._merged(row)
        wrong = exact_reader.completed(row, self._completed, self._device)
        return wrong or (row, rescued)

    def _merged(self, row: Row) -> Row:
        """The row of the inputs as that of the fields; what is behind the inputs stays behind."""
        first, end = len(self.fields), len(self._inputs)
        for place, own in self._mixed:
            if row[place] is not None:
                row[place] = own.one(row[place])
        others = row[first:end]
        if others.count(None) < len(others):
            for place, field, conversion in self._aliases:
                value = row[place]
                if value is not None and row[field] is None:
                    row[field] = value if conversion is None else conversion.one(value)
        return row[:first] + row[end:]


def _inputs(fields: tuple[Field, ...]) -> tuple[tuple[Field, ...], tuple[_Alias, ...]]:
    """What the readers read: the fields in their order, and behind them another for each alias.

    Rules about a value that the message does not hold as such are left to who makes it.
    """
    inputs = [_input(spec) for spec in fields]
    aliases: list[_Alias] = []
    for number, spec in enumerate(fields):
        for count, alias in enumerate(spec.aliases, 1):
            conversion = (alias.conversion or spec.conversion) if spec.mixed else None
            aliases.append(_Alias(len(inputs), number, conversion))
            name = f"{spec.name}/{count}"
            inputs.append(replace(inputs[number], name=name, path=alias.path))
    return tuple(inputs), tuple(aliases)


def _input(spec: Field) -> Field:
    if spec.judged_late:
        spec = replace(spec, minimum=None, maximum=None, allowed=None)
    return replace(spec, required=False, default=None, aliases=()) if spec.aliases else spec


def _has_more(tree: Tree) -> bool:
    """Whether the typed decoder would take a value as it is, and not look into it."""
    branches = tree.values()
    return any(
        isinstance(b, (Where, Explode)) or (isinstance(b, Mapping) and _has_more(b))
        for b in branches
    )


def _getter(ways: Iterable[str]) -> Callable[[Any], Row]:
    """What takes a message's values at some ways through it, as a new row.

    Compiled, it takes a third of an attrgetter's time; the ways are made of `struct_of`'s names.
    """
    values = ", ".join(f"message.{way}" for way in ways)
    return eval(f"lambda message: [{values}]", {})  # type: ignore[no-any-return]  # noqa: S307
