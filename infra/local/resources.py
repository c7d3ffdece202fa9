"""A topology's resources on an AWS endpoint: made where they are missing, left where they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from infra.local.emulator import ACCOUNT, REGION
from infra.topology import Function, Queue, Table, Topology

ROLE = f"arn:aws:iam::{ACCOUNT}:role/millrace-local"  # the emulator asks for one and ignores it
EXISTS = frozenset(
    {
        "BucketAlreadyOwnedByYou",
        "QueueAlreadyExists",
        "ResourceConflictException",
        "ResourceInUseException",
        "StateMachineAlreadyExists",
    }
)
HANDLER_ZIP = b"PK\x05\x06" + bytes(18)  # an empty archive: the code runs in our own processes

Client = Callable[[str], Any]
"""A boto3 client of the endpoint, by service name."""


@dataclass(frozen=True)
class Addresses:
    """What has no fixed name: queue URLs by queue name, and the workflow's ARN."""

    queues: Mapping[str, str]
    workflow: str


def create(topology: Topology, client: Client, proxy_url: Callable[[str], str]) -> Addresses:
    """Make everything the topology names, and point each function at its local process."""
    s3 = client("s3")
    _made(lambda: s3.create_bucket(Bucket=topology.bucket))
    for table in topology.tables:
        _table(client("dynamodb"), table)
    kinesis = client("kinesis")
    stream = topology.stream
    _made(lambda: kinesis.create_stream(StreamName=stream.name, ShardCount=stream.shards))
    kinesis.get_waiter("stream_exists").wait(
        StreamName=stream.name, WaiterConfig={"Delay": 1, "MaxAttempts": 30}
    )
    sqs = client("sqs")
    dead = _queue(sqs, topology.dead_letters, "")
    dead_arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{topology.dead_letters.name}"
    queues = {
        topology.dead_letters.name: dead,
        topology.queue.name: _queue(sqs, topology.queue, dead_arn),
    }
    arns = {
        function.name: _function(client("lambda"), function, proxy_url(function.name))
        for function in topology.functions
    }
    return Addresses(queues, _workflow(client("stepfunctions"), topology, arns))


def workflow_arn(topology: Topology) -> str:
    return f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:{topology.workflow.name}"


def _table(dynamodb: Any, table: Table) -> None:
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


def _queue(sqs: Any, queue: Queue, dead_letter_arn: str) -> str:
    attributes = {
        "VisibilityTimeout": str(queue.visibility_seconds),
        "MessageRetentionPeriod": str(queue.retention_seconds),
    }
    if queue.fifo:
        attributes["FifoQueue"] = "true"
    if dead_letter_arn:
        attributes["RedrivePolicy"] = json.dumps(
            {"deadLetterTargetArn": dead_letter_arn, "maxReceiveCount": queue.max_receive_count}
        )
    _made(lambda: sqs.create_queue(QueueName=queue.name, Attributes=attributes))
    return str(sqs.get_queue_url(QueueName=queue.name)["QueueUrl"])


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


def _workflow(stepfunctions: Any, topology: Topology, arns: Mapping[str, str]) -> str:
    definition = topology.definition(arns)
    _made(
        lambda: stepfunctions.create_state_machine(
            name=topology.workflow.name, definition=definition, roleArn=ROLE, type="EXPRESS"
        )
    )
    arn = workflow_arn(topology)
    stepfunctions.update_state_machine(stateMachineArn=arn, definition=definition)
    return arn


def _made(create_it: Callable[[], object]) -> None:
    try:
        create_it()
    except ClientError as error:
        if error.response["Error"]["Code"].rpartition(".")[2] not in EXISTS:
            raise
