"""`millrace compact`: what landed becomes part of the lake."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from infra.cli import run, shown
from infra.cli.query import require_used
from infra.local.embedded import served
from infra.local.iceberg import CATALOG, expire, publish
from infra.local.state import State
from infra.topology import BUCKET, LEDGER
from sinks.bucket import Bucket
from sinks.lake.compact import Compacted
from sinks.lake.retire import HISTORY, Keep, Retired
from sinks.lake.retire import retire as retire_old
from sinks.lake.work import ROWS_MAX, Choice
from sinks.lake.work import run as compactions
from sinks.lake.workspace import MEMORY_MB, Limits
from sinks.table import Table
from transform.contract import Contract

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

EXAMPLES = """\b
Examples:
  millrace compact
  millrace compact --orphans --json
"""


@click.command(epilog=EXAMPLES)
@click.option("--contract", "names", metavar="NAME", multiple=True, help="Only of this contract.")
@click.option(
    "--rows-max",
    type=click.IntRange(1),
    default=ROWS_MAX,
    show_default=True,
    help="Rows that one commit takes in.",
)
@click.option(
    "--memory-mb",
    type=click.IntRange(128),
    default=MEMORY_MB,
    show_default=True,
    help="What sorting may take; more is sorted in files.",
)
@click.option("--orphans", is_flag=True, help="Look for objects that no attempt told of, too.")
@click.option("--iceberg", is_flag=True, help="Then show the lake as tables of Iceberg, too.")
@click.option("--retire", is_flag=True, help="Then delete what nobody can need any more.")
@run.state_option
@run.json_option
def compact(
    names: tuple[str, ...],
    rows_max: int,
    memory_mb: int,
    orphans: bool,
    iceberg: bool,
    retire: bool,
    state: State,
    as_json: bool,
) -> None:
    """Take what landed into the lake: by event hour, sorted, each record once.

    Safe at any moment, any number of times, and beside a running pipeline: readers see the lake as
    it was or as it is. What is cut short changes nothing.
    """
    require_used(state)
    choice = Choice(rows_max, orphans, Limits(memory_mb))
    contracts = chosen(state, names)
    with served(state) as client:
        bucket, ledger = Bucket(client("s3"), BUCKET), Table(client("dynamodb"), LEDGER)
        told = [
            _told(contract, list(compactions(bucket, ledger, contract, choice)))
            for contract in contracts
        ]
        if iceberg:
            for one, contract in zip(told, contracts, strict=True):
                one["iceberg"] = [vars(t) for t in publish(state, client("s3"), [contract])]
        if retire:
            for one, contract in zip(told, contracts, strict=True):
                one["retired"] = vars(_retired(state, client("s3"), contract))
    if as_json:
        shown.print_json(told)
        return
    for one in told:
        shown.out.print(
            "{contract}: {rows:,} rows of {objects:,} objects taken in, {repeats:,} of them "
            "repeats; {hours:,} hours changed; the lake has {lake_rows:,} rows in {files:,} files "
            "(version {version})".format(**one)
        )
        for table in one.get("iceberg", ()):
            shown.out.print(f"  {table['table']} in {state / CATALOG}: version {table['version']}")
        if gone := one.get("retired"):
            shown.out.print(
                "  deleted: {files:,} files, {manifests:,} manifests, {landing:,} landing "
                "objects".format(**gone)
            )


def _retired(state: State, s3: S3Client, contract: Contract) -> Retired:
    """What tables of Iceberg still show is kept."""
    now = datetime.now(UTC)
    known = (state / CATALOG).exists()
    needed = expire(state, s3, contract, now - HISTORY) if known else frozenset()
    return retire_old(Bucket(s3, BUCKET), contract.name, now, Keep(needed=needed))


def chosen(state: State, names: tuple[str, ...]) -> list[Contract]:
    """The contracts of these names, or all that were used on a state."""
    known = {contract.name: contract for contract in state.contracts()}
    for name in names:
        if name not in known:
            there = ", ".join(sorted(known)) or "none"
            raise click.UsageError(f"no contract {name!r} was used here; there are: {there}")
    return [known[name] for name in names or sorted(known)]


def _told(contract: Contract, done: list[Compacted]) -> dict[str, Any]:
    lake = done[-1].lake
    return {
        "contract": contract.name,
        "objects": sum(one.objects for one in done),
        "rows": sum(one.rows for one in done),
        "repeats": sum(one.repeats for one in done),
        "hours": len({hour for one in done for hour in one.hours}),
        "commits": sum(one.objects > 0 for one in done),
        "version": lake.version,
        "lake_rows": lake.rows,
        "files": sum(1 for _ in lake.files),
        "bytes": sum(file.bytes for file in lake.files),
        "seconds": round(sum(one.seconds for one in done), 3),
    }
