"""`millrace query`: SQL over what is in a state, or in an AWS account."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import boto3
import click

from infra import charts
from infra.cli import answers, run
from infra.contracts.kept import kept
from infra.lake import Lake
from infra.local.embedded import served
from infra.local.state import State, StateError
from infra.topology import BUCKET, LEDGER
from sinks.bucket import Bucket
from sinks.table import Table
from transform.contract_file import load_contract

EXAMPLES = """\b
Views: records     landing and lake, one per identity ledger  one row per attempt
       sealed      records of sealed hours            raw     source records as they came
       quarantine  rejected records, bytes and reason partitions     hours of the lake
       dropped     marks of what a rule dropped       freshness      how far a contract is
       device_clocks  each device's skew
       and one named after each contract (telemetry, environment_sensors): its records alone

\b
Examples:
  millrace query "SELECT device_id, count(*), avg(temperature) FROM records GROUP BY ALL"
  millrace query "SELECT _reason, count(*) FROM quarantine GROUP BY ALL" --json
  millrace query "FROM telemetry" --out telemetry.parquet
  millrace query "SELECT _arrival, temperature FROM telemetry" --chart temperature.png
  millrace query "SELECT count(*) FROM records" --bucket my-bucket
  millrace query "SELECT * FROM device_clocks ORDER BY abs(skew_p50) DESC LIMIT 10"
  millrace query "DESCRIBE records"
"""


@click.command(epilog=EXAMPLES)
@click.argument("sql")
@click.option(
    "--format",
    "form",
    type=click.Choice(answers.FORMATS),
    help="How to give the answer.  [default: as --out is named, else table]",
)
@click.option(
    "--out", metavar="FILE", type=click.Path(path_type=Path), help="Write it into a file."
)
@click.option(
    "--chart",
    metavar="FILE.png|.svg",
    type=click.Path(path_type=Path),
    help="Draw it: the first column is x, times are UTC; beside text there are bars.",
)
@click.option(
    "--bucket",
    metavar="NAME",
    help="Ask this bucket of an AWS account, with credentials as boto3 finds them.",
)
@click.option(
    "--ledger",
    metavar="TABLE",
    help=f"With --bucket, the DynamoDB table of attempts.  [default: {LEDGER}]",
)
@click.option(
    "--contract",
    "files",
    metavar="NAME|PATH",
    multiple=True,
    help="With --bucket, read rows by this one.  [default: those that the bucket keeps]",
)
@run.state_option
@run.json_option
def query(
    sql: str,
    form: str | None,
    out: Path | None,
    chart: Path | None,
    bucket: str | None,
    ledger: str | None,
    files: tuple[str, ...],
    state: State,
    as_json: bool,
) -> None:
    """Answer one SQL statement (DuckDB's) over records, quarantine, ledger and raw.

    It works beside a running pipeline, on a stopped state, and on an account. Times are UTC.
    """
    wanted = answers.chosen(form, out, as_json=as_json)
    if chart is not None:
        charts.require(chart)
    with opened(state, bucket, ledger, files) as lake:
        rows = lake.query(sql)
    if chart is not None:
        charts.draw(rows, chart)
    if chart is None or form or out or as_json:
        answers.give(rows, wanted, out)


@contextmanager
def opened(
    state: State, bucket: str | None, ledger: str | None, files: Sequence[str]
) -> Iterator[Lake]:
    """What there is to ask: of the account where a bucket is named, else of the state."""
    if bucket is not None:
        yield _of_account(bucket, ledger or LEDGER, files)
        return
    if ledger is not None or files:
        raise click.UsageError("--ledger and --contract go with --bucket: a state has its own")
    require_used(state)
    with served(state) as client:
        stores = Bucket(client("s3"), BUCKET), Table(client("dynamodb"), LEDGER)
        yield Lake(*stores, state.contracts())


def _of_account(name: str, ledger: str, files: Sequence[str]) -> Lake:
    bucket = Bucket(boto3.client("s3"), name)
    contracts = [load_contract(file) for file in files]
    contracts = contracts or [versions[-1] for versions in kept(bucket).values()]
    if not contracts:
        raise click.UsageError(f"s3://{name} keeps no contracts, so nothing has landed there")
    return Lake(bucket, Table(boto3.client("dynamodb"), ledger), contracts)


def require_used(state: State) -> None:
    """Raise `StateError` where there is nothing to read yet."""
    if not state.used():
        raise StateError(
            f"{state.root} holds no records yet; push some with `millrace ingest` or "
            "`millrace demo`, or name another directory with --state"
        )
