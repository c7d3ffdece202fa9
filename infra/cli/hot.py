"""`millrace hot`: a device's latest readings, from DynamoDB."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
import pyarrow as pa

from infra.cli import run, shown
from infra.cli.moments import DURATION, MOMENT
from infra.cli.query import require_used
from infra.local.embedded import served
from infra.local.state import State
from infra.topology import pipeline
from sinks import hot as store
from sinks.table import Table
from transform.contract import Contract

EVER = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
HOUR = timedelta(hours=1)
SPAN_MAX = timedelta(days=366)  # one query a day of it

EXAMPLES = """\b
Examples:
  millrace hot telemetry-000001
  millrace hot telemetry-000001 --last 24h --json
  millrace hot 5e:44:3b:f3:79:c8 --from 2020-07-13T00:00:00Z --to 2020-07-13T01:00:00Z
"""


@click.command(epilog=EXAMPLES)
@click.argument("device_id")
@click.option(
    "--last", type=DURATION, metavar="1h", help="The last so many s, m, h or d.  [default: 1h]"
)
@click.option("--from", "start", type=MOMENT, help="ISO-8601 with an offset, or a date (UTC).")
@click.option("--to", "stop", type=MOMENT, help="The same; now if left out.")
@click.option("--contract", metavar="NAME", help="Where the state has several contracts.")
@run.state_option
@run.json_option
def hot(
    device_id: str,
    last: timedelta | None,
    start: datetime | None,
    stop: datetime | None,
    contract: str | None,
    state: State,
    as_json: bool,
) -> None:
    """Print a device's readings from the hot store, oldest first.

    Of a contract that keeps each device's latest it is that one, however old, unless a span is
    asked for.
    """
    asked = last is not None or bool(start or stop)
    low, high = span(last, start, stop, datetime.now(UTC))
    require_used(state)
    chosen = _chosen(state.contracts(), contract)
    by_contract: list[list[dict[str, object]]] = []
    with served(state) as client:
        for rules in chosen:
            name = pipeline(rules.name, rules.name).hot_table.name
            table = Table(client("dynamodb"), name)
            ends = EVER if rules.latest and not asked else (low, high)
            by_contract.append(list(store.between(table, device_id, *ends, rules)))
    found = [row for rows in by_contract for row in rows]
    if as_json:
        shown.print_json(found)
    else:
        for rows in by_contract:
            if rows:
                names = dict.fromkeys(name for row in rows for name in row)
                shown.print_table(pa.table({n: [row.get(n) for row in rows] for n in names}))
    if not found:
        shown.err.print(
            f"no reading of {device_id} between {low:%Y-%m-%dT%H:%M:%SZ} and "
            f"{high:%Y-%m-%dT%H:%M:%SZ}; widen it with --last, or --from and --to",
            markup=False,
            soft_wrap=True,
        )


def span(
    last: timedelta | None, start: datetime | None, stop: datetime | None, now: datetime
) -> tuple[datetime, datetime]:
    """The span asked for. Raises click's UsageError."""
    if last is not None and (start or stop):
        raise click.UsageError("--last goes without --from and --to")
    if start or stop:
        if not start:
            raise click.UsageError("--to needs --from")
        low, high = start, stop or now
    else:
        low, high = now - min(HOUR if last is None else last, 2 * SPAN_MAX), now
    if low > high:
        raise click.UsageError(f"--from lies after {'--to' if stop else 'now; say --to'}")
    if high - low > SPAN_MAX:
        raise click.UsageError(f"the span is over {SPAN_MAX.days} days; narrow it")
    return low, high


def _chosen(contracts: list[Contract], name: str | None) -> list[Contract]:
    if name is None:
        return contracts
    chosen = [contract for contract in contracts if contract.name == name]
    if not chosen:
        known = ", ".join(contract.name for contract in contracts)
        raise click.UsageError(f"--contract {name!r}: this state has {known}")
    return chosen
