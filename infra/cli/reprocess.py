"""`millrace reprocess`: a range of arrivals again, by other rules."""

from __future__ import annotations

import sys
from datetime import datetime

import click
import pyarrow as pa

from infra.cli import run, shown
from infra.cli.moments import MOMENT, micros
from infra.cli.query import require_used
from infra.local.edge import wiring_of
from infra.local.embedded import running, served
from infra.local.state import State, StateError
from infra.topology import BUCKET, pipeline
from ingest import reprocess as reprocessing
from ingest.reprocess import Report
from ingest.settings import EPOCH_SECONDS
from sinks import control
from sinks.bucket import Bucket
from transform.contract import Contract
from transform.contract_file import load_contract

EXAMPLES = """\b
Examples:
  millrace reprocess --from 2026-11-24 --to 2026-11-25 --contract ./my-fleet.toml --dry-run
  millrace reprocess --from 2026-11-24T10:00:00Z --to 2026-11-24T11:00:00Z --contract telemetry
"""


@click.command(epilog=EXAMPLES)
@click.option(
    "--from",
    "start",
    type=MOMENT,
    metavar="TIME",
    required=True,
    help="Arrival from; ISO or a date.",
)
@click.option("--to", "stop", type=MOMENT, required=True, help="Arrival before.")
@click.option("--contract", metavar="FILE", required=True, help="The rules to judge by.")
@click.option("--dry-run", is_flag=True, help="Count what would change; write nothing.")
@run.state_option
@run.json_option
def reprocess(
    start: datetime, stop: datetime, contract: str, dry_run: bool, state: State, as_json: bool
) -> None:
    """Run what arrived in a span again under a greater epoch, and remove stale hot items.

    The same command again goes on with one that was cut short. It exits with 1 if a record was
    handed back or a hot item could not be removed.
    """
    low, high = micros(start), micros(stop)
    if low >= high:
        raise click.UsageError("--from must lie before --to")
    rules = load_contract(contract)
    require_used(state)
    if dry_run:
        with served(state) as client:
            wiring = wiring_of(pipeline(rules.name, contract), client)
            report = reprocessing.preview(wiring, low, high)
        _show(report, as_json)
        return
    report = _reprocess(state, rules, contract, low, high)
    _show(report, as_json)
    if not report.complete:
        sys.exit(run.UNACCOUNTED)


def _reprocess(state: State, rules: Contract, contract: str, low: int, high: int) -> Report:
    there = state.running()
    if there is None:
        with served(state) as client:  # before a mapping reads anything under the epoch before
            reprocessing.rules_of(wiring_of(pipeline(rules.name, contract), client), 0)
            control.begin(Bucket(client("s3"), BUCKET), low, high, rules.digest)
    elif rules.source not in {known.source for known in state.contracts()}:
        raise StateError(
            f"process {there.pid} runs {there.pipeline} by other rules than {contract}; stop it, "
            "run this again (it keeps the new rules), then start it again with --contract "
            f"{contract}"
        )
    with running(state, contract) as system:
        topology = system.topology
        ingest_seconds = max(
            topology.ingest_stream.timeout_seconds, topology.ingest_queue.timeout_seconds
        )
        grace = ingest_seconds + EPOCH_SECONDS if there is not None else 0
        if grace:
            shown.err.print(f"a pipeline is running: {grace} s are waited for what it has begun")
        wiring = wiring_of(topology, system.client, system.url)
        return reprocessing.reprocess(wiring, low, high, grace)


def _show(report: Report, as_json: bool) -> None:
    if as_json:
        shown.print_json(report.to_json())
        return
    sides = {"before": report.before, "after": report.after}
    rows = [{"": side, **counted} for side, counted in sides.items()]
    shown.print_table(pa.Table.from_pylist(rows))
    shown.out.print(
        f"epoch {report.epoch}: {report.positions:,} positions, {report.changed:,} changed, "
        f"{report.handed_back:,} handed back, {report.hot_keys_removed:,} hot keys removed, "
        f"{report.hot_rows_owed:,} hot rows owed"
    )
    for problem in report.problems:
        shown.err.print(problem, markup=False, soft_wrap=True)
