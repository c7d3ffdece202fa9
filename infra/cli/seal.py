"""`millrace seal`: hours that are final are said to be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import click

from infra.cli import run, shown
from infra.cli.compact import chosen
from infra.cli.moments import DURATION
from infra.cli.query import require_used
from infra.cli.watermarks import print_watermarks, told
from infra.local.edge import parked_of, sources_of, wiring_of
from infra.local.embedded import running, served
from infra.local.resources import Client
from infra.local.state import State
from infra.partitions import text
from infra.sealing import Sealer
from infra.topology import pipeline
from sinks.lake.manifest import Manifest
from transform.contract import Contract

LATENESS = timedelta(minutes=10)
TIMEOUT = timedelta(seconds=30)
MICROSECOND = timedelta(microseconds=1)

EXAMPLES = """\b
Examples:
  millrace seal
  millrace seal --lateness 1h --contract fleet --json
"""


@click.command(epilog=EXAMPLES)
@click.option("--contract", "names", metavar="NAME", multiple=True, help="Only of this contract.")
@click.option(
    "--lateness",
    type=DURATION,
    default=LATENESS,
    show_default="10m",
    help="How long after its end an hour stays open.",
)
@click.option(
    "--timeout",
    type=DURATION,
    default=TIMEOUT,
    show_default="30s",
    help="How long to wait for markers; 0s puts none.",
)
@run.state_option
@run.json_option
def seal(
    names: tuple[str, ...], lateness: timedelta, timeout: timedelta, state: State, as_json: bool
) -> None:
    """Seal the hours of the lake that every source is past, by more than the allowed lateness.

    A marker is put into each shard, in the running pipeline or in one that is started for it, so
    that idle shards are heard of. Hours with rows that are not compacted stay open.
    """
    require_used(state)
    done = []
    for contract in chosen(state, names):
        with _clients(state, contract, marked=bool(timeout)) as (client, marked):
            sealer = sealer_of(state, contract, client, lateness)
            if marked:
                sealer.mark(timeout.total_seconds())
            done.append(_told(*sealer.seal()) | {"watermarks": told(sealer.look())})
    if as_json:
        shown.print_json(done)
        return
    for one in done:
        shown.out.print(
            "{contract}: {newly} hours sealed, {sealed} of {hours} are; "
            "{missing} records known missing".format(**one)
        )
        print_watermarks(one["watermarks"])


def sealer_of(state: State, contract: Contract, client: Client, lateness: timedelta) -> Sealer:
    """What seals a contract's lake on this machine."""
    kept = state / "contracts" / f"{contract.name}.toml"
    topology = pipeline(contract.name, str(kept))
    wiring = wiring_of(topology, client)
    return Sealer(
        wiring.bucket,
        contract,
        wiring.transform(wiring.epoch()),
        sources_of(topology, client),
        lambda: parked_of(topology, client),
        lateness // MICROSECOND,
    )


@contextmanager
def _clients(state: State, contract: Contract, *, marked: bool) -> Iterator[tuple[Client, bool]]:
    """Clients of the contract's pipeline, and whether it runs, so that markers are worked on."""
    there = state.running()
    if marked and (there is None or there.pipeline == contract.name):
        kept = state / "contracts" / f"{contract.name}.toml"
        with running(state, str(kept)) as system:
            yield system.client, True
        return
    with served(state) as client:
        yield client, False


def _told(before: Manifest, after: Manifest) -> dict[str, Any]:
    seals = {part.hour: part.seal for part in after.partitions if part.seal}
    held = {part.hour for part in before.partitions if part.seal}
    return {
        "contract": after.contract,
        "version": after.version,
        "hours": len(after.partitions),
        "sealed": len(seals),
        "newly": len(seals.keys() - held),
        "missing": sum(one.missing for one in seals.values()),
        "as_of": text(max(one.as_of for one in seals.values())) if seals else None,
    }
