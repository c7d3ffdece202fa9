"""A lake file as Iceberg lists it: its partition and, by its footer, between what its columns are.

Engines leave files out by these bounds, so each is taken from the file and none is guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import SEEK_END
from typing import TYPE_CHECKING, NamedTuple

import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import (
    MetricModeTypes,
    MetricsMode,
    StatisticsCollector,
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat

from sinks.lake.manifest import File

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.io import FileIO
    from pyiceberg.table.metadata import TableMetadata

READERS = 8
UNBOUNDED = MetricsMode(MetricModeTypes.NONE)


class Unlike(RuntimeError):
    """A file is not what the manifest says of it. Nothing was published."""


class Wanted(NamedTuple):
    """A file of the manifest, where it is, and its hour of event time."""

    location: str
    hour: int
    file: File


class Footer(NamedTuple):
    """What a wanted file itself says."""

    wanted: Wanted
    said: pq.FileMetaData

    @property
    def schema(self) -> pa.Schema:
        return self.said.schema.to_arrow_schema()


def footers(io: FileIO, wanted: Sequence[Wanted]) -> list[Footer]:
    """What files say. Raises `Unlike`, and what pyarrow does."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(lambda one: _footer(io, one), wanted))


def listed(table: TableMetadata, footer: Footer) -> DataFile:
    """A file as the table lists it; the table has all its columns. Raises `Unlike`."""
    wanted, said = footer
    columns = table.schema()
    ids = parquet_path_to_id_mapping(columns)
    plan = _plan(said, compute_statistics_plan(columns, table.properties), ids)
    found = data_file_statistics_from_parquet_metadata(said, plan, ids)
    hours = found.partition(table.spec(), columns)
    if hours[0] != wanted.hour:
        raise Unlike(f"{wanted.location} has hour {hours[0]}, and not {wanted.hour}")
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=wanted.location,
        file_format=FileFormat.PARQUET,
        partition=hours,
        file_size_in_bytes=wanted.file.bytes,
        sort_order_id=table.default_sort_order_id,
        spec_id=table.default_spec_id,
        equality_ids=None,
        key_metadata=None,
        **found.to_serialized_dict(),
    )


def _footer(io: FileIO, wanted: Wanted) -> Footer:
    with io.new_input(wanted.location).open() as stream:
        said = pq.read_metadata(stream)
        size = stream.seek(0, SEEK_END)
    if (said.num_rows, size) != (wanted.file.rows, wanted.file.bytes):
        raise Unlike(f"{wanted.location} has {said.num_rows} rows in {size} bytes")
    return Footer(wanted, said)


def _plan(
    footer: pq.FileMetaData, plan: dict[int, StatisticsCollector], ids: dict[str, int]
) -> dict[int, StatisticsCollector]:
    """The plan, less bounds of columns of which a group of rows does not tell them.

    Of a group with a text of more than 4 KiB, or of NaN alone, Parquet has none; pyiceberg would
    take the other groups' for the whole file's, and engines leave out files that hold an answer.
    """
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    columns = [group.column(n) for group in groups for n in range(footer.num_columns)]
    bare = {ids[column.path_in_schema] for column in columns if not _tells(column)}
    return {n: replace(one, mode=UNBOUNDED) if n in bare else one for n, one in plan.items()}


def _tells(column: pq.ColumnChunkMetaData) -> bool:
    """Whether it is known between what a column's values are in a group of rows, if it has any."""
    said = column.statistics if column.is_stats_set else None
    if said is None:
        return False
    return bool(said.has_min_max or (said.has_null_count and said.null_count == column.num_values))
