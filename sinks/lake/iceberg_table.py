"""What a contract is as a table of Apache Iceberg, and how the table grows with its versions.

Our Parquet files carry no field ids: a mapping of names among the table's properties gives them.
Columns are never retyped nor taken away, so every engine reads old files and new ones as one table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow as pa
from pyiceberg.partitioning import PARTITION_FIELD_ID_START, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.transforms import HourTransform, IdentityTransform
from pyiceberg.types import (
    BooleanType,
    DoubleType,
    FixedType,
    IntegerType,
    LongType,
    NestedField,
    PrimitiveType,
    StringType,
    TimestamptzType,
)

from sinks.comments import DESCRIPTION_MAX_CHARACTERS, of_column
from sinks.lake.columns import Clash
from transform.contract import ROW_MARKS, Contract
from transform.records import DIGEST, DIGEST_BYTES, UTC_MICROS

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table, Transaction

HOUR = "_hour"  # of event time, what the table is partitioned by; no contract's field begins with _
NAME_MAPPING = "schema.name-mapping.default"
LISTS_MAX = 8  # of Iceberg's manifests: a reader plans by all of them, a publisher reads them
SOUGHT = frozenset({"_arrival", "_record_id"})  # of the columns that are not the contract's
TYPES: Mapping[pa.DataType, PrimitiveType] = {
    pa.string(): StringType(),
    pa.int64(): LongType(),
    pa.int32(): IntegerType(),
    pa.float64(): DoubleType(),
    pa.bool_(): BooleanType(),
    UTC_MICROS: TimestamptzType(),
    DIGEST: FixedType(DIGEST_BYTES),
}
FIXED: Mapping[str, str] = {
    "format-version": "2",  # what every engine reads
    "commit.retry.num-retries": "0",  # a retry would put our files beside another publisher's
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": str(LISTS_MAX),
    "write.metadata.delete-after-commit.enabled": "true",
    "gc.enabled": "false",  # the files are the manifest's: no engine is to remove one
}


def opened(
    catalog: Catalog, identifier: str, location: str, contract: Contract, schema: pa.Schema
) -> Table:
    """The table of a contract's landing schema, made where there is none."""
    docs = _docs(contract, schema)
    columns = Schema(
        *(_column(number, field, docs[field.name]) for number, field in enumerate(schema, 1))
    )
    device, time = (columns.find_field(n).field_id for n in (contract.device, contract.event_time))
    catalog.create_namespace_if_not_exists(identifier.split(".", maxsplit=1)[0])
    return catalog.create_table_if_not_exists(
        identifier,
        columns,
        location,
        PartitionSpec(PartitionField(time, PARTITION_FIELD_ID_START, HourTransform(), HOUR)),
        SortOrder(*(SortField(column, IdentityTransform()) for column in (device, time))),
        {**_properties(contract, schema), NAME_MAPPING: columns.name_mapping.model_dump_json()},
    )


def grow(transaction: Transaction, contract: Contract, schema: pa.Schema) -> None:
    """Give the table what the contract has come to say. Raises `Clash`."""
    properties = transaction.table_metadata.properties
    wanted = _properties(contract, schema).items()
    if changed := {name: value for name, value in wanted if properties.get(name) != value}:
        transaction.set_properties(changed)
    columns = {column.name: column for column in transaction.table_metadata.schema().fields}
    for field in schema:
        if field.name in columns and columns[field.name].field_type != TYPES[field.type]:
            held = columns[field.name].field_type
            raise Clash(f"{contract.name}: {field.name} is {field.type}, and in the table {held}")
    _grow(transaction, columns, schema, _docs(contract, schema))


def _grow(
    transaction: Transaction,
    columns: Mapping[str, NestedField],
    schema: pa.Schema,
    docs: Mapping[str, str],
) -> None:
    """Add columns, each before what a row says of itself; loosen others, and describe them."""
    fresh = [field for field in schema if field.name not in columns]
    always = {field.name for field in schema if not field.nullable}
    looser = [name for name, held in columns.items() if held.required and name not in always]
    told = {name: doc for name, doc in docs.items() if _said_otherwise(columns.get(name), doc)}
    if not (fresh or looser or told):
        return
    with transaction.update_schema() as update:
        for field in fresh:
            update.add_column(field.name, TYPES[field.type], docs[field.name] or None)
            update.move_before(field.name, ROW_MARKS[0].name)
        for name in looser:
            update.make_column_optional(name)
        for name, doc in told.items():
            update.update_column(name, doc=doc)


def _said_otherwise(column: NestedField | None, doc: str) -> bool:
    return column is not None and (column.doc or "") != doc


def _column(number: int, field: pa.Field, doc: str) -> NestedField:
    kind = TYPES[field.type]
    return NestedField(number, field.name, kind, required=not field.nullable, doc=doc or None)


def _docs(contract: Contract, schema: pa.Schema) -> dict[str, str]:
    time = contract.event_time
    return {field.name: of_column(field, event_time=field.name == time) for field in schema}


def _properties(contract: Contract, schema: pa.Schema) -> dict[str, str]:
    """What the table says of itself, and of which columns it is to be known what files hold.

    Texts have bounds of 16 characters; a device's whole, or those of one prefix were all alike.
    """
    said = contract.description[:DESCRIPTION_MAX_CHARACTERS]
    about = {"comment": said, "Description": said} if said else {}  # Spark's and Trino's; Glue's
    unsought = [f.name for f in schema if f.name.startswith("_") and f.name not in SOUGHT]
    metrics = {**dict.fromkeys(unsought, "none"), contract.device: "full"}
    modes = {f"write.metadata.metrics.column.{name}": mode for name, mode in metrics.items()}
    return {**FIXED, **about, **modes}
