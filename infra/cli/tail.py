"""`millrace quarantine tail`: rejects as they come."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import click

from infra.cli import run, shown
from infra.cli.moments import MOMENT
from infra.cli.query import require_used
from infra.fates import POLL_SECONDS, Follower
from infra.local.embedded import served
from infra.local.state import Running, State
from infra.tail import Reject, Tail, Wanted
from infra.topology import BUCKET, LEDGER
from sinks import ledger
from sinks.bucket import Bucket
from sinks.table import Table

EXAMPLES = """\b
Examples:
  millrace quarantine tail
  millrace quarantine tail --device s-17 --since 2026-11-24T10:00:00Z
  millrace quarantine tail --reason out_of_range --json | jq .position
"""


@click.command("tail", epilog=EXAMPLES)
@click.option("--device", metavar="ID", help="Only of this device, or partition key.")
@click.option("--reason", metavar="REASON", help="Only of this reason, such as out_of_range.")
@click.option("--contract", metavar="NAME", help="Only of this contract.")
@click.option("--since", type=MOMENT, help="Also what was set aside from then on: ISO-8601.")
@run.state_option
@run.json_option
def tail(
    device: str | None,
    reason: str | None,
    contract: str | None,
    since: datetime | None,
    state: State,
    as_json: bool,
) -> None:
    """Follow a running pipeline's rejects, one line each, until Ctrl-C.

    On a stopped state it prints what there is and ends. A device is read from the record's body;
    where that cannot be read, the partition key (or message group) stands for it.
    """
    require_used(state)
    names = [known.name for known in state.contracts()]
    if contract is not None and contract not in names:
        raise click.UsageError(f"--contract {contract!r}: this state has {', '.join(names)}")
    there, now = state.running(), datetime.now(UTC)
    begin = now if there is not None and since is None else since
    with served(state) as client:
        bucket, table = Bucket(client("s3"), BUCKET), Table(client("dynamodb"), LEDGER)
        rejects = Tail(bucket, state.contracts(), Wanted(device, reason, contract, begin))
        if since is not None or there is None:
            _print(rejects.of(ledger.attempts(table)), as_json)
        if there is not None:
            _follow(rejects, Follower(table, now), (state, there), as_json)


def _follow(
    rejects: Tail, follower: Follower, while_running: tuple[State, Running], as_json: bool
) -> None:
    """Print what comes until the pipeline that was found running stops."""
    state, there = while_running
    while state.running() == there:
        _print(rejects.of(follower.follow()), as_json)
        time.sleep(POLL_SECONDS)
    shown.err.print(f"process {there.pid} has stopped its pipeline", soft_wrap=True)


def _print(rejects: Iterable[Reject], as_json: bool) -> None:
    for reject in rejects:
        if as_json:
            shown.print_json(reject)
        else:
            line = "  ".join(shown.one_line(text) for text in _columns(reject))
            shown.out.print(line, markup=False, soft_wrap=True)


def _columns(reject: Reject) -> Iterator[str]:
    yield reject["settled_at"]
    yield reject["contract"]
    yield reject["device"] or reject["partition_key"] or "-"
    yield reject["reason"]
    yield reject["field"] or "-"
    yield reject["position"]
    yield reject["detail"]
