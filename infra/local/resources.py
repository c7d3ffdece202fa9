"""A topology's resources on an AWS endpoint: made where they are missing, left where they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from botocore.exceptions import ClientError

from infra.local.emulator import ACCOUNT, REGION
from infra.topology import Function, Queue, Table, Topology, pipeline

ROLE = f"arn:aws:iam::{ACCOUNT}:role/millrace-local"  # the emulator asks for one and ignores it
EXISTS = frozenset(
    {
        "BucketAlreadyOwnedByYou",
        "QueueAlreadyExists",
        "ResourceAlreadyExistsException",
        "ResourceConflictException",
        "ResourceInUseException",
        "StateMachineAlreadyExists",
    }
)
FIFO_ATTRIBUTES = {  # each group on its own: thousands of messages a second, not three
    "FifoQueue": "true",
    "DeduplicationScope": "messageGroup",
    "FifoThroughputLimit": "perMessageGroupId",
}
HANDLER_ZIP = b"PK\x05\x06" + bytes(18)  # an empty archive: the code runs in our own processes

Client = Callable[[str], Any]
"""A boto3 client of the endpoint, by service name."""


def create(topology: Topology, client: Client, proxy_url: Callable[[str], str]) -> None:
    """Make everything the topology names, and point each function at its local process."""
    s3 = client("s3")
    _made(lambda: s3.create_bucket(Bucket=topology.bucket))
    for table in topology.tables:
        create_table(client("dynamodb"), table)
    kinesis = client("kinesis")
    stream = topology.stream
    _made(lambda: kinesis.create_stream(StreamName=stream.name, ShardCount=stream.shards))
    kinesis.get_waiter("stream_exists").wait(
        StreamName=stream.name, WaiterConfig={"Delay": 1, "MaxAttempts": 30}
    )
    sqs = client("sqs")
    for queue in topology.queues:
        _queue(sqs, queue)
    _made(lambda: client("events").create_event_bus(Name=topology.bus.name))
    arns = {
        function.name: _function(client("lambda"), function, proxy_url(function.name))
        for function in topology.functions
    }
    _workflow(client("stepfunctions"), topology, arns)


def queue_url(client: Client, queue: Queue) -> str:
    return str(client("sqs").get_queue_url(QueueName=queue.name)["QueueUrl"])


def queues_of(topology: Topology, client: Client) -> list[tuple[Queue, Queue]]:
    """The queues that a pipeline has here, each with its dead letters: standard, FIFO, or both.

    It serves one of them at a time; what the other one holds is its own too.
    """
    other = pipeline(topology.name, topology.contract, fifo=not topology.queue.fifo)
    found = []
    for kind in (topology, other):
        with suppress(client("sqs").exceptions.QueueDoesNotExist):
            queue_url(client, kind.queue)
            found.append((kind.queue, kind.dead_letters))
    return found


def workflow_arn(topology: Topology) -> str:
    return f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:{topology.workflow.name}"


def create_table(dynamodb: Any, table: Table) -> None:
    """Make a table, unless it is there."""
    keys = (("pk", "HASH"), ("sk", "RANGE"))
    _made(
        lambda: dynamodb.create_table(
            TableName=table.name,
            KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in keys],
            AttributeDefinitions=[
                {"AttributeName": name, "AttributeType": "S"} for name, _ in keys
            ],
            BillingMode="PAY_PER_REQUEST",
        )
    )


def _queue(sqs: Any, queue: Queue) -> None:
    attributes = {
        "VisibilityTimeout": str(queue.visibility_seconds),
        "MessageRetentionPeriod": str(queue.retention_seconds),
    }
    if queue.fifo:
        attributes |= FIFO_ATTRIBUTES
    if queue.dead_letter:
        attributes["RedrivePolicy"] = json.dumps(
            {
                "deadLetterTargetArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue.dead_letter}",
                "maxReceiveCount": queue.max_receive_count,
            }
        )
    _made(lambda: sqs.create_queue(QueueName=queue.name, Attributes=attributes))


def _function(lambdas: Any, function: Function, proxy_url: str) -> str:
    environment = {"Variables": {"MINISTACK_LAMBDA_PROXY_URL": proxy_url}}
    with suppress(lambdas.exceptions.ResourceConflictException):
        lambdas.create_function(
            FunctionName=function.name,
            Runtime="python3.13",
            Role=ROLE,
            Handler=function.handler,
            Code={"ZipFile": HANDLER_ZIP},
            Timeout=function.timeout_seconds,
            MemorySize=function.memory_mb,
        )
    answer = lambdas.update_function_configuration(
        FunctionName=function.name, Environment=environment, Timeout=function.timeout_seconds
    )
    return str(answer["FunctionArn"])


def _workflow(stepfunctions: Any, topology: Topology, arns: Mapping[str, str]) -> None:
    definition = topology.definition(arns)
    _made(
        lambda: stepfunctions.create_state_machine(
            name=topology.workflow.name, definition=definition, roleArn=ROLE, type="EXPRESS"
        )
    )
    stepfunctions.update_state_machine(
        stateMachineArn=workflow_arn(topology), definition=definition
    )


def _made(create_it: Callable[[], object]) -> None:
    try:
        create_it()
    except ClientError as error:
        if error.response["Error"]["Code"].rpartition(".")[2] not in EXISTS:
            raise
