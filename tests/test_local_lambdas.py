"""The local Lambda keeps its promises with real worker processes, and behind the real emulator."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from infra.local.invoke_api import (
    PAYLOAD_MAX_BYTES,
    FunctionNotFound,
    InitFailed,
    Invocation,
    RequestTooLarge,
    Stopped,
    TooManyRequests,
    error_of,
)
from infra.local.lambdas import LocalLambda
from infra.local.runtime_api import RESPONSE_MAX_BYTES
from infra.topology import Function

TESTS = Path(__file__).parent
AWS: Any = boto3.Session(
    region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
)


def function(name: str, handler: str, *, timeout_seconds: int = 10, reserved: int = 10) -> Function:
    return Function(
        name=name,
        handler=f"handlers_for_lambdas.{handler}",
        memory_mb=128,
        timeout_seconds=timeout_seconds,
        reserved_concurrency=reserved,
        environment={"OWN": name},
    )


def local(directory: Path, *functions: Function, **workers: int) -> LocalLambda:
    return LocalLambda(
        functions,
        workers=workers,
        environment={"AWS_REGION": "eu-central-1", "COMMON": "yes"},
        log_directory=directory,
        root=TESTS,
    )


def act(lambdas: LocalLambda, do: str, name: str = "act", **arguments: object) -> Invocation:
    return lambdas.invoke(name, json.dumps({"do": do, **arguments}).encode())


def pid(invocation: Invocation) -> int:
    assert invocation.function_error is None, invocation.payload
    number: int = json.loads(invocation.payload)["pid"]
    return number


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(true: Callable[[], bool], seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return true()


@pytest.fixture(scope="module")
def lambdas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalLambda]:
    functions = (
        function("echo", "echo"),
        function("fail", "fail"),
        function("act", "act"),
        function("hasty", "act", timeout_seconds=1),
        function("pair", "act", reserved=3),
        function("single", "act", reserved=1),
    )
    with local(tmp_path_factory.mktemp("logs"), *functions, pair=2) as started:
        yield started


def test_a_function_answers_with_what_its_handler_returns(lambdas: LocalLambda) -> None:
    event = {"text": "Grüße", "numbers": [1, 2.5, None]}
    answer = lambdas.invoke("echo", json.dumps(event).encode())
    assert json.loads(answer.payload) == event
    assert answer.function_error is None
    assert answer.duration_ms > 0
    assert lambdas.invoke("echo", b"").payload == b"{}"


def test_a_worker_sees_what_it_would_see_in_aws_and_nothing_of_the_caller(
    lambdas: LocalLambda,
) -> None:
    seen = json.loads(act(lambdas, "describe").payload)
    environment = seen["environment"]
    assert environment["AWS_LAMBDA_FUNCTION_NAME"] == "act"
    assert environment["_HANDLER"] == "handlers_for_lambdas.act"
    assert (environment["COMMON"], environment["OWN"]) == ("yes", "act")
    assert "HOME" in os.environ
    assert "HOME" not in environment
    assert seen["directory"] == environment["LAMBDA_TASK_ROOT"] == str(TESTS)
    assert seen["arn"] == "arn:aws:lambda:eu-central-1:000000000000:function:act"
    assert seen["memory_mb"] == "128"
    assert 9_000 < seen["remaining_ms"] <= 10_000


def test_an_exception_is_told_by_type_and_message(lambdas: LocalLambda) -> None:
    answer = lambdas.invoke("fail", b"{}")
    assert answer.function_error == "Unhandled"
    assert error_of(answer.payload) == ("NotToday", "no sun")


def test_a_worker_can_be_killed_in_the_middle_of_an_invocation_only(
    lambdas: LocalLambda, tmp_path: Path
) -> None:
    before = pid(act(lambdas, "describe"))
    assert not lambdas.kill("act")
    assert not lambdas.kill("nobody")
    assert running(before)
    sign = tmp_path / "began"
    with ThreadPoolExecutor(1) as pool:
        sleeping = pool.submit(act, lambdas, "sleep", seconds=30, sign=str(sign))
        assert eventually(sign.exists)
        assert lambdas.kill("act")
        answer = sleeping.result(10)
    kind, message = error_of(answer.payload)
    assert (answer.function_error, kind) == ("Unhandled", "Runtime.ExitError")
    assert message.endswith("signal: Killed")
    assert pid(act(lambdas, "describe")) != before


def test_a_function_over_its_timeout_is_killed_and_works_again(lambdas: LocalLambda) -> None:
    before = pid(act(lambdas, "describe", "hasty"))
    answer = act(lambdas, "sleep", "hasty", seconds=30)
    kind, message = error_of(answer.payload)
    assert (answer.function_error, kind) == ("Unhandled", "Sandbox.Timedout")
    assert message.endswith("Task timed out after 1.00 seconds")
    assert 1_000 <= answer.duration_ms < 10_000
    assert not running(before)
    assert pid(act(lambdas, "describe", "hasty")) != before


@pytest.mark.parametrize(
    ("status", "why"),
    [(3, "exited with error: exit status 3"), (0, "exited without providing a reason")],
)
def test_a_crash_is_an_exit_error_and_the_function_works_again(
    lambdas: LocalLambda, status: int, why: str
) -> None:
    before = pid(act(lambdas, "describe"))
    kind, message = error_of(act(lambdas, "exit", status=status).payload)
    assert kind == "Runtime.ExitError"
    assert message.endswith(why)
    assert pid(act(lambdas, "describe")) != before


def test_a_worker_that_died_while_idle_is_replaced(lambdas: LocalLambda) -> None:
    before = pid(act(lambdas, "describe"))
    os.kill(before, signal.SIGKILL)
    assert eventually(lambda: not running(before))
    assert pid(act(lambdas, "describe")) != before


def overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(one["from"] < other["to"] and other["from"] < one["to"])


def test_another_worker_is_started_when_calls_wait(tmp_path: Path) -> None:
    with local(tmp_path, function("pair", "act"), pair=2) as made:
        first = {pid(act(made, "describe", "pair")) for _ in range(3)}
        assert len(first) == 1
        with ThreadPoolExecutor(2) as callers:

            def both() -> set[int]:
                calls = [callers.submit(act, made, "sleep", "pair", seconds=0.2) for _ in range(2)]
                return {pid(call.result()) for call in calls}

            assert eventually(lambda: len(both()) == 2, 30)


def test_workers_run_in_parallel_and_the_next_call_waits(lambdas: LocalLambda) -> None:
    with ThreadPoolExecutor(3) as callers:
        [*callers.map(lambda _: act(lambdas, "sleep", "pair", seconds=1), range(3))]  # both started
        calls = [callers.submit(act, lambdas, "sleep", "pair", seconds=0.5) for _ in range(3)]
        first, second, third = sorted(
            (json.loads(call.result().payload) for call in calls), key=lambda ran: ran["from"]
        )
    assert first["pid"] != second["pid"]
    assert overlap(first, second)
    assert third["from"] >= min(first["to"], second["to"])


def test_over_the_reserved_concurrency_calls_are_throttled(
    lambdas: LocalLambda, tmp_path: Path
) -> None:
    sign = tmp_path / "sign"
    with ThreadPoolExecutor(1) as caller:
        call = caller.submit(act, lambdas, "hold", "single", sign=str(sign))
        assert eventually(sign.exists)
        with pytest.raises(TooManyRequests):
            act(lambdas, "describe", "single")
        with pytest.raises(ClientError, match="TooManyRequestsException"):
            client(lambdas).invoke(FunctionName="single", Payload=b'{"do": "describe"}')
        sign.unlink()
        assert pid(call.result())
    assert pid(act(lambdas, "describe", "single"))


def test_payloads_end_at_the_quotas(lambdas: LocalLambda) -> None:
    largest = b'"' + b"x" * (PAYLOAD_MAX_BYTES - 2) + b'"'
    assert lambdas.invoke("echo", largest).payload == largest
    with pytest.raises(RequestTooLarge):
        lambdas.invoke("echo", largest + b" ")
    answer = act(lambdas, "respond", bytes=RESPONSE_MAX_BYTES)
    assert (answer.function_error, len(answer.payload)) == (None, RESPONSE_MAX_BYTES)
    answer = act(lambdas, "respond", bytes=RESPONSE_MAX_BYTES + 1)
    assert answer.function_error == "Unhandled"
    assert error_of(answer.payload)[0] == "Function.ResponseSizeTooLarge"
    assert pid(act(lambdas, "describe"))


def test_an_unknown_function_is_not_found(lambdas: LocalLambda) -> None:
    with pytest.raises(FunctionNotFound, match="function:nobody"):
        lambdas.invoke("nobody", b"{}")


def test_a_function_that_cannot_be_imported_is_named_with_its_log(tmp_path: Path) -> None:
    broken = Function("broken", "no_such_module.handler", 128, 3, 1)
    (tmp_path / "broken.log").write_text("of an earlier run\n")
    with (
        pytest.raises(InitFailed, match=r"'broken' did not start: Runtime.ImportModuleError") as e,
        local(tmp_path, function("echo", "echo"), broken),
    ):
        pytest.fail("started")
    assert "[ERROR] Runtime.ImportModuleError" in str(e.value)
    assert str(tmp_path / "broken.log") in str(e.value)
    assert "earlier" not in str(e.value)


def test_an_init_that_fails_later_is_the_answer_until_it_works(tmp_path: Path) -> None:
    code = tmp_path / "late.py"
    code.write_text("import os\ndef handler(event, context): os._exit(1)\n")
    late = Function("late", "late.handler", 128, 3, 1)
    with LocalLambda(
        [late], workers={}, environment={}, log_directory=tmp_path / "logs", root=tmp_path
    ) as lambdas:
        code.write_text("raise KeyError('missing setting')\n")
        assert error_of(lambdas.invoke("late", b"{}").payload)[0] == "Runtime.ExitError"
        assert error_of(lambdas.invoke("late", b"{}").payload)[0] == "KeyError"
        code.write_text("def handler(event, context): return 'well again'\n")
        assert lambdas.invoke("late", b"{}").payload == b'"well again"'


def test_stop_ends_everything_and_what_is_in_flight(tmp_path: Path) -> None:
    lambdas = local(tmp_path, function("act", "act"), act=2)
    lambdas.start()
    child = pid(act(lambdas, "spawn"))
    worker = pid(act(lambdas, "describe"))
    assert running(child)
    assert os.getsid(worker) != os.getsid(0)  # Ctrl-C does not reach it
    with ThreadPoolExecutor(3) as callers:
        signs = [tmp_path / f"sign-{n}" for n in range(3)]
        calls = [callers.submit(act, lambdas, "sleep", seconds=30, sign=str(s)) for s in signs]
        assert eventually(lambda: sum(sign.exists() for sign in signs) == 2)
        lambdas.stop()
        assert all(isinstance(call.exception(), Stopped) for call in calls)
    assert eventually(lambda: not running(worker) and not running(child))
    lambdas.stop()
    with pytest.raises(Stopped):
        act(lambdas, "describe")


def test_no_worker_outlives_a_killed_parent(tmp_path: Path) -> None:
    script = f"""
import sys, time
sys.path.insert(0, {str(TESTS)!r})
from pathlib import Path
from test_local_lambdas import act, function, local, pid
lambdas = local(Path({str(tmp_path)!r}), function("act", "act"))
lambdas.start()
print(pid(act(lambdas, "describe")), flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=TESTS.parent,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert running(worker)
        parent.kill()
    assert eventually(lambda: not running(worker))


def test_without_the_runtime_it_says_what_is_needed(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from infra.local.lambdas import LocalLambda
LocalLambda([], workers={{}}, environment={{}}, log_directory=Path({str(tmp_path)!r}),
            root=Path()).start()
"""
    ended = subprocess.run(
        [sys.executable, "-S", "-c", script],  # -S: without site-packages
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "RuntimeUnavailable: handlers run in awslambdaric" in ended.stderr


def client(lambdas: LocalLambda) -> Any:
    config = Config(retries={"total_max_attempts": 1})
    return AWS.client("lambda", endpoint_url=lambdas.url, config=config)


def test_the_invoke_api_is_that_of_aws(lambdas: LocalLambda) -> None:
    service = client(lambdas)
    arn = "arn:aws:lambda:eu-central-1:000000000000:function:echo"
    answer = service.invoke(FunctionName=arn, Payload=b'{"a": 1}')
    assert (answer["StatusCode"], answer["Payload"].read()) == (200, b'{"a": 1}')
    assert "FunctionError" not in answer
    answer = service.invoke(FunctionName="fail", Payload=b"{}")
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    assert json.loads(answer["Payload"].read())["errorType"] == "NotToday"
    with pytest.raises(service.exceptions.ResourceNotFoundException):
        service.invoke(FunctionName="nobody", Payload=b"{}")
    with pytest.raises(service.exceptions.RequestTooLargeException):
        service.invoke(FunctionName="echo", Payload=b" " * (PAYLOAD_MAX_BYTES + 1))
    with pytest.raises(service.exceptions.InvalidParameterValueException):
        service.invoke(FunctionName="echo", InvocationType="Event", Payload=b"{}")


@pytest.fixture(scope="module")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {**os.environ, "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port)}
    command = Path(sys.executable).parent / "ministack"
    log = tmp_path_factory.mktemp("ministack") / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [command], env=environment, stdout=output, stderr=subprocess.STDOUT
        ) as process,
    ):

        def listening() -> bool:
            with socket.socket() as attempt:
                return attempt.connect_ex(("127.0.0.1", port)) == 0

        assert eventually(listening, seconds=20), log.read_text()
        yield f"http://127.0.0.1:{port}"
        process.terminate()


def workflow(
    endpoint: str, lambdas: LocalLambda, name: str, timeout_seconds: int
) -> Callable[..., Any]:
    """An Express workflow with one task, the function; returns what runs it on an event."""
    config = Config(inject_host_prefix=False)
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as code:
        code.writestr("unused.py", "")
    arn = AWS.client("lambda", endpoint_url=endpoint).create_function(
        FunctionName=name,
        Runtime="python3.13",
        Handler="unused.handler",
        Role="arn:aws:iam::000000000000:role/unused",
        Code={"ZipFile": archive.getvalue()},
        Timeout=timeout_seconds,
        Environment={"Variables": {"MINISTACK_LAMBDA_PROXY_URL": lambdas.proxy_url(name)}},
    )["FunctionArn"]
    states = AWS.client("stepfunctions", endpoint_url=endpoint, config=config)
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName": arn, "Payload.$": "$"},
        "OutputPath": "$.Payload",
        "Catch": [{"ErrorEquals": ["NotToday"], "Next": "ByName"}],
        "End": True,
    }
    machine = states.create_state_machine(
        name=name,
        type="EXPRESS",
        roleArn="arn:aws:iam::000000000000:role/unused",
        definition=json.dumps(
            {"StartAt": "Task", "States": {"Task": task, "ByName": {"Type": "Succeed"}}}
        ),
    )["stateMachineArn"]

    def run(**event: object) -> Any:
        return states.start_sync_execution(stateMachineArn=machine, input=json.dumps(event))

    return run


def test_a_task_of_the_emulator_runs_the_function(lambdas: LocalLambda, ministack: str) -> None:
    run = workflow(ministack, lambdas, "pair", timeout_seconds=20)
    answer = run(do="describe")
    assert answer["status"] == "SUCCEEDED", answer
    seen = json.loads(answer["output"])
    assert seen["environment"]["AWS_LAMBDA_FUNCTION_NAME"] == "pair"
    with ThreadPoolExecutor(2) as callers:
        calls = [callers.submit(run, do="sleep", seconds=1) for _ in range(2)]
        first, second = (json.loads(call.result()["output"]) for call in calls)
    assert first["pid"] != second["pid"]
    assert overlap(first, second)


def test_a_failed_function_fails_the_task_under_the_emulators_name(
    lambdas: LocalLambda, ministack: str
) -> None:
    run = workflow(ministack, lambdas, "hasty", timeout_seconds=20)
    answer = run(do="fail", message="no sun " * 1000)
    assert (answer["status"], answer["error"]) == ("FAILED", "Runtime.HandlerError")
    assert 'HTTP 500: {"errorType": "NotToday"' in json.loads(answer["cause"])["errorMessage"]
    answer = run(do="sleep", seconds=30)
    assert (answer["status"], answer["error"]) == ("FAILED", "Runtime.HandlerError")
    assert "Sandbox.Timedout" in answer["cause"]
    assert run(do="describe")["status"] == "SUCCEEDED"


def test_the_emulators_own_timeout_keeps_its_name(lambdas: LocalLambda, ministack: str) -> None:
    run = workflow(ministack, lambdas, "act", timeout_seconds=1)
    answer = run(do="sleep", seconds=2)
    assert (answer["status"], answer["error"]) == ("FAILED", "Sandbox.Timedout")
