"""One attempt, one answer, and only SUCCEEDED is success."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from ingest.workflow import STATE_BYTES_MAX, BotoExecutions, ExecutionFailed, Workflow
from sinks.errors import DeadlinePassed, Misconfigured, SinkError, Unavailable
from sinks.wire.account import Account
from sinks.wire.connection import Patience
from tests.support import Answer, Loopback, answer, drop, json_error, loopback, stall

if TYPE_CHECKING:
    from botocore.config import Config

ARN = "arn:aws:states:us-east-1:123456789012:stateMachine:millrace-telemetry-batch"
EXECUTION = ARN.replace("stateMachine", "express") + ":e:1"


By = Callable[[Loopback], Workflow]


def ended(status: str, **more: Any) -> Answer:
    """An execution that ended so: whatever the status, HTTP says 200."""
    body = {"executionArn": EXECUTION, "startDate": 0, "stopDate": 1, "status": status, **more}
    return answer(200, json.dumps(body).encode(), name=status)


@pytest.fixture(autouse=True)
def plain_hosts(monkeypatch: pytest.MonkeyPatch):
    """StartSyncExecution has a host of its own, `sync-...`, which loopback has not."""
    monkeypatch.setenv("AWS_DISABLE_HOST_PREFIX_INJECTION", "true")


@pytest.fixture(params=["boto3", "wire"])
def workflow(request: pytest.FixtureRequest) -> Callable[[Loopback], Workflow]:
    """A workflow on a server, by each transport."""

    def by(server: Loopback) -> Workflow:
        if request.param == "boto3":
            return Workflow(BotoExecutions(server.client), ARN)
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        account = Account({**keys, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": server.url})
        server.clients.append(account)
        return Workflow(account.executions(Patience(1, 1)), ARN)

    return by


def test_the_output_of_an_execution_that_succeeded(workflow: By):
    output = {"account": {"retry": "[]"}, "text": "é"}
    with loopback(ended("SUCCEEDED", output=json.dumps(output))) as server:
        assert workflow(server).run({"raw_key": "raw/é", "received": 3}, 60) == output
    ((_, body),) = server.requests
    sent = json.loads(body)
    assert sent["stateMachineArn"] == ARN
    assert json.loads(sent["input"]) == {"raw_key": "raw/é", "received": 3}


@pytest.mark.parametrize("status", ["FAILED", "TIMED_OUT", "ABORTED", "RUNNING", ""])
def test_another_status_is_failure_although_http_says_200(status: str, workflow: By):
    script = ended(status, error="States.Timeout", cause="x" * 32_768, output="{}")
    with loopback(script) as server:
        with pytest.raises(
            ExecutionFailed, match=f"{EXECUTION} {status}: States.Timeout"
        ) as raised:
            workflow(server).run({}, 60)
        assert len(server.requests) == 1
    assert len(str(raised.value)) < 1_500
    assert isinstance(raised.value, SinkError)


def test_a_failure_without_error_and_cause(workflow: By):
    with loopback(ended("ABORTED")) as server, pytest.raises(ExecutionFailed, match="ABORTED"):
        workflow(server).run({}, 60)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (stall, Unavailable),
        (drop, Unavailable),
        (json_error(400, "ThrottlingException"), Unavailable),
        (json_error(500, "InternalError"), Unavailable),
        (answer(503, b"busy"), Unavailable),
        (answer(200, b'{"executionArn": "', cut_bytes=5, name="cut"), Unavailable),
        (answer(200, b"<html>", name="html"), ExecutionFailed),
        (answer(200, b"{}", name="empty"), ExecutionFailed),
        (json_error(400, "StateMachineDoesNotExist"), Misconfigured),
        (json_error(400, "AccessDeniedException"), Misconfigured),
    ],
)
def test_an_execution_is_begun_once_whatever_is_the_matter(
    script: Answer, error: type[Exception], workflow: By
):
    """A second attempt at one that still runs would be a second execution of the same Delivery."""
    started = time.monotonic()
    with loopback(script) as server:
        with pytest.raises(error, match=ARN):
            workflow(server).run({}, 1.9)
        took = time.monotonic() - started
        time.sleep(0.1)
        assert len(server.requests) == 1
    assert took < 1.9


@pytest.mark.parametrize("left", [0.999, 0, -5])
def test_without_a_second_left_nothing_is_begun(left: float, workflow: By):
    with loopback(ended("SUCCEEDED", output="{}")) as server:
        with pytest.raises(DeadlinePassed, match=f"run {ARN}"):
            workflow(server).run({}, left)
        assert server.requests == []


@pytest.mark.parametrize(
    ("size", "error"), [(STATE_BYTES_MAX, None), (STATE_BYTES_MAX + 1, ExecutionFailed)]
)
def test_a_state_over_256_kib_is_refused_before_it_is_sent(
    size: int, error: type[Exception] | None, workflow: By
):
    state = {"x": "x" * (size - len('{"x":""}'))}
    with loopback(ended("SUCCEEDED", output="{}")) as server:
        if error is None:
            assert workflow(server).run(state, 60) == {}
        else:
            with pytest.raises(error, match="262144 bytes"):
                workflow(server).run(state, 60)
        assert len(server.requests) == (error is None)


class Recording:
    """What clients are made with."""

    def __init__(self) -> None:
        self.configs: list[Config] = []

    def __call__(self, service: str, config: Config) -> Recording:
        assert service == "stepfunctions"
        self.configs.append(config)
        return self

    def start_sync_execution(self, **_: Any) -> dict[str, Any]:
        return {"status": "SUCCEEDED", "output": "{}", "executionArn": EXECUTION}


@pytest.mark.parametrize(
    ("left", "timeout"),
    [(1, 1), (1.9, 1), (9.99, 9), (10, 10), (19.9, 10), (176.9, 170), (900, 900)],
)
def test_the_answer_is_awaited_within_the_time_that_is_left(left: float, timeout: int):
    made = Recording()
    Workflow(BotoExecutions(made), ARN).run({}, left)
    (config,) = made.configs
    assert config.read_timeout == timeout <= left
    assert config.connect_timeout <= timeout
    assert config.retries == {"total_max_attempts": 1, "mode": "standard"}


def test_clients_are_kept_by_their_timeout():
    made = Recording()
    states = Workflow(BotoExecutions(made), ARN)
    for left in (177, 176.5, 171, 169, 177):
        states.run({}, left)
    assert [config.read_timeout for config in made.configs] == [170, 160]
