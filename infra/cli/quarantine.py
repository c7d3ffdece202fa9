"""`millrace quarantine`: what was set aside, grouped, whole, and counted by the hour."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import wraps
from typing import Any

import click
import pyarrow as pa
from rich.markup import escape

from infra.cli import run, shown
from infra.cli.moments import MOMENT
from infra.cli.query import require_used
from infra.cli.tail import tail
from infra.lake import Lake, plain
from infra.local.embedded import served
from infra.local.state import State
from infra.rejects import Wanted, grouped, rejects, stats
from infra.topology import BUCKET, LEDGER
from ingest.audit import resolved
from sinks.bucket import Bucket
from sinks.table import Table
from transform.records import POSITION

ROWS_SHOWN = 20
OPTIONS = (
    click.option("--contract", metavar="NAME", help="Only of this contract."),
    click.option("--reason", metavar="REASON", help="Only of this reason, such as out_of_range."),
    click.option("--field", metavar="NAME", help="Only where this field is to blame."),
    click.option("--from", "start", type=MOMENT, help="Arrived then or later: ISO-8601."),
    click.option("--to", "stop", type=MOMENT, help="Arrived before."),
    click.option("--all", "resolved", is_flag=True, help="Also what has a better fate by now."),
)

EXAMPLES = """\b
Examples:
  millrace quarantine list
  millrace quarantine show 1f2e3d4c --contract telemetry
  millrace quarantine stats --from 2026-11-24 --json
  millrace quarantine tail --device s-17
"""


@click.group(epilog=EXAMPLES)
def quarantine() -> None:
    """Look at what was set aside: rejected elements with bytes, reason and position."""


quarantine.add_command(tail)


def _filtered(command: Callable[..., None]) -> Callable[..., None]:
    """The filters, the state and `--json`; the command gets the rejects they choose."""

    @wraps(command)
    def filtered(
        contract: str | None,
        reason: str | None,
        field: str | None,
        start: datetime | None,
        stop: datetime | None,
        resolved: bool,
        state: State,
        **more: Any,
    ) -> None:
        wanted = Wanted(contract, reason, field, start, stop, resolved)
        command(rows=_rows(state, wanted), state=state, **more)

    for option in reversed((*OPTIONS, run.state_option, run.json_option)):
        filtered = option(filtered)
    return filtered


@quarantine.command("list")
@_filtered
def list_(rows: pa.Table, state: State, as_json: bool) -> None:
    """Rejects by fingerprint: step, reason, field, and the detail with its values blanked."""
    groups = grouped(rows)
    if as_json:
        shown.print_json(plain(pa.Table.from_pylist(groups)))
    elif groups:
        shown.print_table(pa.Table.from_pylist(groups))
        hint = f"One whole: millrace quarantine show {groups[0]['fingerprint']}"
        shown.out.print(escape(hint + run.state_hint(state)), soft_wrap=True)
    else:
        shown.out.print("Nothing is set aside.")


@quarantine.command()
@click.argument("fingerprint", required=False)
@click.option(
    "--limit", type=click.IntRange(min=1), default=ROWS_SHOWN, show_default=True, metavar="N"
)
@_filtered
def show(rows: pa.Table, state: State, as_json: bool, fingerprint: str | None, limit: int) -> None:
    """Rejects with their whole bodies, positions and origins, and how to replay them."""
    if fingerprint is not None and rows.num_rows:
        rows = rows.filter(
            pa.array([one == fingerprint for one in rows.column("fingerprint").to_pylist()])
        )
    if fingerprint is not None and not rows.num_rows:
        run.fail(
            f"no reject has the fingerprint {fingerprint}; see quarantine list", run.WRONG_INPUT
        )
    if as_json:
        shown.print_json(plain(_hexed(rows)))
        return
    for row in plain(_hexed(rows.slice(0, limit))):
        _show(row)
    if rows.num_rows > limit:
        shown.out.print(f"… and {rows.num_rows - limit:,} more; see --limit, --json")
    if not rows.num_rows:
        shown.out.print("Nothing is set aside.")
        return
    shown.out.print(escape(replay_hint(rows, state)), soft_wrap=True)


@quarantine.command("stats")
@_filtered
def stats_(rows: pa.Table, state: State, as_json: bool) -> None:  # noqa: ARG001  as the others
    """Counts per contract, reason and hour of arrival."""
    counts = stats(rows)
    if as_json:
        shown.print_json(plain(pa.Table.from_pylist(counts)))
    elif counts:
        shown.print_table(pa.Table.from_pylist(counts))
    else:
        shown.out.print("Nothing is set aside.")


def replay_hint(rows: pa.Table, state: State) -> str:
    """The command that tries these again, once their cause is mended."""
    parts = ["Try again, once the cause is mended: millrace replay --dry-run"]
    for option, name in (("--contract", "_contract"), ("--reason", "_reason")):
        [*values] = rows.column(name).unique().to_pylist()
        if len(values) == 1:
            parts.append(f"{option} {values[0]}")
    return " ".join(parts) + run.state_hint(state)


def _rows(state: State, wanted: Wanted) -> pa.Table:
    require_used(state)
    contracts = state.contracts()
    names = [contract.name for contract in contracts]
    if wanted.contract is not None and wanted.contract not in names:
        known = ", ".join(names)
        raise click.UsageError(f"--contract {wanted.contract!r}: this state has {known}")
    with served(state) as client:
        bucket, ledger = Bucket(client("s3"), BUCKET), Table(client("dynamodb"), LEDGER)
        rows = rejects(Lake(bucket, ledger, contracts), contracts, wanted)
        return _with_runs(rows, resolved(bucket)) if wanted.resolved else rows


def _with_runs(rows: pa.Table, runs: Mapping[tuple[str, str, str], str]) -> pa.Table:
    """With the run of the replay that gave a position its good fate, where one did."""
    places = zip(*(rows.column(name).to_pylist() for name in POSITION), strict=True)
    return rows.append_column("_replay", pa.array([runs.get(one) for one in places], pa.string()))


def _show(row: dict[str, Any]) -> None:
    position = f"{row['_stream']}/{row['_shard']}/{row['_sequence']}"
    lines = {
        "position": position,
        "element": f"{row['_sub']}/{row['_child']} of {row['_elements']}",
        "arrival": row["_arrival"],
        "origin": f"{row['_raw']} record {row['_index']}",
        "rules": f"{row['_contract']} epoch {row['_epoch']} generation {row['_generation']}",
        "rejected": " ".join(filter(None, (row["_step"], row["_reason"], row["_field"]))),
        "detail": row["_detail"],
        "status": _status(row),
        "body": row["_body"],
    }
    shown.out.print(f"[dim]{escape(row['fingerprint'])}[/dim]")
    for name, value in lines.items():
        shown.out.print(f"  {name:<9}", shown.one_line(value), markup=False, soft_wrap=True)


def _status(row: dict[str, Any]) -> str:
    if row["_open"]:
        return "open"
    return f"resolved by replay {row['_replay']}" if row.get("_replay") else "resolved"


def _hexed(rows: pa.Table) -> pa.Table:
    """Digests as people and JSON write them: bytes that look like text would be shown as that."""
    if not rows.num_rows:
        return rows
    at = rows.column_names.index("_digest")
    digests = [one.hex() for one in rows.column("_digest").to_pylist()]
    return rows.set_column(at, "_digest", pa.array(digests, pa.string()))
