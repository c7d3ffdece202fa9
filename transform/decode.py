"""One JSON message at a time into the values of its fields, every failure attributed.

There are two readers. `Decoder.fast` is msgspec's typed decoder, which accepts the ordinary record
in half a microsecond and otherwise says nothing. `Decoder.slow` walks the message key by key and is
the definition: it names step, reason and field, keeps unknown fields, and its verdict stands. The
fast reader may refuse what the slow one accepts, never the other way round (a property test).
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec

from transform import exact_reader
from transform.contract import Explode, Field, Tree, Unknown, Where, tree_of
from transform.exact_reader import Row
from transform.field_types import Value
from transform.records import Rejection
from transform.timestamps import TimestampFormat, parse_json_timestamp
from transform.typed_reader import struct_of
from transform.units import Conversion

NOTHING = (b"", b"null")  # an absent timestamp's text, and a null one's


class _Choice(NamedTuple):
    """The inputs that a field's value may come from, the first that has one; and their units."""

    inputs: tuple[tuple[int, Conversion | None], ...]
    required: bool


@dataclass(frozen=True)
class Decoder:
    """Both readers of some fields of a message. Build once per process: `Decoder.of(fields)`.

    With a `readings` path the row's last value is the list there, each element as its JSON text.
    """

    fields: tuple[Field, ...]
    unknown: Unknown
    max_body_bytes: int
    _inputs: tuple[Field, ...]
    _typed: msgspec.json.Decoder[Any]
    _values: Callable[[Any], tuple[Any, ...]]
    _tree: Tree
    _times: tuple[tuple[int, TimestampFormat, bool], ...]
    _choices: tuple[_Choice, ...]
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
        own = tuple(fields)
        inputs, choices = _inputs(own)
        tree = tree_of((*inputs, *((readings,) if readings else ()), *known))
        struct, reach = struct_of(tree, unknown)
        names = [*(f.name for f in inputs), *((exact_reader.READINGS,) if readings else ())]
        return cls(
            fields=own,
            unknown=unknown,
            max_body_bytes=max_body_bytes,
            _inputs=inputs,
            _typed=msgspec.json.Decoder(struct),
            _values=_getter([reach[name] for name in names]),
            _tree=tree,
            _times=tuple((i, f.format, f.required) for i, f in enumerate(inputs) if f.format),
            _choices=choices,
            _defaults=tuple((i, f.default) for i, f in enumerate(own) if f.default is not None),
            _device=next((i for i, f in enumerate(own) if f.name == device), -1),
        )

    def decode(self, body: bytes) -> tuple[Row, str | None] | Rejection:
        """The row of a message and its `_rescued` JSON, or why there is none."""
        if len(body) > self.max_body_bytes:
            detail = f"{len(body)} bytes; the contract takes {self.max_body_bytes}"
            return Rejection("envelope", "too_large", detail)
        row = self.fast(body)
        return (row, None) if row is not None else self.slow(body)

    def fast(self, body: bytes) -> Row | None:
        """The row of an ordinary message; `None` for every other, whatever is the matter."""
        try:
            row: list[Any] = list(self._values(self._typed.decode(body)))
            for i, form, required in self._times:
                text = bytes(row[i])
                if text in NOTHING:
                    if required:
                        return None
                    row[i] = None
                else:
                    row[i] = parse_json_timestamp(text, form)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None
        if self._choices:
            chosen = self._chosen(row)
            if chosen is None:
                return None
            row = chosen
        for i, default in self._defaults:
            if row[i] is None:
                row[i] = default
        if self._device < 0:
            return row
        device = row[self._device]
        return row if isinstance(device, str) and exact_reader.fits_key(device) else None

    def slow(self, body: bytes) -> tuple[Row, str | None] | Rejection:
        """The row of any message, or its rejection with step, reason and field."""
        found = exact_reader.read(body, self._inputs, self._tree, self.unknown)
        if isinstance(found, Rejection):
            return found
        row, rescued = found
        if self._choices:
            row = self._choose(row)
        wrong = exact_reader.completed(row, self.fields, self._device)
        return wrong or (row, rescued)

    def _chosen(self, row: Row) -> Row | None:
        chosen = self._choose(row)
        required = zip(chosen, self._choices, strict=False)
        return None if any(c.required and v is None for v, c in required) else chosen

    def _choose(self, row: Row) -> Row:
        """The row of the inputs as that of the fields; what is behind the fields stays behind."""
        chosen: Row = []
        for choice in self._choices:
            value = None
            for place, conversion in choice.inputs:
                value = row[place]
                if value is not None:
                    if conversion is not None:
                        value = conversion.one(value)
                    break
            chosen.append(value)
        return chosen + row[len(self._inputs) :]


def _inputs(fields: tuple[Field, ...]) -> tuple[tuple[Field, ...], tuple[_Choice, ...]]:
    """What the readers read: the fields, and another for each alias; choices only if there are any.

    Rules about a value that the message does not hold as such are left to who makes it.
    """
    inputs: list[Field] = []
    choices: list[_Choice] = []
    for spec in fields:
        own = replace(spec, minimum=None, maximum=None) if spec.judged_late else spec
        own = replace(own, allowed=None) if spec.judged_late else own
        converted = any(alias.conversion for alias in spec.aliases)
        places = [(len(inputs), spec.conversion if converted else None)]
        if not spec.aliases:
            inputs.append(own)
        else:
            own = replace(own, required=False, default=None, aliases=())
            inputs.append(own)
            for number, alias in enumerate(spec.aliases):
                conversion = (alias.conversion or spec.conversion) if converted else None
                places.append((len(inputs), conversion))
                inputs.append(replace(own, name=f"{spec.name}/{number}", path=alias.path))
        choices.append(_Choice(tuple(places), spec.required))
    return tuple(inputs), tuple(choices) if len(inputs) > len(fields) else ()


def _getter(ways: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    if not ways:
        return lambda _: ()
    get = operator.attrgetter(*ways)
    return get if len(ways) > 1 else lambda message: (get(message),)
