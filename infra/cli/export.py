"""`millrace export`: a device's records of a span, into a file."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from infra.cli import answers, run, shown
from infra.cli.compact import chosen
from infra.cli.moments import MOMENT, micros
from infra.cli.query import require_used
from infra.lake import Lake
from infra.local.embedded import served
from infra.local.state import State
from infra.topology import BUCKET, LEDGER
from sinks.bucket import Bucket
from sinks.table import Table
from transform.contract import Contract

EXAMPLES = """\b
Examples:
  millrace export --device s-17 --from 2026-11-24 --to 2026-11-25 --out s-17.parquet
  millrace export --device s-17 --from 2026-11-24T10:00:00Z --to 2026-11-24T11:00:00Z --out s-17.csv
"""


@click.command(epilog=EXAMPLES)
@click.option("--device", metavar="ID", required=True, help="Whose records.")
@click.option(
    "--from", "start", type=MOMENT, required=True, help="Event time from; ISO or a date (UTC)."
)
@click.option("--to", "stop", type=MOMENT, required=True, help="Event time before.")
@click.option("--contract", "name", metavar="NAME", help="Where the state has several contracts.")
@click.option(
    "--format",
    "form",
    type=click.Choice([one for one in answers.FORMATS if one != "table"]),
    help="Of the file.  [default: as --out is named]",
)
@click.option(
    "--out", metavar="FILE", type=click.Path(path_type=Path), required=True, help="The file."
)
@run.state_option
def export(
    device: str,
    start: datetime,
    stop: datetime,
    name: str | None,
    form: str | None,
    out: Path,
    state: State,
) -> None:
    """Write a device's records of a span of event time into a file, each once, oldest first.

    They are what the view `records` says, at any moment; only the hours of the span are read.
    """
    low, high = micros(start), micros(stop)
    if low >= high:
        raise click.UsageError("--from must lie before --to")
    wanted = answers.chosen(form, out, as_json=False)
    require_used(state)
    contract = one_of(state, name)
    with served(state) as client:
        bucket, ledger = Bucket(client("s3"), BUCKET), Table(client("dynamodb"), LEDGER)
        rows = Lake(bucket, ledger, [contract]).of_device(contract, device, low, high)
    answers.give(rows, wanted, out)
    shown.err.print(f"{rows.num_rows:,} records in {out}", markup=False, soft_wrap=True)


def one_of(state: State, name: str | None) -> Contract:
    """The contract of this name, or the only one that was used on a state."""
    known = chosen(state, () if name is None else (name,))
    if len(known) > 1:
        names = ", ".join(contract.name for contract in known)
        raise click.UsageError(f"there are several contracts; say --contract: {names}")
    return known[0]
