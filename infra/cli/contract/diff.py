"""`millrace contract diff`: what a change of a contract means, and for whom."""

from __future__ import annotations

import sys

import click

from infra.cli import run, shown
from infra.contracts.diff import Change, changes
from transform.contract_file import load_contract

EXAMPLES = """\b
Examples:
  millrace contract diff fleet.toml fleet-2.toml
  millrace contract diff telemetry ./my-telemetry.toml --json
"""


@click.command(epilog=EXAMPLES)
@click.argument("old")
@click.argument("new")
@run.json_option
def diff(old: str, new: str, as_json: bool) -> None:
    """Say of each change between two contracts whether it is safe or breaking, and for whom.

    It exits with 1 if one is breaking.
    """
    found = changes(load_contract(old), load_contract(new))
    if as_json:
        shown.print_json([one.to_json() for one in found])
    else:
        for one in found:
            _tell(one)
        breaking = sum(one.breaking for one in found)
        click.echo(f"{len(found)} changes, {breaking} breaking" if found else "No rule differs.")
    if any(one.breaking for one in found):
        sys.exit(run.UNACCOUNTED)


def _tell(change: Change) -> None:
    kind = "BREAKING" if change.breaking else "safe    "
    was, now = (_short(value) for value in (change.old, change.new))
    click.echo(shown.one_line(f"{kind}  {change.key}: {was} -> {now}"))
    click.echo(shown.one_line(f"          {', '.join(change.whom)}: {change.why}"))
    if change.todo:
        click.echo(f"          what to do: {change.todo}")


def _short(value: object) -> str:
    if value is None:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
