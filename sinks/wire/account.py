"""The AWS account that an environment names, over the wire."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial

from sinks.table import Waiting
from sinks.wire import endpoints
from sinks.wire.connection import Connection, Patience, authorities
from sinks.wire.credentials import Identity, identity
from sinks.wire.dynamodb import BATCH, Operation, WireWrites
from sinks.wire.pool import IDLE_SECONDS_MAX, Pool
from sinks.wire.s3 import WireObjects
from sinks.wire.service import Service
from sinks.wire.signature import Signer
from sinks.wire.stepfunctions import IDLE_SECONDS_MAX as EXECUTIONS_IDLE_SECONDS_MAX
from sinks.wire.stepfunctions import WireExecutions

SIGNED_AS: dict[endpoints.Service, str] = {
    "dynamodb": "dynamodb",
    "s3": "s3",
    "stepfunctions": "states",
}


class Account:
    """Services as boto3 would ask them in this environment. Making one reads and opens nothing.

    Its methods raise `Misconfigured` where it is not known where to ask.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._dynamodb: Service | None = None
        self._pools: list[Pool] = []

    def objects(
        self, bucket: str, patience: Patience, waiting: Waiting, attempts: int
    ) -> WireObjects:
        """How objects reach a bucket."""
        return WireObjects(self._service("s3", patience, bucket), bucket, waiting, attempts)

    def writes(self, table: str, patience: Patience, operation: Operation = BATCH) -> WireWrites:
        """How puts reach a table. All tables share connections, and so the patience."""
        if self._dynamodb is None:
            self._dynamodb = self._service("dynamodb", patience)
        return WireWrites(self._dynamodb, table, operation)

    def executions(self, patience: Patience) -> WireExecutions:
        """How executions are asked for; each call says how long it waits."""
        idle = EXECUTIONS_IDLE_SECONDS_MAX
        return WireExecutions(self._service("stepfunctions", patience, idle_seconds_max=idle))

    def close(self) -> None:
        """Close the connections that wait. What is asked afterwards opens others."""
        for pool in self._pools:
            pool.close()

    def _service(
        self,
        name: endpoints.Service,
        patience: Patience,
        bucket: str = "",
        idle_seconds_max: float = IDLE_SECONDS_MAX,
    ) -> Service:
        endpoint = endpoints.endpoint(name, self._environment, bucket)
        open_ = partial(Connection, endpoint, authorities=authorities(self._environment))
        pool = Pool(lambda patience: open_(patience=patience), idle_seconds_max)
        self._pools.append(pool)
        signer = Signer(SIGNED_AS[name], endpoint.region)
        return Service(endpoint, signer, self._identity, patience, pool)

    @cached_property
    def _identity(self) -> Identity:
        return identity(self._environment)
