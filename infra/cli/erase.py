"""`millrace erase`: a device leaves every store."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from functools import partial
from random import uniform
from typing import TYPE_CHECKING

import click

from infra.cli import run, shown
from infra.cli.export import one_of
from infra.cli.query import require_used
from infra.erasing.erase import Places, Report, preview
from infra.erasing.erase import erase as erased
from infra.erasing.find import Choice
from infra.local import iceberg
from infra.local.embedded import served
from infra.local.state import State
from infra.topology import BUCKET, LEDGER, pipeline
from sinks.bucket import Bucket
from sinks.table import Table, Waiting
from transform.contract import Contract

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

EXAMPLES = """\b
Examples:
  millrace erase --device s-17 --dry-run
  millrace erase --device s-17 --yes
  millrace erase --device s-17 --also-mentions --shared --yes --json
"""


@click.command(epilog=EXAMPLES)
@click.option("--device", metavar="ID", required=True, help="Whose records.")
@click.option("--contract", "name", metavar="NAME", help="Where the state has several contracts.")
@click.option("--dry-run", is_flag=True, help="Count what there is; write nothing.")
@click.option("--yes", is_flag=True, help="Erase it.")
@click.option(
    "--also-mentions",
    is_flag=True,
    help="Records, too, that cannot be read and have the id in their text.",
)
@click.option(
    "--shared",
    is_flag=True,
    help="Whole bodies in raw, too, of arrays or lists that others sent part of.",
)
@run.state_option
@run.json_option
def erase(
    device: str,
    name: str | None,
    dry_run: bool,
    yes: bool,
    also_mentions: bool,
    shared: bool,
    state: State,
    as_json: bool,
) -> None:
    """Remove a device from lake, landing, raw, quarantine and hot store, and note that it was.

    Its positions stay, with a mark each in `dropped` of rule `erased`, so that all counts still
    add up. What arrives later is new. Streams, queues and what is parked keep what they hold until
    it expires. It exits with 1 if something could not be erased; run it again then.
    """
    if dry_run == yes:
        raise click.UsageError("say --dry-run to see what there is, or --yes to erase it")
    require_used(state)
    contract = one_of(state, name)
    with served(state) as client:
        places = Places(
            bucket=Bucket(client("s3"), BUCKET),
            ledger=Table(client("dynamodb"), LEDGER),
            hot=Table(client("dynamodb"), pipeline(contract.name, contract.name).hot_table.name),
            clock=time.time,
            waiting=Waiting(time.sleep, uniform),
            publish=partial(_publish, state, client("s3"), contract),
        )
        choice = Choice(contract, device, also_mentions, shared)
        report = preview(places, choice) if dry_run else erased(places, choice)
    if as_json:
        shown.print_json(report.to_json())
    else:
        _show(report, dry_run=dry_run)
    if not dry_run and not report.erased:
        sys.exit(run.UNACCOUNTED)


def _publish(state: State, s3: S3Client, contract: Contract) -> None:
    """Where the lake was shown as a table of Iceberg: show it as it is, and forget what was."""
    if (state / iceberg.CATALOG).exists():
        iceberg.publish(state, s3, [contract])
        iceberg.expire(state, s3, contract, datetime.now(UTC))


def _show(report: Report, *, dry_run: bool) -> None:
    for place, count in report.counts.items():
        shown.out.print(f"  {place:<12}{count:>12,}")
    for title, positions in (
        ("may mention it, and cannot be read; erased with --also-mentions", report.mentions),
        ("hold messages of others too; their bodies go whole with --shared", report.shared),
    ):
        if positions:
            shown.out.print(f"{len(positions):,} source records {title}:", soft_wrap=True)
            for position in positions[: shown.ROWS_SHOWN]:
                shown.out.print(f"  {shown.one_line(position)}", markup=False, soft_wrap=True)
    if report.owed:
        shown.out.print(f"{report.owed:,} debts of the hot table have to be paid before")
    if not dry_run:
        said = f"Erased; {report.audit} says so." if report.audit else "There is nothing of it."
        shown.out.print(said if report.erased else "Not all of it is erased; run it again.")
