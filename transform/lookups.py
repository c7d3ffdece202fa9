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

ROWS_MAX = 1_000_000  # held in memory by every Transform: a fleet, not a history
BYTES_MAX = 134_217_728


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
    columns = {lookup.key: _column(table, lookup.key, on)}
    for field in wanted:
        columns[field.name] = _column(table, field.column, field)
    keys = columns[lookup.key]
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
    if name not in table.column_names:
        raise LookupError_(f"no column {name!r}; there are {', '.join(table.column_names)}")
    column = table.column(name).combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        return column.cast(ARROW_TYPES[field.type])
    except pa.ArrowException:
        return _by_hand(column, name, field)


def _by_hand(column: pa.Array, name: str, field: Field) -> pa.Array:
    """The first value that does not fit, told with its row."""
    for number in range(len(column)):
        try:
            column.slice(number, 1).cast(ARROW_TYPES[field.type])
        except pa.ArrowException:
            value = column[number].as_py()
            raise LookupError_(
                f"row {number + 1}: {name} {value!r} is not of type {field.type}"
            ) from None
    raise LookupError_(f"{name} is not of type {field.type}")


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
