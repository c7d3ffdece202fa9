"""StartSyncExecution over the wire: one attempt, whatever becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from sinks.errors import Unavailable
from sinks.wire.answers import Broken
from sinks.wire.connection import Patience
from sinks.wire.json_answers import checked
from sinks.wire.service import Request, Service
from sinks.wire.signature import Kind

CONNECT_TIMEOUT_SECONDS = 3
IDLE_SECONDS_MAX = 5.0  # a dead connection costs a whole attempt: sooner than AWS closes any
START = Kind(
    "POST",
    {
        "content-type": "application/x-amz-json-1.0",
        "x-amz-target": "AWSStepFunctions.StartSyncExecution",
    },
)


@dataclass(frozen=True)
class WireExecutions:
    """`ingest.workflow.Executions`."""

    service: Service

    def start(self, arn: str, state: str, timeout_seconds: int) -> dict[str, Any]:
        """What Step Functions says of an execution that ran to its end."""
        what = f"run {arn}"
        patience = Patience(
            connect=min(CONNECT_TIMEOUT_SECONDS, timeout_seconds), read=timeout_seconds, whole=True
        )
        body = orjson.dumps({"stateMachineArn": arn, "input": state})
        request = Request(START, "/", body)
        try:
            answer = self.service.ask(request, repeatable=False, patience=patience)
        except Broken as broken:
            raise Unavailable(f"{what}: {broken}") from broken
        return checked(answer, what)
