"""`millrace up`: the embedded pipeline, until it is interrupted."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial

import click
from rich.markup import escape

from infra.cli import paused, run, shown
from infra.fates import Follower
from infra.local import preflight
from infra.local.embedded import Embedded, embedded
from infra.local.state import State
from ingest.breaker import Tripped
from transform.devices import MICROS, Fleet

EXAMPLES = """\b
Examples:
  millrace up
  millrace up --contract ./my-fleet.toml --state /tmp/fleet --port 4566
"""

HOW_TO = """
[bold]Push with the AWS CLI[/bold] (any credentials do; nothing leaves this machine)
  export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_DEFAULT_REGION=us-east-1
  echo '{message}' > message.json
  aws --endpoint-url {url} kinesis put-record --stream-name {stream} \\
      --partition-key {device} --data fileb://message.json
  aws --endpoint-url {url} sqs send-message --queue-url {queue} \\
      --message-body file://message.json{more}

[bold]Push with boto3[/bold]
  import boto3
  kinesis = boto3.client("kinesis", endpoint_url="{url}", region_name="us-east-1",
                         aws_access_key_id="test", aws_secret_access_key="test")
  data = open("message.json", "rb").read()
  kinesis.put_records(StreamName="{stream}",
                      Records=[{{"PartitionKey": "{device}", "Data": data}}])

[bold]Look[/bold]
  millrace query "SELECT * FROM records LIMIT 5"{where}
  millrace hot {device}{where}

Ctrl-C stops it; its state is kept.
"""

FIFO_MORE = ' \\\n      --message-group-id {device} --message-deduplication-id "$(uuidgen)"'


@click.command(epilog=EXAMPLES)
@click.option(
    "--contract",
    default="telemetry",
    show_default=True,
    metavar="NAME|PATH",
    help="What the records look like.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=0,
    help="Port of the AWS endpoint.  [default: a free one]",
)
@click.option(
    "--fifo",
    is_flag=True,
    help="Let the queue be an SQS FIFO queue: each message group (the device) in order.",
)
@run.table_option
@run.state_option
def up(contract: str, port: int, fifo: bool, table: str | None, state: State) -> None:
    """Start the embedded pipeline and print a line of counts each second."""
    preflight.check(state)
    with state.owned(), embedded(state, contract, port=port, fifo=fifo, table=table) as system:
        _introduce(system, state)
        _watch(system, state)


def _introduce(system: Embedded, state: State) -> None:
    """Say where everything is, and how to push a message that this contract takes."""
    now = int(time.time() * MICROS)
    sample = next(Fleet(system.contract, seed=1, start=now, stop=now, malformed=0).messages(1))
    lines = {
        "endpoint": system.url,
        "stream": system.topology.stream.name,
        "queue": system.queue_url,
        **({"table": system.endpoints.table_url} if system.endpoints.table else {}),
        "bucket": system.topology.bucket,
        "state": str(state.root),
    }
    print_text = partial(shown.out.print, soft_wrap=True)
    print_text(f"[green]Millrace is up[/green] for contract {system.contract.name}")
    for name, value in lines.items():
        print_text(f"  {name:<9} {value}", markup=False)
    print_text(
        HOW_TO.format(
            message=escape(sample.body.decode()),
            device=sample.device,
            url=system.url,
            stream=system.topology.stream.name,
            queue=system.queue_url,
            more=FIFO_MORE.format(device=sample.device) if system.topology.queue.fifo else "",
            where=escape(run.state_hint(state)),
        )
    )


def _watch(system: Embedded, state: State) -> None:
    follower = Follower(system.ledger_table, datetime.now(UTC))
    counts = dict.fromkeys(("attempts", "received", "delivered", "quarantined", "retried"), 0)
    told = ""
    stopped: list[Tripped] = []
    while True:
        stops = paused.stops(system.bucket, system.service)
        for stop in stops:
            if stop not in stopped:
                text = escape(paused.said(stop, state))
                shown.out.print(f"[yellow]{text}[/yellow]", soft_wrap=True)
        stopped = stops
        time.sleep(1)
        if died := system.endpoints.dead():
            run.fail(f"the {died} has died; see logs/{died}.log in the state", run.CANNOT_RUN)
        for attempt in follower.follow():
            counts["attempts"] += 1
            counts["received"] += attempt.received
            counts["delivered"] += attempt.delivered
            counts["quarantined"] += attempt.quarantined
            counts["retried"] += len(attempt.handed_back)
        tallies = system.mappings.tallies.values()
        behind = max(tally.behind_ms for tally in tallies) / 1000
        line = "  ".join(f"{name} {count:,}" for name, count in counts.items())
        now = f"{datetime.now(UTC):%H:%M:%S}"
        shown.out.print(f"{now}  {line}  behind {behind:.1f} s", soft_wrap=True)
        error = next((tally.last_error for tally in tallies if tally.last_error), "")
        if error != told:
            told = error
            shown.out.print(f"{now}  [yellow]{escape(error)}[/yellow]", soft_wrap=True)
