"""The edge's own wiring, for commands of an operator that run on a pipeline of this machine."""

from __future__ import annotations

import time
from typing import Any

from infra.local import emulator, resources
from infra.local.resources import Client
from infra.parked import Parked, parked
from infra.topology import Topology
from ingest.parking import Parking
from ingest.settings import Settings, Wiring
from ingest.watermarks import MICROS, Sources
from ingest.workflow import BotoExecutions, Workflow
from sinks.bucket import Bucket
from sinks.lake.watermark import Lanes
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


def sources_of(topology: Topology, client: Client) -> Sources:
    """What tells how far the pipeline's sources are; no metric knows a queue's ages here."""
    mapping = topology.stream_mapping
    margin = mapping.window_seconds + topology.ingest_stream.timeout_seconds
    return Sources(
        pipeline=topology.service,
        stream=topology.stream.name,
        lanes=Lanes(mapping.parallelization_factor, int(margin * MICROS)),
        queues={
            queue.name: resources.queue_url(client, queue)
            for queue, _ in resources.queues_of(topology, client)
        },
        kinesis=client("kinesis"),
        sqs=client("sqs"),
        bucket=Bucket(client("s3"), topology.bucket),
        ledger=Table(client("dynamodb"), topology.ledger_table.name),
        clock=time.time,
    )


def parked_of(topology: Topology, client: Client) -> Parked:
    """What is parked now."""
    letters = {
        queue.name: resources.queue_url(client, dead)
        for queue, dead in resources.queues_of(topology, client)
    }
    prefix = topology.stream_mapping.on_failure_prefix
    return parked(Bucket(client("s3"), topology.bucket), prefix, client("sqs"), letters)
