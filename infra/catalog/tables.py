"""The tables of a bucket, and what each of their columns is.

    <contract>_landing     every row that landed, by arrival hour: repeats and retries are in it
    quarantine_<contract>  what was rejected, and why
    dropped_<contract>     marks of what a rule of the contract left out
    <contract>_manifests   what the lake was made of: each hour's counts, and whether it is sealed
    raw                    source records as they came
    ledger                 attempts, where they are: in DynamoDB

The lake itself is `<contract>`, an Iceberg table. Who publishes it keeps it in the catalog.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from sinks import landing, raw
from sinks.comments import DESCRIPTION_MAX_CHARACTERS, of_column
from sinks.lake import manifest
from sinks.ledger import Attempt
from transform.contract import Contract
from transform.records import DROPPED_SCHEMA, QUARANTINE_SCHEMA, RAW_SCHEMA

Kind = Literal["parquet", "json", "dynamodb"]

PARTITIONED = (
    "struct<`hour`:bigint,`rows`:bigint,`ids`:bigint,`conflicts`:bigint,`digest`:string,"
    "`seal`:struct<`as_of`:bigint,`sealed_at`:bigint,`exact`:boolean,`missing`:bigint>>"
)
"""What is read of a `Partition`: its files are for whoever reads objects."""


@dataclass(frozen=True)
class Column:
    """A column in Athena's words."""

    name: str
    type: str
    comment: str = ""


@dataclass(frozen=True)
class Table:
    """A table: where its objects are and what a row has. `partitioned` is by arrival day and hour.

    `place` is a prefix of the bucket, or the name of a DynamoDB table.
    """

    name: str
    about: str
    columns: tuple[Column, ...]
    place: str
    kind: Kind = "parquet"
    partitioned: bool = True


class Ambiguous(ValueError):
    """Two tables of one name; says which."""


def lake_name(contract: str) -> str:
    """What the lake of a contract is called: its name, as SQL takes it without quotes."""
    return contract.replace("-", "_")


def tables(contracts: Mapping[str, Sequence[Contract]]) -> list[Table]:
    """Every table of a bucket with these contracts, each by its versions, the newest last.

    Raises `Ambiguous`.
    """
    found = [table for versions in contracts.values() for table in tables_of(versions)]
    found.append(_parquet("raw", "Source records as they came", RAW_SCHEMA, f"{raw.PREFIX}/"))
    names = Counter([*(table.name for table in found), *map(lake_name, contracts)])
    twice = [name for name, times in names.items() if times > 1]
    if twice:
        raise Ambiguous(f"two tables would be called {twice[0]}: give a contract another name")
    return found


def tables_of(versions: Sequence[Contract]) -> list[Table]:
    """The tables of one contract: landing first."""
    name = versions[-1].name
    own = lake_name(name)
    marks = (
        (f"quarantine_{own}", "What was rejected", QUARANTINE_SCHEMA, landing.QUARANTINE),
        (f"dropped_{own}", "Marks of what a rule left out", DROPPED_SCHEMA, landing.DROPPED),
    )
    return [
        landing_table(versions),
        *(
            _parquet(table, f"{about}, of contract {name}; by arrival, retries included", *rest)
            for table, about, schema, kind in marks
            for rest in [(schema, f"{kind}/{name}/")]
        ),
        _manifests(name, own),
    ]


def landing_table(versions: Sequence[Contract]) -> Table:
    """Landing of a contract: columns of its newest version, then those that only older ones had."""
    newest = versions[-1]
    fields = {field.name: field for one in versions for field in one.landing_schema()}
    schema = newest.landing_schema()
    gone = [field for name, field in fields.items() if name not in schema.names]
    about = f"{newest.description or newest.name}: rows as they landed, by arrival; repeats are in"
    return _parquet(
        f"{lake_name(newest.name)}_landing",
        about,
        pa.schema([*schema, *gone]),
        f"{landing.LANDING}/{newest.name}/",
        event_time=newest.event_time,
    )


def ledger(table: str) -> Table:
    """The ledger, as Athena's DynamoDB connector reads it: one item per attempt, and debts."""
    kinds = {"int": "bigint"}
    columns = [
        Column(name, kinds.get(kind, "string"))
        for name, kind in Attempt.__annotations__.items()
        if name != "execution"
    ]
    about = "One item per attempt at a Delivery; where pk begins with paid# or owed#, a debt"
    keys = (
        Column("pk", "string", "The minute it settled (UTC) and a number, or a debt"),
        Column("sk", "string", "The execution's ARN"),
    )
    return Table("ledger", about, (*keys, *columns), table, "dynamodb", partitioned=False)


def athena_type(kind: pa.DataType) -> str:
    """An Arrow type in Athena's words."""
    if pa.types.is_fixed_size_binary(kind) or pa.types.is_binary(kind):
        return "binary"
    return {
        "int64": "bigint",
        "int32": "int",
        "double": "double",
        "bool": "boolean",
        "string": "string",
        "timestamp[us, tz=UTC]": "timestamp",
    }[str(kind)]


def _parquet(
    name: str, about: str, schema: Iterable[pa.Field], place: str, *, event_time: str = ""
) -> Table:
    columns = tuple(_column(field, event_time=field.name == event_time) for field in schema)
    return Table(name, " ".join(about.split())[:DESCRIPTION_MAX_CHARACTERS], columns, place)


def _column(field: pa.Field, *, event_time: bool) -> Column:
    return Column(field.name, athena_type(field.type), of_column(field, event_time=event_time))


def _manifests(name: str, own: str) -> Table:
    columns = (
        Column("contract", "string"),
        Column("version", "bigint", "Greater with each commit; the greatest counts"),
        Column("made_at", "bigint", "Microseconds since 1970 UTC"),
        Column("partitions", f"array<{PARTITIONED}>", "Hours of event time, since 1970 UTC"),
    )
    about = f"What the lake of contract {name} was made of, one row per commit"
    place = f"{manifest.PREFIX}/{name}/manifests/"
    return Table(f"{own}_manifests", about, columns, place, "json", partitioned=False)
