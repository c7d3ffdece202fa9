"""`millrace up`: the embedded pipeline, until it is interrupted."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import click

from infra.cli import run, shown
from infra.cli.ingest import settlement
from infra.local import preflight
from infra.local.embedded import Embedded, embedded
from infra.local.state import State

EXAMPLES = """\b
Examples:
  millrace up
  millrace up --contract ./my-fleet.toml --state /tmp/fleet --port 4566
"""

HOW_TO = """
[bold]Push with the AWS CLI[/bold] (any credentials; nothing leaves this machine)
  export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_DEFAULT_REGION=us-east-1
  aws --endpoint-url {url} kinesis put-record --stream-name {stream} \\
      --partition-key device-1 --cli-binary-format raw-in-base64-out --data '{{"device_id": …}}'
  aws --endpoint-url {url} sqs send-message --queue-url {queue} \\
      --message-body '{{"device_id": …}}'

[bold]Push with boto3[/bold]
  import boto3
  kinesis = boto3.client("kinesis", endpoint_url="{url}", region_name="us-east-1",
                         aws_access_key_id="test", aws_secret_access_key="test")
  kinesis.put_records(StreamName="{stream}",
                      Records=[{{"PartitionKey": "device-1", "Data": b'{{…}}'}}])

[bold]Look[/bold]
  millrace query "SELECT * FROM records LIMIT 5" --state {state}
  millrace hot DEVICE_ID --state {state}

Ctrl-C stops it; its state is kept.
"""


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
@run.state_option
def up(contract: str, port: int, state: State) -> None:
    """Start the embedded pipeline and print a line of counts each second."""
    preflight.check(state)
    with state.owned(), embedded(state, contract, port=port) as system:
        shown.out.print(f"[green]Millrace is up[/green] for contract {system.contract.name}")
        shown.out.print(f"  endpoint  {system.url}")
        shown.out.print(f"  stream    {system.topology.stream.name}")
        shown.out.print(f"  queue     {system.queue_url}")
        shown.out.print(f"  bucket    {system.topology.bucket}")
        shown.out.print(f"  state     {state.root}")
        shown.out.print(
            HOW_TO.format(
                url=system.url,
                stream=system.topology.stream.name,
                queue=system.queue_url,
                state=state.root,
            )
        )
        _watch(system)


def _watch(system: Embedded) -> None:
    follower = settlement(system)
    counts = dict.fromkeys(("received", "delivered", "quarantined", "retried"), 0)
    follower.on_attempt = lambda attempt: counts.update(
        received=counts["received"] + attempt.received,
        delivered=counts["delivered"] + attempt.delivered,
        quarantined=counts["quarantined"] + attempt.quarantined,
        retried=counts["retried"] + sum(high - low for low, high in attempt.retry),
    )
    while True:
        time.sleep(1)
        if not system.emulator.alive():
            run.fail("the emulator has died; see logs/emulator.log in the state", run.CANNOT_RUN)
        follower.follow()
        tallies = system.mappings.tallies
        line = "  ".join(f"{name} {count:,}" for name, count in counts.items())
        behind = max(tally.behind_ms for tally in tallies.values()) / 1000
        errors = sum(tally.errors for tally in tallies.values())
        shown.out.print(
            f"{datetime.now(UTC):%H:%M:%S}  {line}  attempts {follower.attempts}  "
            f"errors {errors}  behind {behind:.1f} s"
        )
