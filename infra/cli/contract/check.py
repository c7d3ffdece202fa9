"""`millrace contract check`: every mistake of a contract, and what a sample becomes under it."""

from __future__ import annotations

import sys
import time

import click

from infra.cli import run, shown
from infra.contracts.mistakes import mistakes
from infra.contracts.samples import read_sample
from infra.contracts.trial import Trial, tried
from transform.contract import Contract
from transform.contract_file import (
    ContractError,
    contract_path,
    files_beside,
    load_contract,
    parse_contract,
    read_file,
)
from transform.versions import clash

EXAMPLES = """\b
Examples:
  millrace contract check fleet.toml
  millrace contract check fleet.toml --sample readings.ndjson
  millrace contract check fleet-2.toml --beside fleet-1.toml --sample readings.ndjson
"""


@click.command(epilog=EXAMPLES)
@click.argument("file")
@click.option("--sample", metavar="FILE|-", help="Records to try it with.")
@click.option("--beside", metavar="FILE", multiple=True, help="A version that records may name.")
@run.json_option
def check(file: str, sample: str | None, beside: tuple[str, ...], as_json: bool) -> None:
    """Say every mistake of a contract, each with its line, its column and what is allowed.

    With a sample it says how many records would be delivered, and why others would not. Versions
    beside it must be fit to be published with it, and read what names them. It exits with 2 if the
    contract has mistakes, with 1 if a record of the sample is rejected.
    """
    path = contract_path(file)
    data = read_file(path)
    found = mistakes(data, str(path), files_beside(path))
    if found:
        if as_json:
            shown.print_json({"mistakes": [one.to_json() for one in found], "sample": None})
        for one in found:
            click.echo(str(one), err=True)
        run.fail(f"{path} has {_mistakes(len(found))}", run.WRONG_INPUT)
    contract = parse_contract(data, str(path), files_beside(path))
    older = _beside(contract, beside)
    trial = None
    if sample is not None:
        trial = tried(contract, read_sample(sample), time.time_ns() // 1_000, older)
    if as_json:
        shown.print_json({"mistakes": [], "sample": trial and trial.to_json()})
    else:
        click.echo(f"{path}: {contract.name} {contract.version}, {len(contract.fields)} fields")
        if trial:
            _tell(trial)
    if trial and trial.quarantined:
        sys.exit(run.UNACCOUNTED)


def _beside(contract: Contract, files: tuple[str, ...]) -> tuple[Contract, ...]:
    """The versions in these files. Raises `ContractError` where two could not be in use at once."""
    every = [contract]
    for file in files:
        version = load_contract(file)
        for other in every:
            if version.version == other.version:
                raise ContractError(f"{file}: version {version.version} is there twice")
            if why := clash(other, version):
                raise ContractError(f"{file} cannot be in use beside the others: {why}")
        every.append(version)
    return tuple(every[1:])


def _tell(trial: Trial) -> None:
    click.echo(f"{trial.records:,} records: {_fates(trial)}")
    for one in trial.rejected:
        field = f" ({one.field})" if one.field else ""
        lines = (
            f"  {one.count:,} {one.reason}{field}",
            f"    {one.where}: {one.detail}",
            f"    {one.body}",
        )
        for line in lines:
            click.echo(shown.one_line(line))
    for rule, count in trial.dropped_by.items():
        click.echo(f"  {count:,} rows dropped by {rule}")
    if trial.rows != trial.delivered:
        click.echo(f"{trial.rows:,} rows")
    if trial.repeats:
        click.echo(f"{trial.repeats:,} rows repeat others, byte for byte")
    if trial.conflicts:
        click.echo(
            f"{trial.conflicts:,} rows share their record id with a different one: "
            "identity.record_id does not tell them apart"
        )


def _fates(trial: Trial) -> str:
    counts = (
        (trial.delivered, "delivered"),
        (trial.dropped, "dropped"),
        (trial.quarantined, "rejected"),
    )
    return ", ".join(f"{count:,} {fate}" for count, fate in counts if count)


def _mistakes(count: int) -> str:
    return "a mistake" if count == 1 else f"{count} mistakes"
