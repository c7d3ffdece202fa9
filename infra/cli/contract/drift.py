"""`millrace contract drift`: what has changed in the fleet, and how the contract could follow."""

from __future__ import annotations

import click

from infra.cli import run, shown
from infra.cli.query import require_used
from infra.contracts.drift import Drift, drifts
from infra.lake import Lake
from infra.local.embedded import served
from infra.local.state import State
from infra.topology import BUCKET, LEDGER
from sinks.bucket import Bucket
from sinks.table import Table
from transform.contract import Contract

EXAMPLES = """\b
Examples:
  millrace contract drift
  millrace contract drift --contract telemetry --json
"""


@click.command(epilog=EXAMPLES)
@click.option("--contract", "name", metavar="NAME", help="Only of this contract.")
@run.state_option
@run.json_option
def drift(name: str | None, state: State, as_json: bool) -> None:
    """Say what messages have come to hold that their contract does not say.

    Unknown fields, and rejections by reason and field: how many, since when, of which devices; and
    a patch, where the contract could follow. Whether it should is for people to say.
    """
    require_used(state)
    chosen = _chosen(state.contracts(), name)
    with served(state) as client:
        lake = Lake(Bucket(client("s3"), BUCKET), Table(client("dynamodb"), LEDGER), chosen)
        found = [(one.name, drifts(lake, one)) for one in chosen]
    if as_json:
        told = [{"contract": name, **one.to_json()} for name, every in found for one in every]
        shown.print_json(told)
        return
    for contract, every in found:
        click.echo(f"{contract}: {len(every)} drifts" if every else f"{contract}: no drift")
        for one in every:
            _tell(one)


def _chosen(contracts: list[Contract], name: str | None) -> list[Contract]:
    chosen = [one for one in contracts if name in (None, one.name)]
    if not chosen:
        known = ", ".join(one.name for one in contracts)
        raise click.UsageError(f"--contract {name!r}: this state has {known}")
    return chosen


def _tell(one: Drift) -> None:
    devices = ", ".join(one.devices) or "no device to be seen"
    lines = (
        f"  {one.what} {one.field}".rstrip() + f": {one.count:,}, {one.share:.1%} since "
        f"{one.since:%Y-%m-%dT%H:%M:%SZ}",
        f"    of {devices}",
        f"    {one.note}",
    )
    for line in lines:
        click.echo(shown.one_line(line))
    for line in (one.patch or "").splitlines():
        click.echo(f"    {shown.one_line(line)}")
