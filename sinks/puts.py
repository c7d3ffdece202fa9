"""Hot items as the texts of their puts, cut from Arrow: no Python object per attribute.

    {"PutRequest":{"Item":{"pk":{"S":"..."},"sk":{"S":"..."},"temperature":{"N":"21.5"}}}}

A text is joined from a few literals and the columns' own texts, row by row in C++. What a column
has to say in JSON is the same for nearly all of its rows; the few for which it is not, strings with
a quote and numbers of unusual size, are found by one look at the column and written one by one.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from transform.columns import scalar, whole
from transform.contract import Contract
from transform.field_types import utc_text
from transform.tables import MICROS

NUMBER_MIN, NUMBER_MAX = 1e-130, 9.99e125  # magnitudes a DynamoDB number can have, but for zero
PLAIN_MIN, PLAIN_MAX = 1e-4, 1e9  # magnitudes of floats that JSON has as Python's repr does
ZERO_SECONDS = -62_135_596_800  # since 1970: the first moment of the year 1, before all others
ESCAPED = r'[\x00-\x1f"\\]'  # what a JSON string may not hold as it is


def texts(
    rows: pa.Table, contract: Contract, keys: Mapping[str, pa.Array], time: pa.Array
) -> list[bytes]:
    """The put of each row's item under these key attributes, as `sinks.table.Writes` takes it.

    Every attribute of an item is one of its row; what is null is absent. `time` is the event times'
    text, of which the keys are made as well.
    """
    text = _Text('{"PutRequest":{"Item":{')
    for name, column in keys.items():
        text.add(name, "S", escaped(column))
    if contract.hot_ttl_seconds is not None:
        seconds = _seconds(whole(rows.column(contract.event_time)))
        text.add(
            "expires_at",
            "N",
            pc.add(seconds, scalar(contract.hot_ttl_seconds + ZERO_SECONDS)).cast(pa.string()),
        )
    names = [f.name for f in contract.hot_columns] + of_others(contract, rows.column_names)
    if contract.hot_fields is None:
        names.append("_rescued")
    every = dict(zip(rows.column_names, rows.columns, strict=True))
    columns = {name: whole(every[name]) for name in names}
    columns = {name: c for name, c in columns.items() if c.null_count < len(c)}
    numbers = _Numbers.of_each({n: c for n, c in columns.items() if pa.types.is_floating(c.type)})
    for name, column in columns.items():
        if name == contract.event_time:
            text.add(name, "S", time)
        elif name in numbers:
            numbers[name].add_to(text, name)
        else:
            _add(text, name, column)
    return text.joined("}}}")


def of_others(contract: Contract, names: Sequence[str]) -> list[str]:
    """Fields of other versions among the columns; a contract that chooses its own chooses none."""
    if contract.hot_fields is not None:
        return []
    known = {f.name for f in contract.fields}
    return [name for name in names if name not in known and not name.startswith("_")]


def escaped(column: pa.Array) -> pa.Array:
    """Strings as they stand between the quotes of JSON."""
    data = _data(column)
    if len(orjson.dumps(str(data, errors="replace"))) == len(data) + len('""'):
        return column
    odd = pc.match_substring_regex(column, ESCAPED)
    made = [orjson.dumps(value)[1:-1] for value in column.filter(odd).to_pylist()]
    return pc.replace_with_mask(column, odd, pa.array(made, pa.binary()).cast(pa.string()))


@dataclass
class _Text:
    """What the rows' texts are joined from: literals and columns in turns. `open` is a literal."""

    open: str
    parts: list[str | pa.Array] = field(default_factory=list)
    separator: str = ""

    def add(self, name: str, kind: str, values: pa.Array) -> None:
        """An attribute with these texts as its value, where they are not null."""
        begin, end = _around(name, kind)
        begin = self._next() + begin
        if values.null_count == 0:
            self.parts += [self.open + begin, values]
            self.open = end
        else:
            parts = (scalar(begin), values, scalar(end), scalar(""))
            self._some(pc.binary_join_element_wise(*parts))

    def add_either(self, name: str, number: pa.Array, values: pa.Array) -> None:
        """The same of numbers, and of text where they are none."""
        begin = f'{self._next()}{orjson.dumps(name).decode()}:{{"'
        kind = pc.if_else(number, "N", "S")
        self._some(pc.binary_join_element_wise(begin, kind, '":"', values, '"}', ""))

    def _some(self, values: pa.Array) -> None:
        """Whole attributes, for the rows where they are not null."""
        self.parts += [self.open, values]
        self.open = ""

    def _next(self) -> str:
        separator, self.separator = self.separator, ","
        return separator

    def joined(self, end: str) -> list[bytes]:
        parts = (*self.parts, self.open + end, "")
        made = pc.binary_join_element_wise(
            *(scalar(part) if isinstance(part, str) else part for part in parts),
            null_handling="replace",
            null_replacement="",
        )
        return made.view(pa.binary()).to_pylist()  # type: ignore[no-any-return]


@lru_cache(4_096)
def _around(name: str, kind: str) -> tuple[str, str]:
    """What stands before and behind an attribute's value."""
    quote = "" if kind == "BOOL" else '"'
    return f'{orjson.dumps(name).decode()}:{{"{kind}":{quote}', f"{quote}}}"


def _add(text: _Text, name: str, column: pa.Array) -> None:
    if pa.types.is_string(column.type):
        text.add(name, "S", escaped(column))
    elif pa.types.is_timestamp(column.type):
        text.add(name, "S", utc_text(column))
    else:
        kind = "BOOL" if pa.types.is_boolean(column.type) else "N"
        text.add(name, kind, column.cast(pa.string()))


@dataclass(frozen=True)
class _Numbers:
    """Floats as texts; where DynamoDB cannot hold them all as numbers, `held` says which."""

    values: pa.Array
    held: pa.Array | None

    @classmethod
    def of(cls, column: pa.Array) -> _Numbers:
        """As Python's repr has them."""
        size, values = pc.abs(column), _in_json(column)
        if _plain(size):
            return cls(values, None)
        zero = pc.equal(size, 0.0)
        if _plain(pc.if_else(zero, 1.0, size)):  # zero is as plain as one
            return cls(values, None)
        odd = pc.invert(pc.or_(zero, _within(size, PLAIN_MIN, PLAIN_MAX)))
        own = [repr(value) for value in column.filter(odd).to_pylist()]
        values = pc.replace_with_mask(values, odd, pa.array(own, pa.string()))
        return cls(values, pc.or_(zero, _within(size, NUMBER_MIN, NUMBER_MAX)))

    @classmethod
    def of_each(cls, columns: Mapping[str, pa.Array]) -> dict[str, _Numbers]:
        """Several columns at once: what is asked of one takes longer to ask than to find."""
        if not columns:
            return {}
        whole_ = cls.of(pa.concat_arrays(columns.values()))
        count = len(whole_.values) // len(columns)
        return {name: whole_.slice(number * count, count) for number, name in enumerate(columns)}

    def slice(self, start: int, count: int) -> _Numbers:
        held = None if self.held is None else self.held.slice(start, count)
        if held is not None and pc.all(held).as_py():
            held = None
        return _Numbers(self.values.slice(start, count), held)

    def add_to(self, text: _Text, name: str) -> None:
        if self.held is None:
            text.add(name, "N", self.values)
        else:
            text.add_either(name, self.held, self.values)


def _in_json(column: pa.Array) -> pa.Array:
    """Floats as orjson writes them: twice as fast as Arrow, and a whole one with its `.0`."""
    numbers = struct.unpack_from(f"{len(column)}d", column.buffers()[1], 8 * column.offset)
    values = pc.split_pattern(pa.array([orjson.dumps(numbers)[1:-1]], pa.string()), ",").values
    return pc.if_else(column.is_valid(), values, None) if column.null_count else values


def _plain(size: pa.Array) -> bool:
    """Whether all magnitudes are of those that are written in the same way everywhere."""
    span = pc.min_max(size)
    return bool(span["min"].as_py() >= PLAIN_MIN and span["max"].as_py() <= PLAIN_MAX)


def _within(size: pa.Array, low: float, high: float) -> pa.Array:
    return pc.and_(pc.greater_equal(size, low), pc.less_equal(size, high))


def _seconds(moments: pa.Array) -> pa.Array:
    """Whole seconds since `ZERO_SECONDS`, rounded down: Arrow's division rounds towards zero."""
    micros = pc.subtract(moments.view(pa.int64()), scalar(ZERO_SECONDS * MICROS))
    return pc.divide(micros, scalar(MICROS))


def _data(column: pa.Array) -> memoryview:
    """The bytes of all strings of a column, end to end."""
    _, offsets, data = column.buffers()
    if data is None or not len(column):
        return memoryview(b"")
    ends: Sequence[int] = memoryview(offsets).cast("B").cast("i")
    low, high = ends[column.offset], ends[column.offset + len(column)]
    return memoryview(data)[low:high]
