"""Tables as Parquet bytes and back.

How a column is written follows from what it holds. Time and bytes have one scale: at us-east-1's
prices (Lambda on arm64 with a vCPU's 1,769 MB, S3 Standard) a microsecond a record costs as much as
a byte a record that is kept for a month, $0.000023 a million records. Of 100 to 7,000 readings,
written and read once:

    numbers, times      as differences      less bytes and less time than any compression
    texts that repeat   dictionary, snappy
    floats              snappy              zstd: a byte less each, 0.04 us more on the path
    all other texts     zstd                half of the bytes: they are most of a raw object

zstd takes 25 us to begin with a column, a dictionary 3: small columns are written without. Of 100
readings that is 17 bytes a record more and a sixth of the time less; after some days the bytes cost
more, but they are few, and fewer than zstd and pyarrow's other defaults come to.
Statistics are of what a query seeks by: of bodies and floats they filled a small file's footer.
lz4 is a little faster than snappy, but not every engine that analysts use has Parquet's form of it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

ZSTD_FROM_BYTES = 8_192  # of a column
DICTIONARY_FROM_ROWS = 256
THREADS_FROM_BYTES = 262_144  # below, to hand columns to threads takes longer than to read them
ARROW_SCHEMA = b"ARROW:schema"  # where a Parquet file says its columns in Arrow's own form
SINGULAR = frozenset(
    {"_record_id", "_sequence", "_attributes", "_body", "_detail", "_rescued"}
)  # texts and bytes of which hardly two rows have the same
SOUGHT = frozenset({"_stream", "_sequence", "_partition_key", "_arrival", "_raw", "_index"})
"""Columns beside the contract's fields by which a query seeks."""


class Written(NamedTuple):
    """A file's bytes, and how many rows its footer says it has."""

    data: bytes
    rows: int


class File:
    """A file's bytes, whose footer is read once. Raises `pa.ArrowInvalid` where there is none."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._reader = pq.ParquetReader()  # a ParquetFile asks it for each column's path first
        self._reader.open(pa.BufferReader(data), pre_buffer=False)
        self._threads = len(data) > THREADS_FROM_BYTES

    @property
    def rows(self) -> int:
        """How many rows the file's own footer says it has: a count taken from what was written."""
        return self._reader.metadata.num_rows  # type: ignore[no-any-return]

    @cached_property
    def names(self) -> list[str]:
        """The file's columns: none of ours is nested."""
        return self._reader.metadata.schema.names  # type: ignore[no-any-return]

    @property
    def metadata(self) -> dict[bytes, bytes]:
        """The file's own key-value metadata."""
        said = self._reader.metadata.metadata or {}
        return {key: value for key, value in said.items() if key != ARROW_SCHEMA}

    def read(self, columns: list[str] | None = None) -> pa.Table:
        """The file's rows, or those of some columns that are there.

        Not by `read_table`: it goes through the dataset scanner, which takes twice as long to
        begin.
        """
        return self._reader.read_all(self._places(columns), use_threads=self._threads)

    def read_coded(self, columns: list[str], coded: Sequence[str]) -> pa.Table:
        """Some columns; some texts among them as numbers, equal where the texts are.

        A long text that a hundred thousand rows have takes a hundred times what a number does.
        """
        found = [name for name in coded if name in columns]
        file = pq.ParquetFile(pa.BufferReader(self._data), read_dictionary=found)
        table = file.read(columns=columns, use_threads=False).unify_dictionaries()
        for name in found:
            codes = [chunk.indices for chunk in table.column(name).chunks]
            place = table.schema.get_field_index(name)
            table = table.set_column(place, name, pa.chunked_array(codes, pa.int32()))
        return table

    def parts(self, columns: list[str], most: int) -> Iterator[pa.Table]:
        """The rows, at most so many at a time: of those before nothing is held."""
        groups = range(self._reader.num_row_groups)
        places = self._places(columns)
        for batch in self._reader.iter_batches(most, groups, places, use_threads=False):
            yield pa.Table.from_batches([batch])

    def _places(self, columns: list[str] | None) -> list[int] | None:
        if columns is None:
            return None
        places = {name: place for place, name in enumerate(self.names)}
        return [places[name] for name in columns if name in places]


def write(table: pa.Table) -> Written:
    """The table as one Parquet file, the same bytes for the same table.

    The table's own metadata are the file's. Arrow's schema is in it only where it says more than
    Parquet's own, as a contract does of its fields: it is a fifth of a small file.
    """
    sink = pa.BufferOutputStream()
    footers: list[Any] = []
    schema = table.schema
    large = frozenset(
        n for n in schema.names if n in SINGULAR and table[n].nbytes >= ZSTD_FROM_BYTES
    )
    many = table.num_rows >= DICTIONARY_FROM_ROWS
    settings, metadata = _layout(_Schema(schema), large, many=many)
    with pq.ParquetWriter(sink, schema, metadata_collector=footers, **settings) as writer:
        writer.write_table(table)
        if metadata:
            writer.add_key_value_metadata(metadata)
    return Written(sink.getvalue().to_pybytes(), footers[0].num_rows)


def encode(table: pa.Table) -> bytes:
    """The table as one Parquet file, as `write` does it."""
    return write(table).data


def decode(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """The file's rows, or some columns of them."""
    return File(data).read(columns)


def schema_of(path: str) -> pa.Schema:
    """The columns of a file on disk."""
    return pq.read_schema(path)


class _Schema:
    """A schema, with its metadata, as a key. Its own hash takes as long as to write two columns."""

    def __init__(self, schema: pa.Schema) -> None:
        self.own = schema

    def __hash__(self) -> int:
        return len(self.own)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Schema) and bool(self.own.equals(other.own, check_metadata=True))


@lru_cache(64)
def _layout(
    schema: _Schema, large: frozenset[str], *, many: bool
) -> tuple[dict[str, Any], dict[bytes, bytes]]:
    """How a table is written, and what its file says beside its columns."""
    return _settings(schema.own, large, many=many), _metadata(schema.own)


def _settings(schema: pa.Schema, large: frozenset[str], *, many: bool) -> dict[str, Any]:
    """How a table's columns are written; `large` are singular ones, `many` is said of its rows."""
    compressed = {f.name: "zstd" if f.name in large else "snappy" for f in schema if _packs(f.type)}
    repeating = [f.name for f in schema if pa.types.is_string(f.type) and f.name not in SINGULAR]
    sought = [f.name for f in schema if f.name in SOUGHT or _seekable(f)]
    return {
        "compression": compressed or "none",
        "compression_level": dict.fromkeys(large, 1) or None,
        "use_dictionary": (many and repeating) or False,
        "column_encoding": {f.name: "DELTA_BINARY_PACKED" for f in schema if counted(f.type)},
        "write_statistics": sought or False,
        "store_schema": False,
    }


def _metadata(schema: pa.Schema) -> dict[bytes, bytes]:
    """What a file says beside its columns: their units and descriptions in Arrow's own form."""
    said = dict(schema.metadata or {})
    if any(field.metadata for field in schema):
        said[ARROW_SCHEMA] = base64.b64encode(schema.serialize())
    return said


def _packs(kind: pa.DataType) -> bool:
    """Whether a column is compressed: differences, bits and digests are as small as they get."""
    plain = pa.types.is_boolean(kind) or pa.types.is_fixed_size_binary(kind)
    return not plain and not counted(kind)


def _seekable(field: pa.Field) -> bool:
    """Whether it is a field of the contract that a range can be asked of to some use."""
    return not field.name.startswith("_") and not pa.types.is_floating(field.type)


def counted(kind: pa.DataType) -> bool:
    """Whether values of a type are written as differences."""
    return pa.types.is_integer(kind) or pa.types.is_timestamp(kind)  # type: ignore[no-any-return]
