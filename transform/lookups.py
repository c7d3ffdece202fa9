"""Lookup files: tables by which fields are found, such as the site of each device.

CSV with a header, NDJSON or Parquet, told apart by the file's name. Every value is read as the type
of the field it is for; one that cannot be is told with its row.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from transform.contract import Field, Lookup
from transform.field_types import ARROW_TYPES
from transform.timestamps import EARLIEST, LATEST

ROWS_MAX = 1_000_000  # held in memory by every Transform: a fleet, not a history
BYTES_MAX = 134_217_728
KEY = ""  # what a lookup's key column is called once it is read: no field has such a name


class LookupError_(ValueError):  # noqa: N801  LookupError is Python's
    """A lookup file that cannot be used; says where."""


def read_lookup(data: bytes, lookup: Lookup, on: Field, wanted: Sequence[Field]) -> pa.Table:
    """Its key column, typed as the field it is looked up by, and a column for each field wanted.

    Raises `LookupError_`.
    """
    if len(data) > BYTES_MAX:
        raise LookupError_(f"{len(data)} bytes; at most {BYTES_MAX}")
    kind = lookup.file.rpartition(".")[2].lower()
    if kind not in _READERS:
        raise LookupError_(f"a .{kind} file; read are {', '.join(sorted(_READERS))}")
    try:
        table = _READERS[kind](data)
    except (pa.ArrowException, msgspec.DecodeError, ValueError, OSError) as error:
        raise LookupError_(f"cannot be read as {kind}: {error}") from None
    if table.num_rows > ROWS_MAX:
        raise LookupError_(f"{table.num_rows} rows; at most {ROWS_MAX}")
    columns = {KEY: _column(table, lookup.key, on)}
    for field in wanted:
        columns[field.name] = _column(table, field.column, field)
    keys = columns[KEY]
    if keys.null_count:
        raise LookupError_(
            f"row {pc.index(pc.is_null(keys), True).as_py() + 1} has no {lookup.key}"
        )
    counts = pc.value_counts(keys)
    twice = counts.filter(pc.greater(counts.field(1), 1))
    if len(twice):
        raise LookupError_(f"{lookup.key} {twice[0]['values'].as_py()!r} is there more than once")
    return pa.table(columns)


def _column(table: pa.Table, name: str, field: Field) -> pa.Array:
    there = table.column_names.count(name)
    if there != 1:
        told = "no column" if not there else f"{there} columns"
        raise LookupError_(f"{told} {name!r}; there are {', '.join(table.column_names)}")
    column = table.column(name).combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        return _typed(column, field)
    except pa.ArrowException:
        return _by_hand(column, name, field)


def _typed(column: pa.Array, field: Field) -> pa.Array:
    """A column as values of a field. Raises `pa.ArrowException` if there is one that is none."""
    if field.type == "timestamp" and pa.types.is_integer(column.type):
        raise pa.ArrowInvalid("seconds, milliseconds or microseconds?")
    found = column.cast(ARROW_TYPES[field.type])
    found.validate(full=True)  # text of a Parquet file may be no UTF-8
    if field.type == "float64" and pc.any(pc.invert(pc.is_finite(found))).as_py():
        raise pa.ArrowInvalid("infinite, or no number")
    if field.type == "timestamp":
        micros = found.cast(pa.int64())
        outside = pc.or_(pc.less(micros, EARLIEST), pc.greater(micros, LATEST))
        if pc.any(outside).as_py():
            raise pa.ArrowInvalid("not between the years 1 and 9999")
    return found


def _by_hand(column: pa.Array, name: str, field: Field) -> pa.Array:
    """The first value that does not fit, told with its row."""
    for number in range(len(column)):
        one = column.slice(number, 1)
        try:
            _typed(one, field)
        except pa.ArrowException:
            raise LookupError_(
                f"row {number + 1}: {name} {_shown(one)} is not of type {field.type}"
            ) from None
    raise LookupError_(f"{name} is not of type {field.type}")


def _shown(one: pa.Array) -> str:
    try:
        return repr(one[0].as_py())
    except ValueError:  # bytes that are no text, nanoseconds
        return f"a {one.type}"


def _csv(data: bytes) -> pa.Table:
    """Every column as text: a device `007` is not seven."""
    names = pyarrow.csv.open_csv(io.BytesIO(data)).schema.names
    text = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
    )
    return pyarrow.csv.read_csv(io.BytesIO(data), convert_options=text)


def _ndjson(data: bytes) -> pa.Table:
    rows = [msgspec.json.decode(line) for line in data.splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is not an object")
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})


def _parquet(data: bytes) -> pa.Table:
    return pq.ParquetFile(pa.BufferReader(data)).read()


_READERS: dict[str, Callable[[bytes], pa.Table]] = {
    "csv": _csv,
    "ndjson": _ndjson,
    "jsonl": _ndjson,
    "parquet": _parquet,
}
