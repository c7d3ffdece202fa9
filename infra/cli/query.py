"""`millrace query`: SQL over what is in a state."""

from __future__ import annotations

import click

from infra.cli import run, shown
from infra.lake import Lake, plain
from infra.local.embedded import served
from infra.local.state import State, StateError
from infra.topology import BUCKET, LEDGER
from sinks.bucket import Bucket
from sinks.table import Table

EXAMPLES = """\b
Views: records     landing rows, one per identity     ledger  one row per attempt
       quarantine  rejected records, bytes and reason raw     source records as they came
       dropped     marks of what a rule dropped        device_clocks  each device's skew
       and one named after each contract (telemetry, environment_sensors): its records alone

\b
Examples:
  millrace query "SELECT device_id, count(*), avg(temperature) FROM records GROUP BY ALL"
  millrace query "SELECT _reason, count(*) FROM quarantine GROUP BY ALL" --json
  millrace query "SELECT * FROM device_clocks ORDER BY abs(skew_p50) DESC LIMIT 10"
  millrace query "DESCRIBE records"
"""


@click.command(epilog=EXAMPLES)
@click.argument("sql")
@run.state_option
@run.json_option
def query(sql: str, state: State, as_json: bool) -> None:
    """Answer one SQL statement (DuckDB's) over records, quarantine, ledger and raw.

    It works beside a running pipeline and on a stopped state. Times are UTC.
    """
    require_used(state)
    with served(state) as client:
        bucket, ledger = Bucket(client("s3"), BUCKET), Table(client("dynamodb"), LEDGER)
        rows = Lake(bucket, ledger, state.contracts()).query(sql)
    if as_json:
        shown.print_json(plain(rows))
    else:
        shown.print_table(rows)


def require_used(state: State) -> None:
    """Raise `StateError` where there is nothing to read yet."""
    if not state.used():
        raise StateError(
            f"{state.root} holds no records yet; push some with `millrace ingest` or "
            "`millrace demo`, or name another directory with --state"
        )
