"""The Express workflow, called once per Delivery and attempt.

StartSyncExecution is at most once as seen from here: one attempt, and an answer that does not come
is *unknown*, never success. A 200 is not success either: the execution's `status` says.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

import orjson

from ingest.limits import READ_TIMEOUT_STEP_SECONDS
from sinks.errors import DeadlinePassed, SinkError, translated

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient

STATE_BYTES_MAX = 262_144  # Step Functions: input and output of a state, UTF-8
CONNECT_TIMEOUT_SECONDS = 3
CONNECTIONS_MAX = 24  # parts of a Delivery at once, while a killer is looked for


class ExecutionFailed(SinkError):
    """The execution ended in another status than SUCCEEDED: nothing of it is taken as done."""

    reason = "workflow_failed"


class TransformDied(ExecutionFailed):
    """The execution's Transform raised, ran out of memory or of time: see `ingest.killers`."""

    reason = "transform_died"


class Executions(Protocol):
    """How an execution is asked for: the transport, and no more."""

    def start(self, arn: str, state: str, timeout_seconds: int) -> dict[str, Any]:
        """StartSyncExecution, once, and what it answers. Raises as `Workflow.run` does.

        The answer is awaited at most `timeout_seconds`.
        """


@dataclass(frozen=True)
class Workflow:
    """One state machine."""

    executions: Executions
    arn: str

    def run(self, state: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
        """Run an execution to its end and return its output. Safe from several threads.

        The answer is awaited at most `timeout_seconds`, rounded down; under a second nothing is
        begun, and `DeadlinePassed` is raised. Raises `ExecutionFailed`, of which `TransformDied`
        is one, and `Unavailable` where the answer did not come (the execution may still be going
        on).
        """
        if timeout_seconds < 1:
            raise DeadlinePassed(f"run {self.arn}: {timeout_seconds:.1f} s are left")
        text = orjson.dumps(state)
        if len(text) > STATE_BYTES_MAX:
            raise ExecutionFailed(f"the state is over {STATE_BYTES_MAX} bytes")
        answer = self.executions.start(self.arn, text.decode(), math.floor(timeout_seconds))
        if answer.get("status") != "SUCCEEDED":
            which = f"{answer.get('executionArn', self.arn)} {answer.get('status')}"
            why = f"{answer.get('error', '')}: {answer.get('cause', '')}"
            died = answer.get("error") == TransformDied.__name__
            raise (TransformDied if died else ExecutionFailed)(f"{which}: {why[:1000]}")
        # Not by orjson: an execution may say half a surrogate pair.
        return json.loads(answer["output"])  # type: ignore[no-any-return]


@dataclass
class BotoExecutions:
    """`Executions` by boto3's clients. `make_client` is `boto3.client`."""

    make_client: Callable[..., Any]
    _clients: dict[int, SFNClient] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, arn: str, state: str, timeout_seconds: int) -> dict[str, Any]:
        """One attempt."""
        client = self._client(timeout_seconds)
        with translated(f"run {arn}"):
            answer = client.start_sync_execution(stateMachineArn=arn, input=state)
        return cast("dict[str, Any]", answer)

    def _client(self, timeout_seconds: int) -> SFNClient:
        """A client that waits no longer than asked; botocore fixes the time when it is made."""
        from botocore.config import Config  # noqa: PLC0415  without boto3's clients it stays out

        steps = timeout_seconds // READ_TIMEOUT_STEP_SECONDS
        timeout = steps * READ_TIMEOUT_STEP_SECONDS or timeout_seconds
        with self._lock:
            if timeout not in self._clients:
                self._clients[timeout] = self.make_client(
                    "stepfunctions",
                    config=Config(
                        connect_timeout=min(CONNECT_TIMEOUT_SECONDS, timeout),
                        read_timeout=timeout,
                        retries={"total_max_attempts": 1, "mode": "standard"},
                        max_pool_connections=CONNECTIONS_MAX,
                    ),
                )
            return self._clients[timeout]
