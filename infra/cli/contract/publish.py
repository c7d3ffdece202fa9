"""`millrace contract publish`, `versions` and `use`: versions of a contract side by side."""

from __future__ import annotations

import click

from infra.cli import run, shown
from infra.local.embedded import served
from infra.local.state import State
from infra.topology import BUCKET
from sinks import registry
from sinks.bucket import Bucket
from sinks.registry import Index, RegistryError
from transform.contract_file import load_contract

PUBLISH = """\b
Examples:
  millrace contract publish ./fleet-2.toml
"""
USE = """\b
Examples:
  millrace contract use fleet 1
"""


@click.command(epilog=PUBLISH)
@click.argument("contract", metavar="NAME|PATH")
@run.state_option
@run.json_option
def publish(contract: str, state: State, as_json: bool) -> None:
    """Put a version beside those in use, without a deployment, and make it the current one.

    Within half a minute it reads every record that names no version of its own. Records that name
    an older one are still read by that. What a version said can never be changed.
    """
    rules = load_contract(contract)
    with served(state) as client:
        try:
            index = registry.publish(Bucket(client("s3"), BUCKET), rules)
        except RegistryError as error:
            raise click.UsageError(str(error)) from None
    _show(rules.name, index, as_json)


@click.command()
@click.argument("name")
@run.state_option
@run.json_option
def versions(name: str, state: State, as_json: bool) -> None:
    """List the published versions of a contract and their digests."""
    with served(state) as client:
        index = registry.read(Bucket(client("s3"), BUCKET), name)
    _show(name, index, as_json)


@click.command(epilog=USE)
@click.argument("name")
@click.argument("version", type=click.IntRange(min=1))
@run.state_option
@run.json_option
def use(name: str, version: int, state: State, as_json: bool) -> None:
    """Make a published version the current one: the way back from a bad one."""
    with served(state) as client:
        try:
            index = registry.use(Bucket(client("s3"), BUCKET), name, version)
        except RegistryError as error:
            raise click.UsageError(str(error)) from None
    _show(name, index, as_json)


def _show(name: str, index: Index, as_json: bool) -> None:
    if as_json:
        told = {str(number): digest for number, digest in index.versions}
        shown.print_json({"contract": name, "current": index.current, "versions": told})
        return
    if not index.versions:
        click.echo(f"No version of {name} is published: functions use the one they carry.")
    for number, digest in index.versions:
        mark = "current" if number == index.current else ""
        click.echo(f"{name} {number:>4}  {digest}  {mark}".rstrip())
