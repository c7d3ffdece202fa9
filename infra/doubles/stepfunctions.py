"""Express workflows in memory: an ASL file walked as Step Functions walks it, JSONata and all.

Time is the host's: in simulated time an execution interleaves with everything else, outlives a
caller that gave up, and runs into the timeouts that the file gives its states. It knows the states
that Millrace uses and refuses others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, Protocol, TypeVar

from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError
from jsonata.jsonata import Jsonata

from infra.doubles.world import Call, World, refused

T = TypeVar("T")

STATE_BYTES_MAX = 262_144  # input and output of a state, UTF-8
PATIENCE_SECONDS = 60.0  # botocore's read timeout, unless it is told another

_PATH = re.compile(r"\{%\s*(\$string\()?\$states\.(\w+(?:\.\w+)*)(?(1)\))\s*%\}")

LAMBDA = "arn:aws:states:::lambda:invoke"
PUT_ITEM = "arn:aws:states:::dynamodb:putItem"
PUT_EVENTS = "arn:aws:states:::events:putEvents"
SERVICES = {LAMBDA: "Lambda", PUT_ITEM: "DynamoDB", PUT_EVENTS: "EventBridge"}
TIMEOUT = "States.Timeout"


class Host(Protocol):
    """Where executions run: it has functions, and time that passes."""

    def invoke(self, function: str, payload: dict[str, Any]) -> Any:
        """Lambda's Invoke, by ARN. Raises `StateFailed`, and what a client raises."""

    def within(self, work: Callable[[], T], seconds: float, what: str) -> T:
        """What `work` returns. Raises `TimeoutError` after so many seconds; `work` goes on."""

    def sleep(self, seconds: float) -> None: ...

    def uniform(self, low: float, high: float) -> float: ...


class StateFailed(Exception):
    """A state failed with this error name, as Retry and Catch know it."""

    def __init__(self, name: str, cause: str = "") -> None:
        super().__init__(f"{name}: {cause}")
        self.name, self.cause = name, cause


@dataclass
class Execution:
    """One execution, as StartSyncExecution tells it at its end. `entered` are its states."""

    arn: str
    machine: str
    input: dict[str, Any]
    started_at: float
    status: str = "RUNNING"
    output: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    cause: str = ""
    entered: list[str] = field(default_factory=list)


@dataclass
class StateMachines:
    """The account's state machines by ARN, each as the object of its ASL file."""

    world: World
    host: Host
    dynamodb: Any
    events: Any
    machines: Mapping[str, Mapping[str, Any]]
    executions: list[Execution] = field(default_factory=list)

    def client(self, read_timeout: float = PATIENCE_SECONDS) -> Client:
        return Client(self, read_timeout)

    def run(self, execution: Execution) -> Execution:
        """Walk an execution to its end, or to its workflow's timeout."""
        machine = self.machines[execution.machine]
        ends = self.world.clock() + machine.get("TimeoutSeconds", float("inf"))
        try:
            for state in self._walk(machine, execution, ends):
                execution.output = state
            execution.status = "SUCCEEDED"
        except StateFailed as failed:
            out_of_time = failed.name == TIMEOUT and self.world.clock() >= ends
            execution.status = "TIMED_OUT" if out_of_time else "FAILED"
            execution.error, execution.cause = failed.name, failed.cause
        return execution

    def _walk(
        self, machine: Mapping[str, Any], execution: Execution, ends: float
    ) -> Iterator[dict[str, Any]]:
        name, state = machine["StartAt"], execution.input
        while True:
            spec = machine["States"][name]
            execution.entered.append(name)
            _small(state)
            states = {"input": state, "context": self._context(execution)}
            match spec["Type"]:
                case "Succeed":
                    yield state
                    return
                case "Fail":
                    told = evaluated({k: spec.get(k, "") for k in ("Error", "Cause")}, states)
                    raise StateFailed(told["Error"], told["Cause"])
                case "Choice":
                    choices = spec["Choices"]
                    chosen = (c["Next"] for c in choices if evaluated(c["Condition"], states))
                    name = next(chosen, spec["Default"])
                case "Task":
                    name, state = self._task(spec, states, ends)
                    yield state
                case other:
                    raise NotImplementedError(other)

    def _task(
        self, spec: Mapping[str, Any], states: dict[str, Any], ends: float
    ) -> tuple[str, dict[str, Any]]:
        """A task with its retries: the next state's name and its input."""
        tried: dict[int, int] = {}
        while True:
            try:
                states["result"] = self._attempt(spec, states, ends)
                output = _plain(evaluated(spec["Output"], states))
                _small(output)
            except StateFailed as failed:
                if self.world.clock() >= ends:
                    raise StateFailed(TIMEOUT, "the execution's time is over") from failed
                if self._again(spec, failed, tried, ends):
                    continue
                for catch in spec.get("Catch", ()):
                    if _matches(catch["ErrorEquals"], failed.name):
                        states["errorOutput"] = {"Error": failed.name, "Cause": failed.cause}
                        caught = evaluated(catch.get("Output", "{% $states.errorOutput %}"), states)
                        return catch["Next"], _plain(caught)
                raise
            else:
                return spec["Next"], output

    def _again(
        self, spec: Mapping[str, Any], failed: StateFailed, tried: dict[int, int], ends: float
    ) -> bool:
        """Whether a retrier takes the error: its interval is over then."""
        for number, retrier in enumerate(spec.get("Retry", ())):
            if not _matches(retrier["ErrorEquals"], failed.name):
                continue
            count = tried.get(number, 0)
            if count >= retrier.get("MaxAttempts", 3):
                return False
            tried[number] = count + 1
            pause = retrier.get("IntervalSeconds", 1) * retrier.get("BackoffRate", 2.0) ** count
            if retrier.get("JitterStrategy") == "FULL":
                pause = self.host.uniform(0, pause)
            self.host.sleep(min(pause, max(ends - self.world.clock(), 0)))
            if self.world.clock() >= ends:
                raise StateFailed(TIMEOUT, "the execution's time is over")
            return True
        return False

    def _attempt(self, spec: Mapping[str, Any], states: dict[str, Any], ends: float) -> Any:
        arguments = _plain(evaluated(spec["Arguments"], states))
        left = ends - self.world.clock()
        seconds = min(spec.get("TimeoutSeconds", float("inf")), left)
        if seconds <= 0:
            raise StateFailed(TIMEOUT, "no time is left")
        resource = spec["Resource"]
        try:
            return self.host.within(lambda: self._call(resource, arguments), seconds, resource)
        except TimeoutError:
            raise StateFailed(TIMEOUT, f"{resource} took over {seconds:.0f} s") from None

    def _call(self, resource: str, arguments: dict[str, Any]) -> Any:
        service = SERVICES[resource]
        try:
            if resource == LAMBDA:
                answer = self.host.invoke(arguments["FunctionName"], arguments["Payload"])
                return {"Payload": _plain(answer)}
            if resource == PUT_EVENTS:
                return self._put_events(arguments["Entries"])
            return self.dynamodb.put_item(**arguments)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            raise StateFailed(f"{service}.{_spelled(code)}", str(error)) from error
        except BotoCoreError as error:
            raise StateFailed(f"{service}.SdkClientException", str(error)) from error

    def _put_events(self, entries: list[dict[str, Any]]) -> Any:
        """As the integration does it: details become text, and one refused entry fails the task."""
        made = [{**entry, "Detail": json.dumps(entry["Detail"])} for entry in entries]
        answer = self.events.put_events(Entries=made)
        if answer["FailedEntryCount"]:
            raise StateFailed("EventBridge.FailedEntry", json.dumps(answer["Entries"]))
        return answer

    def _context(self, execution: Execution) -> dict[str, Any]:
        moment = datetime.fromtimestamp(self.world.clock(), UTC)
        entered = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"State": {"EnteredTime": entered}, "Execution": {"Id": execution.arn}}


@dataclass(frozen=True)
class Client:
    """A boto3 client whose answers are awaited `read_timeout` seconds."""

    account: StateMachines
    read_timeout: float

    def start_sync_execution(
        self,
        *,
        stateMachineArn: str,  # noqa: N803  as boto3
        input: str = "{}",  # noqa: A002  as boto3
    ) -> dict[str, Any]:
        call = Call("states", "StartSyncExecution", stateMachineArn)
        account = self.account

        def act() -> dict[str, Any]:
            if stateMachineArn not in account.machines:
                raise refused(call, "StateMachineDoesNotExist")
            if len(input.encode()) > STATE_BYTES_MAX:
                raise refused(call, "ValidationException")
            number = len(account.executions) + 1
            arn = stateMachineArn.replace(":stateMachine:", ":express:") + f":execution:{number}"
            execution = Execution(arn, stateMachineArn, json.loads(input), account.world.clock())
            account.executions.append(execution)
            try:
                account.host.within(
                    lambda: account.run(execution), self.read_timeout, "StartSyncExecution"
                )
            except TimeoutError:
                raise ReadTimeoutError(endpoint_url="https://states") from None
            return told(execution)

        return account.world.effect(call, act)


def told(execution: Execution) -> dict[str, Any]:
    """An execution as StartSyncExecution answers."""
    answer: dict[str, Any] = {"executionArn": execution.arn, "status": execution.status}
    if execution.status == "SUCCEEDED":
        return answer | {"output": json.dumps(execution.output)}
    return answer | {"error": execution.error, "cause": execution.cause}


def evaluated(value: Any, states: Mapping[str, Any]) -> Any:
    """An ASL value with its JSONata expressions replaced by what they come to."""
    if isinstance(value, dict):
        return {key: evaluated(inner, states) for key, inner in value.items()}
    if isinstance(value, list):
        return [evaluated(inner, states) for inner in value]
    if isinstance(value, str) and value.startswith("{%"):
        found = _looked_up(value, states)
        return _by_jsonata(value, states) if found is None else found
    return value


def _looked_up(text: str, states: Mapping[str, Any]) -> str | int | dict[str, Any] | None:
    """What a plain path comes to, or `$string` of one, where JSONata does no more than look it up.

    Most expressions are these, and JSONata takes a hundred times as long. None where it has to
    decide: what is absent, or a list on the way, which it may take apart.
    """
    path = _path(text)
    if path is None:
        return None
    as_text, names = path
    found: Any = states
    for name in names:
        if not isinstance(found, dict):
            return None
        found = found.get(name)
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found) if as_text else found
    return found if isinstance(found, str | dict) and not as_text else None


@cache
def _path(text: str) -> tuple[bool, list[str]] | None:
    """The names of a path below `$states`, and whether `$string` is around it."""
    found = _PATH.fullmatch(text)
    return None if found is None else (found[1] is not None, found[2].split("."))


def _by_jsonata(text: str, states: Mapping[str, Any]) -> Any:
    expression = _expression(text)
    frame = expression.create_frame()
    frame.bind("states", states)
    return expression.evaluate(None, frame)


@cache
def _expression(text: str) -> Any:
    return Jsonata(text.removeprefix("{%").removesuffix("%}").strip())


def _matches(names: list[str], name: str) -> bool:
    failed = "States.TaskFailed" in names and name != TIMEOUT
    return name in names or "States.ALL" in names or failed


def _small(state: Any) -> None:
    if len(json.dumps(state).encode()) > STATE_BYTES_MAX:
        raise StateFailed("States.DataLimitExceeded", f"over {STATE_BYTES_MAX} bytes")


def _plain(value: Any) -> Any:
    """As it comes out of JSON: what JSONata hands on may share parts with its input."""
    return json.loads(json.dumps(value))


def _spelled(code: str) -> str:
    """An error code as Step Functions spells it: service errors end in Exception."""
    return code if code.endswith("Exception") else f"{code}Exception"
