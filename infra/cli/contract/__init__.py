"""`millrace contract`: write a contract, try it, and see what changes. One file per command."""

from __future__ import annotations

import click

from infra.cli.contract.check import check
from infra.cli.contract.diff import diff
from infra.cli.contract.drift import drift
from infra.cli.contract.examples import test
from infra.cli.contract.new import new
from infra.cli.contract.publish import publish, use, versions
from infra.cli.contract.schema import schema

EXAMPLES = """\b
Examples:
  millrace contract new readings.ndjson --out fleet.toml
  millrace contract check fleet.toml --sample readings.ndjson
  millrace contract test fleet.toml
  millrace contract schema fleet.toml --format markdown
  millrace contract diff telemetry fleet.toml
  millrace contract drift --contract fleet
"""


@click.group(epilog=EXAMPLES)
def contract() -> None:
    """Write contracts: draft one from a sample, check, test and compare it, and see drift."""


for command in (new, check, test, schema, diff, drift, publish, versions, use):
    contract.add_command(command)
