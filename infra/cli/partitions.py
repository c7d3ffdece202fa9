"""`millrace partitions`: what each hour of the lake holds, and whether it is final."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from typing import Any

import click
import pyarrow as pa

from infra.cli import run, shown
from infra.cli.compact import chosen
from infra.cli.moments import DURATION, MOMENT, micros
from infra.cli.query import require_used
from infra.cli.seal import LATENESS, sealer_of
from infra.cli.watermarks import print_watermarks, told
from infra.local.embedded import served
from infra.local.resources import Client
from infra.local.state import State
from infra.partitions import shown as hours_of
from sinks.lake import manifest
from sinks.lake.resolve import HOUR_MICROS
from sinks.lake.workspace import workspace
from transform.contract import Contract

EXAMPLES = """\b
Completeness is of the numbers that devices count their messages by, per device and boot: how many
are there of those from the first to the last; contracts say which field that is.

\b
Examples:
  millrace partitions
  millrace partitions --sealed --contract fleet --json
  millrace partitions --from 2026-11-24 --to 2026-11-25
"""


@click.command(epilog=EXAMPLES)
@click.option("--contract", "names", metavar="NAME", multiple=True, help="Only of this contract.")
@click.option("--sealed", is_flag=True, help="Only hours that are sealed.")
@click.option("--from", "start", type=MOMENT, help="Only hours from this one on.")
@click.option("--to", "stop", type=MOMENT, help="... and before this one.")
@click.option(
    "--lateness",
    type=DURATION,
    default=LATENESS,
    show_default="10m",
    help="How long after its end an hour stays open: why it is, is told by it.",
)
@run.state_option
@run.json_option
def partitions(
    names: tuple[str, ...],
    sealed: bool,
    start: datetime | None,
    stop: datetime | None,
    lateness: timedelta,
    state: State,
    as_json: bool,
) -> None:
    """Show each hour: rows, ids, conflicts, completeness, lateness, digest, and if it is final."""
    require_used(state)
    low = micros(start) // HOUR_MICROS if start else -sys.maxsize
    high = -(-micros(stop) // HOUR_MICROS) if stop else sys.maxsize
    with served(state) as client:
        found = [
            _of(contract, state, client, lateness, range(low, high))
            for contract in chosen(state, names)
        ]
    for one in found:
        one["partitions"] = [p for p in one["partitions"] if p["sealed"] or not sealed]
    if as_json:
        shown.print_json(found)
        return
    for one in found:
        shown.out.print(f"[bold]{one['contract']}[/bold]")
        shown.print_table(pa.Table.from_pylist([_line(p) for p in one["partitions"]], _SHOWN))
        print_watermarks(one["watermarks"])


def _of(
    contract: Contract, state: State, client: Client, lateness: timedelta, hours: range
) -> dict[str, Any]:
    sealer = sealer_of(state, contract, client, lateness)
    watermarks = sealer.look()
    lake = manifest.read(sealer.bucket, contract.name)
    with workspace(sealer.bucket) as work:
        found = hours_of(work, contract, lake, watermarks, sealer.lateness, hours)
        told_ = [one.to_json() for one in found]
    return {"contract": contract.name, "watermarks": told(watermarks), "partitions": told_}


_SHOWN = pa.schema(
    [
        ("hour", pa.string()),
        ("rows", pa.int64()),
        ("ids", pa.int64()),
        ("conflicts", pa.int64()),
        ("complete", pa.string()),
        ("late p50/p95/p99/max s", pa.string()),
        ("digest", pa.string()),
        ("state", pa.string()),
    ]
)


def _line(part: dict[str, Any]) -> dict[str, Any]:
    """An hour as a row for people."""
    complete, late = part["completeness"], part["lateness_seconds"]
    return {
        **{name: part[name] for name in ("hour", "rows", "ids", "conflicts", "digest")},
        "hour": part["hour"].removesuffix(":00:00Z"),
        "complete": complete and f"{complete['seen'] / complete['counted']:.2%}",
        "late p50/p95/p99/max s": late and "/".join(f"{one:.0f}" for one in late.values()),
        "state": _state(part),
    }


def _state(part: dict[str, Any]) -> str:
    if not (seal := part["sealed"]):
        return f"open: {'; '.join(part['open'])}"
    about = "" if seal["exact"] else "about "
    missing = f", known missing: {seal['missing']}" if seal["missing"] else ""
    more = f", {part['waiting']} rows came since" if part["waiting"] else ""
    return f"sealed as of {about}{seal['as_of']}{missing}{more}"
