"""`millrace catalog`: what Glue and Athena need to know, from the contracts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import boto3
import click

from infra.catalog import glue
from infra.catalog.queries import Query, queries
from infra.catalog.tables import Ambiguous, Table, lake_name, ledger, tables
from infra.cli import run
from infra.cli.query import require_used
from infra.contracts.kept import kept
from infra.local.embedded import served
from infra.local.state import State
from infra.topology import BUCKET, LEDGER
from sinks.bucket import Bucket
from transform.contract import Contract
from transform.contract_file import load_contract

EXAMPLES = """\b
Examples:
  millrace catalog telemetry --bucket my-bucket
  millrace catalog fleet.toml fleet-2.toml --format glue
  millrace catalog --bucket my-bucket --format json
"""
LAKE = """\
-- {name}: the lake, one row per identity, is an Iceberg table. Publication makes it
-- and keeps it in this catalog; made here it would be another table, and empty."""
ATTEMPTS = """\
-- ledger: the DynamoDB table {table}. Athena reads it in place, through its
-- DynamoDB connector; DDL cannot make the table for that, `millrace catalog --format glue`
-- has it as Glue takes it."""

Versions = Mapping[str, Sequence[Contract]]


@click.command(epilog=EXAMPLES)
@click.argument("contracts", metavar="[NAME|PATH]...", nargs=-1)
@click.option(
    "--format",
    "form",
    type=click.Choice(["ddl", "glue", "json"]),
    default="ddl",
    show_default=True,
    help="Athena's statements, what Glue's calls take, or tables and queries as plain JSON.",
)
@click.option("--bucket", metavar="NAME", help="The bucket of an AWS account that it is for.")
@click.option(
    "--ledger",
    "ledger_table",
    metavar="TABLE",
    default=LEDGER,
    show_default=True,
    help="The DynamoDB table of attempts.",
)
@run.state_option
def catalog(
    contracts: tuple[str, ...], form: str, bucket: str | None, ledger_table: str, state: State
) -> None:
    """Print databases, tables and saved queries for Glue and Athena. Nothing is made.

    Of the contracts given, several versions of one too; else of those that the bucket keeps, or the
    state. Columns carry descriptions and units, times are UTC, partitions are projected.
    """
    versions = _versions(contracts, bucket, state)
    try:
        found = tables(versions)
    except Ambiguous as error:
        raise click.UsageError(str(error)) from None
    asked = [query for every in versions.values() for query in queries(every)]
    attempts = ledger(ledger_table)
    where = bucket or glue.BUCKET
    if form == "ddl":
        click.echo("\n\n".join(_statements(versions, found, attempts, asked, where)))
        return
    value: Any = _plain(versions, found, attempts, asked, where)
    if form == "glue":
        value = _glue_calls(found, attempts, where)
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _versions(files: Sequence[str], bucket: str | None, state: State) -> Versions:
    """Contracts by name, each in its versions, the newest last."""
    if files:
        given: dict[str, list[Contract]] = {}
        for contract in sorted(map(load_contract, files), key=lambda one: one.version):
            given.setdefault(contract.name, []).append(contract)
        return given
    if bucket is not None:
        return kept(Bucket(boto3.client("s3"), bucket))
    require_used(state)
    with served(state) as client:
        found = dict(kept(Bucket(client("s3"), BUCKET)))
    for contract in state.contracts():  # of which nothing may have landed yet
        found.setdefault(contract.name, [contract])
    return found


def _statements(
    versions: Versions, found: Sequence[Table], attempts: Table, asked: Sequence[Query], bucket: str
) -> Iterator[str]:
    yield glue.database_ddl()
    for name in versions:
        yield LAKE.format(name=lake_name(name))
    for table in found:
        yield glue.ddl(table, bucket)
    yield ATTEMPTS.format(table=attempts.place)
    yield "-- Queries worth saving."
    for query in asked:
        yield f"-- {query.name}: {query.about}.\n{query.sql};"


def _glue_calls(found: Sequence[Table], attempts: Table, bucket: str) -> list[dict[str, Any]]:
    """What `create_database` and `create_table` of Glue take, database by database."""
    return [
        {
            "DatabaseInput": glue.database_input(),
            "TableInputs": [glue.table_input(table, bucket) for table in found],
        },
        {
            "DatabaseInput": glue.ledger_database_input(),
            "TableInputs": [glue.table_input(attempts, bucket)],
        },
    ]


def _plain(
    versions: Versions, found: Sequence[Table], attempts: Table, asked: Sequence[Query], bucket: str
) -> dict[str, Any]:
    return {
        "database": glue.DATABASE,
        "lakes": [lake_name(name) for name in versions],
        "tables": [
            {
                "database": glue.LEDGER_DATABASE if table is attempts else glue.DATABASE,
                "name": table.name,
                "about": table.about,
                "location": glue.location(table, bucket),
                "format": table.kind,
                "columns": [vars(column) for column in table.columns],
                "partitions": glue.PARTITIONS if table.partitioned else {},
            }
            for table in (*found, attempts)
        ],
        "queries": [vars(query) for query in asked],
    }
