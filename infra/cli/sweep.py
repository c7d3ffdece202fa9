"""`millrace sweep`: hot rows that count and that nobody owes become debts of the repair queue."""

from __future__ import annotations

import click

from infra.cli import run, shown
from infra.cli.query import require_used
from infra.local.edge import wiring_of
from infra.local.embedded import served
from infra.local.resources import Client
from infra.local.state import State
from infra.topology import pipeline
from ingest import sweep as sweeping
from ingest.sweep import Report
from transform.contract import Contract

EXAMPLES = """\b
Examples:
  millrace sweep --dry-run
  millrace sweep --state /tmp/demo --json
"""


@click.command(epilog=EXAMPLES)
@click.option("--dry-run", is_flag=True, help="Say what nobody owes; owe nothing.")
@run.state_option
@run.json_option
def sweep(dry_run: bool, state: State, as_json: bool) -> None:
    """Owe the hot items of records that landed, were settled otherwise and count all the same.

    Safe at any moment and any number of times: it leaves alone what landed in the last quarter of
    an hour, and what its source may bring again. The pipeline's repair function pays the debts.
    """
    require_used(state)
    with served(state) as client:
        found = {
            contract.name: _sweep(contract, state, client, dry_run=dry_run)
            for contract in state.contracts()
        }
    if as_json:
        shown.print_json({name: report.to_json() for name, report in found.items()})
        return
    for name, report in found.items():
        said = "would be owed" if dry_run else "are owed now"
        shown.out.print(f"{name}: {report.rows:,} hot rows {said}, in {report.debts:,} debts")
        if report.left and not dry_run:
            shown.out.print(f"  {report.left:,} of them are for the next sweep: the queue is full")


def _sweep(contract: Contract, state: State, client: Client, *, dry_run: bool) -> Report:
    kept = state / "contracts" / f"{contract.name}.toml"
    wiring = wiring_of(pipeline(contract.name, str(kept)), client)
    return sweeping.told(sweeping.due(wiring)) if dry_run else sweeping.sweep(wiring)
