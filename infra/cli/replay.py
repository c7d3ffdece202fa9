"""`millrace replay`: what was set aside or parked, once more through the workflow."""

from __future__ import annotations

import secrets
import sys
from datetime import UTC, datetime
from typing import Any

import click
import pyarrow as pa

from infra.cli import run, shown
from infra.cli.moments import MOMENT, micros
from infra.cli.query import require_used
from infra.local.edge import parking_of, wiring_of
from infra.local.embedded import running, served
from infra.local.state import State
from infra.topology import pipeline
from ingest import audit
from ingest import replay as replays
from ingest.audit import ORIGINS, Choice, Origin
from ingest.replay import Pace, Report
from transform.contract_file import load_contract

EXAMPLES = """\b
Examples:
  millrace replay --dry-run --contract ./my-fleet.toml
  millrace replay --from-quarantine --reason out_of_range --rate 500 --stop-after-errors 100
  millrace replay --dead-letters --limit 1
  millrace replay --run-id 20261124T120000-5f3a
"""


@click.command(epilog=EXAMPLES)
@click.option("--from-quarantine", is_flag=True, help="Open quarantine rows.")
@click.option("--dead-letters", is_flag=True, help="The dead-letter queue.")
@click.option("--on-failure", is_flag=True, help="On-failure objects.  [default: all three]")
@click.option("--reason", help="Only rejects of this reason.")
@click.option("--field", help="Only rejects of this field.")
@click.option("--contract", metavar="NAME|PATH", help="The rules; needed if there are several.")
@click.option("--since", type=MOMENT, help="Arrival from; ISO-8601 with an offset, or a date.")
@click.option("--until", type=MOMENT, help="Arrival before.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many records.")
@click.option("--dry-run", is_flag=True, help="Show what would now pass; write nothing.")
@click.option("--rate", type=click.FloatRange(min=0.1), metavar="N", help="Records a second.")
@click.option(
    "--stop-after-errors",
    type=click.IntRange(min=1),
    metavar="N",
    help="Stop when so many were not delivered.",
)
@click.option("--run-id", metavar="ID", help="Go on with a run that was cut short.")
@run.state_option
@run.json_option
def replay(
    from_quarantine: bool,
    dead_letters: bool,
    on_failure: bool,
    reason: str | None,
    field: str | None,
    contract: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int | None,
    dry_run: bool,
    rate: float | None,
    stop_after_errors: int | None,
    run_id: str | None,
    state: State,
    as_json: bool,
) -> None:
    """Run quarantined and parked records again, under their own positions and arrivals.

    Safe to run twice: what has a good fate is not chosen again. It exits with 1 if a record was
    handed back or could not be had any more.
    """
    flags = zip(ORIGINS, (from_quarantine, dead_letters, on_failure), strict=True)
    asked: tuple[Origin, ...] = tuple(origin for origin, flag in flags if flag)
    if (reason or field) and (dead_letters or on_failure):
        raise click.UsageError("--reason and --field are of quarantine: nothing parked was judged")
    low, high = (None if at is None else micros(at) for at in (since, until))
    choice = Choice(asked or ORIGINS, reason, field, low, high, limit)
    require_used(state)
    path = _rules(state, contract)
    if dry_run:
        _preview(state, path, choice, as_json)
        return
    with running(state, path) as system:
        wiring = wiring_of(system.topology, system.client, system.url)
        known = audit.choice_of(wiring.bucket, run_id) if run_id else None
        report = replays.replay(
            wiring,
            parking_of(system.topology, system.client),
            known or choice,
            run_id or _fresh_id(),
            Pace(rate, stop_after_errors),
        )
    _show(report, as_json)
    if report.retry or report.missing:
        sys.exit(run.UNACCOUNTED)


def _preview(state: State, path: str, choice: Choice, as_json: bool) -> None:
    topology = pipeline(load_contract(path).name, path)
    with served(state) as client:
        wiring = wiring_of(topology, client)
        rules = wiring.transform(wiring.epoch())
        told = replays.preview(wiring, parking_of(topology, client), choice, rules)
    if as_json:
        shown.print_json(told)
        return
    rows = [
        {name: change[name] for name in ("from", "before", "now", "records")}
        | {"example": "/".join(change["examples"][0]["position"])}
        for change in told["changes"]
    ]
    shown.print_table(pa.Table.from_pylist(rows))
    shown.out.print(
        f"{told['would_pass']:,} of {told['chosen']:,} chosen records would now pass; "
        f"{told['skipped']:,} were not chosen: these rules have judged them, or they have a fate"
    )
    _problems(told["problems"])


def _show(report: Report, as_json: bool) -> None:
    if as_json:
        shown.print_json(report.to_json())
        return
    counted: dict[str, Any] = {
        name: value for name, value in report.to_json().items() if isinstance(value, int)
    }
    shown.print_table(pa.table({name: [value] for name, value in counted.items()}))
    shown.out.print(
        f"run {report.run}" + (f", stopped: {report.stopped}" if report.stopped else "")
    )
    _problems(report.problems)


def _problems(problems: list[str]) -> None:
    for problem in problems:
        shown.err.print(problem, markup=False, soft_wrap=True)


def _rules(state: State, contract: str | None) -> str:
    """The contract file to judge by: the state's own by its name, or any other."""
    names = [known.name for known in state.contracts()]
    if contract is None:
        if len(names) != 1:
            raise click.UsageError(f"--contract: this state has {', '.join(names)}")
        contract = names[0]
    return str(state / "contracts" / f"{contract}.toml") if contract in names else contract


def _fresh_id() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
