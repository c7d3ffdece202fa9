"""`millrace verify`: proof that every record is in one place, or the names of what is wrong."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from itertools import groupby

import click
from rich.markup import escape

from infra.cli import run, shown
from infra.cli.query import require_used
from infra.evidence import Stores
from infra.local.embedded import served
from infra.local.resources import Client, queue_url, queues_of
from infra.local.state import State
from infra.parked import parked
from infra.sources import held, together
from infra.topology import BUCKET, LEDGER, pipeline
from infra.verify import Finding, Report
from infra.verify import verify as prove
from sinks.bucket import Bucket
from sinks.table import Table

NAMED_MAX = 20  # findings of each check that people are shown; --json has all
MICROS = 1_000_000

EXAMPLES = """\b
Names what is  missing      a record, element or hot item that is nowhere
               twice        one place too many
               conflict     equal record ids, or one position, with other bytes
               unexplained  rows, objects, ledger or hot items that do not agree
It exits with 1 if there is any.

\b
Examples:
  millrace verify
  millrace verify --state /tmp/demo --json
"""


@click.command(epilog=EXAMPLES)
@run.state_option
@run.json_option
def verify(state: State, as_json: bool) -> None:
    """Prove that every record received is in exactly one place, and say how far the proof reaches.

    Raw objects, landing, quarantine, parked records, ledger, hot store and the streams themselves
    are read and compared, and the rules are applied to every raw record again.
    """
    require_used(state)
    started = time.monotonic()
    with served(state) as client:
        report = prove(stores_of(state, client))
    if as_json:
        shown.print_json(report.to_json())
    else:
        show(report, time.monotonic() - started)
    if not report.proven:
        sys.exit(run.UNACCOUNTED)


def stores_of(state: State, client: Client) -> Stores:
    """Every store of a state's pipelines."""
    contracts = state.contracts()
    topologies = [pipeline(contract.name, contract.name) for contract in contracts]
    bucket = Bucket(client("s3"), BUCKET)
    prefix = next((t.stream_mapping.on_failure_prefix for t in topologies), None)
    queues = {
        queue.name: queue_url(client, letters)
        for topology in topologies
        for queue, letters in queues_of(topology, client)
    }
    sources = together(held(t, client, state / "checkpoints") for t in topologies)
    return Stores(
        bucket=bucket,
        ledger=Table(client("dynamodb"), LEDGER),
        hot={t.name: Table(client("dynamodb"), t.hot_table.name) for t in topologies},
        contracts=contracts,
        now_micros=int(time.time() * MICROS),
        parked=parked(bucket, prefix, client("sqs"), queues),
        held=sources,
    )


def show(report: Report, seconds: float) -> None:
    """The proof, or what contradicts it, for people."""
    out = shown.out
    for fate, count in report.fates.items():
        if count or fate in ("delivered", "quarantined", "missing"):
            out.print(f"  {fate:<12}{count:>12,}")
    out.print("[bold]Read[/bold]")
    for text in report.scope:
        out.print(f"  {escape(text)}", soft_wrap=True)
    if report.unchecked:
        out.print("[bold]Not proven[/bold]")
    for text in report.unchecked:
        out.print(f"  {escape(text)}", soft_wrap=True)
    _show_findings([finding for finding in report.findings if not finding.cause], report.findings)
    if report.proven:
        out.print(
            f"[green]Proven in {seconds:.1f} s: every record is in exactly one place.[/green]"
        )
    else:
        out.print(f"[red bold]{len(report.findings):,} things are wrong.[/red bold]")


def _show_findings(findings: list[Finding], others: Sequence[Finding], indent: str = "") -> None:
    """Some of each check, and under each what it explains of the others."""
    for (kind, check), group in groupby(findings, lambda f: (f.kind, f.check)):
        found = list(group)
        shown.out.print(f"{indent}[red bold]{kind}: {check}[/red bold] ({len(found):,})")
        for finding in found[:NAMED_MAX]:
            text = f"{indent}  {shown.one_line(finding.name)}  {shown.one_line(finding.detail)}"
            shown.out.print(escape(text), soft_wrap=True)
            explained = [f for f in others if f.cause == finding.name]
            _show_findings(explained, (), f"{indent}    ")
        if len(found) > NAMED_MAX:
            more = len(found) - NAMED_MAX
            shown.out.print(f"{indent}  … and {more:,} more; --json has all", soft_wrap=True)
