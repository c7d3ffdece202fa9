"""`millrace resume`: go on after the breaker stopped a mapping."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from infra.cli import paused, run
from infra.cli.moments import MOMENT, micros
from infra.cli.query import require_used
from infra.local.embedded import served
from infra.local.state import State
from infra.local.switches import Switches
from infra.topology import BUCKET, pipeline
from ingest import breaker
from sinks.bucket import Bucket
from transform.contract import Contract

EXAMPLES = """\b
Examples:
  millrace resume
  millrace resume --accept telemetry --until 2030-01-01
"""


@click.command(epilog=EXAMPLES)
@click.option(
    "--accept", metavar="CONTRACT", help="Its rejects are right: quarantine them (with --until)."
)
@click.option("--until", type=MOMENT, help="... of what arrives before. ISO-8601 or a date.")
@run.state_option
def resume(accept: str | None, until: datetime | None, state: State) -> None:
    """Enable what the breaker stopped, here or in the pipeline that runs on this state.

    Without --accept the same records stop it again, unless their cause is mended.
    """
    if (accept is None) != (until is None):
        raise click.UsageError("--accept and --until go together")
    require_used(state)
    known = state.contracts()
    if accept is not None and accept not in {contract.name for contract in known}:
        names = ", ".join(contract.name for contract in known)
        raise click.UsageError(f"--accept {accept!r}: this state has {names}")
    with served(state) as client:
        bucket = Bucket(client("s3"), BUCKET)
        if accept is not None and until is not None:
            _accept(bucket, accept, until)
        resumed = sum(_resume(bucket, contract, state) for contract in known)
    if not resumed:
        click.echo("Nothing was paused.")


def _accept(bucket: Bucket, contract: str, before: datetime) -> None:
    service = pipeline(contract, contract).service
    breaker.accept(bucket, service, breaker.Accepted(contract, micros(before)))
    until = before.astimezone(UTC).isoformat(timespec="seconds")
    click.echo(f"Rejects of {contract} that arrive before {until} are set aside from now on.")


def _resume(bucket: Bucket, contract: Contract, state: State) -> int:
    """Enable the mappings of a contract's pipeline; how many were disabled."""
    topology = pipeline(contract.name, contract.name)
    for stop in paused.stops(bucket, topology.service):
        breaker.reset(bucket, topology.service, stop.source)
        click.echo(f"It was stopped at {stop.at}: {stop.finding}.")
    off = [switch for switch in Switches(state / "paused", topology) if not switch.enabled]
    for switch in off:
        switch.turn(on=True)
        click.echo(f"Resumed: {switch.source_arn}")
    return len(off)
