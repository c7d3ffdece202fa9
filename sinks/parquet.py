"""Tables as Parquet bytes and back. The settings were measured: see docs of `encode`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

COMPRESSED_FROM_BYTES = 1_024  # of columns: below, zstd makes a file larger and takes half its time
THREADS_FROM_BYTES = 262_144  # below, to hand columns to threads takes longer than to read them


def encode(table: pa.Table) -> bytes:
    """The table as one Parquet file, the same bytes for the same table.

    zstd at level 1 but for a few rows, and dictionaries on text only: for readings smaller and
    faster than pyarrow's defaults, whose dictionaries on floats cost time and win nothing.
    """
    text = [f.name for f in table.schema if pa.types.is_string(f.type)]
    small = table.nbytes < COMPRESSED_FROM_BYTES
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="none" if small else "zstd",
        compression_level=None if small else 1,
        use_dictionary=text,
        write_page_index=True,
    )
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def decode(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """The file's rows, or some columns of them.

    Not by `read_table`: it goes through the dataset scanner, which takes twice as long to begin.
    """
    threads = len(data) > THREADS_FROM_BYTES
    return pq.ParquetFile(pa.BufferReader(data)).read(columns=columns, use_threads=threads)


def decode_coded(data: bytes, columns: list[str], coded: Sequence[str]) -> pa.Table:
    """Some columns; some texts among them as numbers, equal where the texts are.

    A long text that a hundred thousand rows have takes a hundred times what a number does.
    """
    found = [name for name in coded if name in columns]
    file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=found)
    table = file.read(columns=columns, use_threads=False).unify_dictionaries()
    for name in found:
        codes = [chunk.indices for chunk in table.column(name).chunks]
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.chunked_array(codes, pa.int32()))
    return table


def parts(data: bytes, columns: list[str], most: int) -> Iterator[pa.Table]:
    """The file's rows, at most so many at a time: of those before nothing is held."""
    file = pq.ParquetFile(pa.BufferReader(data))
    for batch in file.iter_batches(most, columns=columns, use_threads=False):
        yield pa.Table.from_batches([batch])


def rows_in(data: bytes) -> int:
    """How many rows the file's own footer says it has: a count taken from what was written."""
    return pq.read_metadata(pa.BufferReader(data)).num_rows  # type: ignore[no-any-return]


def names_of(data: bytes) -> list[str]:
    """The file's columns."""
    return pq.read_schema(pa.BufferReader(data)).names  # type: ignore[no-any-return]


def metadata_of(data: bytes) -> dict[bytes, bytes]:
    """The file's own key-value metadata."""
    return pq.read_schema(pa.BufferReader(data)).metadata or {}
