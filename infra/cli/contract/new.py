"""`millrace contract new`: a contract from a sample file."""

from __future__ import annotations

import time
from pathlib import Path

import click

from infra.cli import run, shown
from infra.contracts.drafts import Draft, contract_name, draft
from infra.contracts.samples import read_sample
from transform.contract_file import CONTRACT_NAME

EXAMPLES = """\b
Examples:
  millrace contract new readings.ndjson > fleet.toml
  millrace contract new readings.json.gz --name fleet --out fleet.toml
"""


@click.command(epilog=EXAMPLES)
@click.argument("file", metavar="FILE|-")
@click.option("--name", metavar="N", help="The contract's name; else it is the file's.")
@click.option("--out", metavar="PATH", help="Where to write it; else it is printed.")
@run.json_option
def new(file: str, name: str | None, out: str | None, as_json: bool) -> None:
    """Draft a contract from a sample: NDJSON or JSON, gzipped or not.

    Fields, types, limits, units and identity are guessed, and each guess is explained beside it.
    The draft has taken the sample when it is shown; what it would reject is told.
    """
    named = contract_name(file) if name is None else name
    if not CONTRACT_NAME.fullmatch(named):
        raise click.UsageError(f"--name {named!r}: lower-case letters, digits and -, at most 40")
    made = draft(read_sample(file), named, time.time_ns() // 1_000)
    if out is not None:
        _write(Path(out), made.text)
    if as_json:
        shown.print_json(
            {
                "contract": made.text,
                "fields": [field.name for field in made.contract.fields],
                "warnings": list(made.warnings),
                "sample": made.trial.to_json(),
            }
        )
        return
    if out is None:
        click.echo(made.text, nl=False)
    _tell(made, out)


def _write(path: Path, text: str) -> None:
    """Never over a file that is there: it may be somebody's work."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise click.UsageError(f"{path} is there already; name another with --out") from None


def _tell(made: Draft, out: str | None) -> None:
    trial = made.trial
    where = f" in {out}" if out else ""
    say = shown.err.print
    say(
        f"{len(made.contract.fields)} fields{where}; {trial.delivered:,} of {trial.records:,} "
        "records of the sample would be delivered",
        markup=False,
        soft_wrap=True,
    )
    for warning in made.warnings:
        say(f"  - {shown.one_line(warning)}", markup=False, soft_wrap=True)
