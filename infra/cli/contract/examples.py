"""`millrace contract test`: the examples in a contract file, tried."""

from __future__ import annotations

import sys
import time

import click

from infra.cli import run, shown
from infra.contracts.examples import verdicts
from transform.contract_file import load_contract

EXAMPLES = """\b
Examples:
  millrace contract test fleet.toml
  millrace contract test telemetry --json
"""


@click.command(epilog=EXAMPLES)
@click.argument("file")
@run.json_option
def test(file: str, as_json: bool) -> None:
    """Try the [[example]] tables of a contract: whether each message becomes what it says.

    It exits with 1 if one does not.
    """
    contract = load_contract(file)
    found = verdicts(contract, time.time_ns() // 1_000)
    if not found:
        raise click.UsageError(f"{file} has no [[example]]; see `Contracts` in README.md")
    if as_json:
        shown.print_json([one.to_json() for one in found])
    else:
        for one in found:
            click.echo(shown.one_line(f"{'pass' if one.holds else 'FAIL'}  {one.name}"))
            for difference in one.differences:
                click.echo(shown.one_line(f"      {difference.what}"))
                click.echo(shown.one_line(f"        - {difference.expected}"))
                click.echo(shown.one_line(f"        + {difference.found}"))
        held = sum(one.holds for one in found)
        click.echo(f"{held} of {len(found)} examples hold")
    if not all(one.holds for one in found):
        sys.exit(run.UNACCOUNTED)
