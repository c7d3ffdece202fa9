"""One JSON message at a time into a contract's row, every failure attributed.

There are two readers. `Decoder.fast` is msgspec's typed decoder, which accepts the ordinary record
in half a microsecond and otherwise says nothing. `Decoder.slow` walks the message key by key and is
the definition: it names step, reason and field, keeps unknown fields, and its verdict stands. The
fast reader may refuse what the slow one accepts, never the other way round (a property test).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from transform import exact_reader
from transform.contract import Contract, Tree, Value
from transform.exact_reader import Row
from transform.records import Rejection
from transform.timestamps import TimestampFormat, parse_json_timestamp
from transform.typed_reader import struct_of

NOTHING = (b"", b"null")  # an absent timestamp's text, and a null one's


@dataclass(frozen=True)
class Decoder:
    """Both readers of one contract. Build once per process: `Decoder.of(contract)`."""

    contract: Contract
    _typed: msgspec.json.Decoder[Any]
    _values: Callable[[Any], tuple[Any, ...]]
    _tree: Tree
    _times: tuple[tuple[int, TimestampFormat, bool], ...]
    _defaults: tuple[tuple[int, Value], ...]
    _device: int

    @classmethod
    def of(cls, contract: Contract) -> Decoder:
        tree = contract.tree()
        struct, reach = struct_of(tree)
        fields = contract.fields
        return cls(
            contract=contract,
            _typed=msgspec.json.Decoder(struct),
            _values=operator.attrgetter(*(reach[f.name] for f in fields)),
            _tree=tree,
            _times=tuple((i, f.format, f.required) for i, f in enumerate(fields) if f.format),
            _defaults=tuple((i, f.default) for i, f in enumerate(fields) if f.default is not None),
            _device=[f.name for f in fields].index(contract.device),
        )

    def decode(self, body: bytes) -> tuple[Row, str | None] | Rejection:
        """The row of a message and its `_rescued` JSON, or why there is none."""
        if len(body) > self.contract.max_body_bytes:
            return Rejection(
                "envelope",
                "too_large",
                f"{len(body)} bytes; the contract takes {self.contract.max_body_bytes}",
            )
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
        for i, default in self._defaults:
            if row[i] is None:
                row[i] = default
        device = row[self._device]
        return row if isinstance(device, str) and exact_reader.fits_key(device) else None

    def slow(self, body: bytes) -> tuple[Row, str | None] | Rejection:
        """The row of any message, or its rejection with step, reason and field."""
        return exact_reader.read(body, self.contract, self._tree)
