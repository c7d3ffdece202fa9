"""The edge's own wiring, for commands of an operator that run on a pipeline of this machine."""

from __future__ import annotations

from typing import Any

from infra.local import emulator, resources
from infra.local.resources import Client
from infra.topology import Topology
from ingest.parking import Parking
from ingest.settings import Settings, Wiring
from ingest.workflow import BotoExecutions, Workflow
from sinks.bucket import Bucket
from sinks.table import Table


def wiring_of(topology: Topology, client: Client, url: str = "") -> Wiring:
    """What ingest would be wired to. Without `url` there is no workflow, only what can be read."""
    arn = resources.workflow_arn(topology)
    environment = {**topology.ingest_stream.environment, "MILLRACE_WORKFLOW": arn}
    wiring = Wiring(Settings.of(environment))
    wiring.bucket = Bucket(client("s3"), topology.bucket)
    wiring.hot_table = Table(client("dynamodb"), topology.hot_table.name)
    wiring.ledger_table = Table(client("dynamodb"), topology.ledger_table.name)
    wiring.sqs = client("sqs")

    def make(service: str, config: Any) -> Any:
        return emulator.client(
            service,
            url,
            connect_timeout=config.connect_timeout,
            read_timeout=config.read_timeout,
            retries=config.retries,
        )

    wiring.workflow = Workflow(BotoExecutions(make), arn)
    return wiring


def parking_of(topology: Topology, client: Client) -> Parking:
    """Where the pipeline's records are parked."""
    return Parking(
        bucket=Bucket(client("s3"), topology.bucket),
        stream=topology.stream.name,
        prefix=topology.stream_mapping.on_failure_prefix,
        sqs=client("sqs"),
        kinesis=client("kinesis"),
        letters={
            queue.name: resources.queue_url(client, letters)
            for queue, letters in resources.queues_of(topology, client)
        },
    )
