"""What a function asks AWS with: a transport of our own or boto3, and how long they wait.

The transport is for the calls on the path of a record; all others are boto3's, whose clients are
made, and boto3 imported, when one is first asked for something. A cold start needs none of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal

from ingest.workflow import CONNECT_TIMEOUT_SECONDS, BotoExecutions, Workflow
from sinks.bucket import Bucket
from sinks.table import Table, Waiting
from sinks.wire.account import Account
from sinks.wire.connection import Patience
from sinks.wire.dynamodb import BATCH, NEWEST

Transport = Literal["wire", "boto3"]

BUCKET_READ_TIMEOUT_SECONDS = 15  # far above S3's tail, far below a stage's timeout
BUCKET_ATTEMPTS_MAX = 4  # the transport's own retries; what is left is the stage's business
TABLE_READ_TIMEOUT_SECONDS = 5  # far above DynamoDB's tail, below what a stage keeps back to answer
TABLE_ATTEMPTS_MAX = 1  # `Table.put_all` retries by itself: it knows the deadline
LAMBDA_READ_TIMEOUT_SECONDS = 5  # of its control plane, which takes up to a second
LAMBDA_ATTEMPTS_MAX = 2  # what trips once trips again
SEAL_ATTEMPTS_MAX = 4  # of what is asked four times an hour, far from its quotas
CONNECTIONS_MAX = 32
CALLS_FIRST = (
    8  # of a wave of puts over the wire: 200 items, of the 1,000 a partition takes a second
)

BUCKET = Patience(CONNECT_TIMEOUT_SECONDS, BUCKET_READ_TIMEOUT_SECONDS)
TABLE = Patience(CONNECT_TIMEOUT_SECONDS, TABLE_READ_TIMEOUT_SECONDS, whole=True)


class Clients:
    """Buckets, tables and workflows by one transport. Making one opens no connection.

    Raises `Misconfigured` where an environment does not say where its account is.
    """

    def __init__(self, transport: Transport, environment: Mapping[str, str]) -> None:
        self._account = Account(environment) if transport == "wire" else None

    def bucket(self, name: str, waiting: Waiting) -> Bucket:
        client = made_when_asked("s3", BUCKET_READ_TIMEOUT_SECONDS, BUCKET_ATTEMPTS_MAX)
        if self._account is None:
            return Bucket(client, name)
        objects = self._account.objects(name, BUCKET, waiting, BUCKET_ATTEMPTS_MAX)
        return Bucket(client, name, objects)

    def table(self, name: str) -> Table:
        client = made_when_asked("dynamodb", TABLE_READ_TIMEOUT_SECONDS, TABLE_ATTEMPTS_MAX)
        if self._account is None:
            return Table(client, name)
        writes, newest = (self._account.writes(name, TABLE, how) for how in (BATCH, NEWEST))
        return Table(client, name, CALLS_FIRST, writes, newest)

    def workflow(self, arn: str) -> Workflow:
        if self._account is None:
            return Workflow(BotoExecutions(boto3_client), arn)
        return Workflow(self._account.executions(TABLE), arn)

    def sqs(self) -> Any:
        return made_when_asked("sqs", TABLE_READ_TIMEOUT_SECONDS, TABLE_ATTEMPTS_MAX)

    def kinesis(self) -> Any:
        return made_when_asked("kinesis", TABLE_READ_TIMEOUT_SECONDS, SEAL_ATTEMPTS_MAX)

    def cloudwatch(self) -> Any:
        return made_when_asked("cloudwatch", TABLE_READ_TIMEOUT_SECONDS, SEAL_ATTEMPTS_MAX)

    def lambdas(self) -> Any:
        return made_when_asked("lambda", LAMBDA_READ_TIMEOUT_SECONDS, LAMBDA_ATTEMPTS_MAX)


def made_when_asked(service: str, read_timeout_seconds: float, attempts_max: int) -> Any:
    """A client of boto3 that tries and waits so much."""

    def make() -> Any:
        from botocore.config import Config  # noqa: PLC0415  see above

        return boto3_client(
            service,
            config=Config(
                connect_timeout=CONNECT_TIMEOUT_SECONDS,
                read_timeout=read_timeout_seconds,
                retries={"mode": "standard", "total_max_attempts": attempts_max},
                max_pool_connections=CONNECTIONS_MAX,
                parameter_validation=False,
                tcp_keepalive=True,
            ),
        )

    return _Asked(make)


def boto3_client(service: Any, config: Any) -> Any:
    """As `boto3.client`."""
    import boto3  # noqa: PLC0415  see above

    return boto3.client(service, config=config)


class _Asked:
    """A client that is made when it is first asked for something."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made: Any = None
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self._make()
        return getattr(self._made, name)
