"""What the tests of the pipeline share: a clock, AWS stand-ins, and an in-process workflow."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import boto3
from hypothesis import settings
from jsonata.jsonata import Jsonata
from moto import mock_aws

from infra.topology import Topology, pipeline
from ingest.settings import Settings, Wiring
from ingest.workflow import ExecutionFailed, TransformDied
from sinks import hot
from sinks.bucket import Bucket
from sinks.errors import Unavailable
from sinks.queue import Queue
from sinks.table import Key, Table, Waiting
from transform.contract import Contract
from transform.records import Delivery

if TYPE_CHECKING:
    import pyarrow as pa
    from botocore.config import Config

SOME = settings(max_examples=100, deadline=None)  # a busy machine is no failure
REGION = "us-east-1"
SESSION = boto3.Session("test", "test", region_name=REGION)
"""One for all: it keeps the service models, which take longer to load than most tests to run."""
SECOND = 1_000_000  # microseconds
NOON = 1_795_521_600 * SECOND  # 2026-11-24T12:00:00Z
TOPOLOGY = pipeline("telemetry", "telemetry")
SETTINGS = Settings(
    pipeline="millrace-telemetry",
    bucket=TOPOLOGY.bucket,
    contract="telemetry",
    hot_table=TOPOLOGY.hot_table.name,
    workflow="arn:aws:states:us-east-1:000000000000:stateMachine:millrace-telemetry-batch",
    ledger_table=TOPOLOGY.ledger_table.name,
    repair_queue=TOPOLOGY.repair_queue.name,
)


class Clock:
    """Time as an argument: it stands still until somebody sleeps."""

    def __init__(self, now: float = NOON / SECOND) -> None:
        self.now = now
        self.naps: list[float] = []
        self._lock = threading.Lock()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.naps.append(seconds)
            self.now += seconds

    def waiting(self) -> Waiting:
        """Waiting on this clock, always as long as the jitter allows."""
        return Waiting(self.sleep, lambda _, high: high)


@dataclass
class Context:
    """What a handler uses of Lambda's context."""

    remaining_ms: int = 60_000
    function_name: str = TOPOLOGY.ingest_stream.name

    def get_remaining_time_in_millis(self) -> int:
        return self.remaining_ms


# Records


def reading(device: str = "sensor-1", moment: int = NOON, seq: int = 0, **more: Any) -> bytes:
    """A record of the telemetry contract; `more` goes into the message, or replaces its parts."""
    message = {
        "device_id": device,
        "ts": moment // 1_000,
        "seq": seq,
        "readings": {"temperature": 21.5},
    }
    return json.dumps(message | more, separators=(",", ":")).encode()


def delivery(bodies: Sequence[bytes], arrival: int = NOON, stream: str = "millrace") -> Delivery:
    """A Kinesis Delivery of these bodies, all from one shard."""
    count = len(bodies)
    return Delivery(
        source="kinesis",
        stream=stream,
        shards=["shardId-000000000000"] * count,
        sequences=[str(100 + number) for number in range(count)],
        groups=["sensor"] * count,
        arrivals=[arrival] * count,
        attributes=[None] * count,
        bodies=list(bodies),
    )


def items_of(rows: pa.Table, contract: Contract) -> dict[Key, Any]:
    """The hot items that rows want, by key."""
    made = hot.Wanted.of(rows, contract).by_key()
    return {key: json.loads(put)["PutRequest"]["Item"] for key, put in made.items()}


# AWS


@dataclass(frozen=True)
class Cloud:
    """A mocked account with the bucket, the tables and the repair queue of a pipeline."""

    s3: Any
    dynamodb: Any
    sqs: Any
    bucket: Bucket
    hot: Table
    ledger: Table
    repairs: Queue

    def wiring(
        self, clock: Clock | None = None, contract: str = "telemetry", **changes: Any
    ) -> Wiring:
        """A Wiring onto this account, with time that stands still; `changes` are of settings."""
        clock = clock or Clock()
        settings = replace(SETTINGS, contract=contract, **changes)
        wiring = Wiring(settings, clock)
        wiring.waiting = clock.waiting()
        wiring.bucket = self.bucket
        wiring.hot_table = self.hot
        wiring.ledger_table = self.ledger
        wiring.repair_queue = self.repairs if settings.repair_queue else None
        return wiring

    def keys(self, prefix: str = "") -> list[str]:
        return list(self.bucket.keys(prefix))

    def items(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The hot table by key."""
        return {(item["pk"]["S"], item["sk"]["S"]): item for item in self.hot.scan()}


@contextmanager
def cloud(topology: Topology = TOPOLOGY) -> Iterator[Cloud]:
    """Real clients on a mocked account."""
    with mock_aws():
        s3, dynamodb, sqs = client("s3"), client("dynamodb"), client("sqs")
        s3.create_bucket(Bucket=topology.bucket)
        for table in topology.tables:
            create_table(dynamodb, table.name)
        sqs.create_queue(QueueName=topology.repair_queue.name)
        yield Cloud(
            s3=s3,
            dynamodb=dynamodb,
            sqs=sqs,
            bucket=Bucket(s3, topology.bucket),
            hot=Table(dynamodb, topology.hot_table.name),
            ledger=Table(dynamodb, topology.ledger_table.name),
            repairs=Queue(sqs, topology.repair_queue.name),
        )


def create_table(dynamodb: Any, name: str) -> None:
    keys = (("pk", "HASH"), ("sk", "RANGE"))
    dynamodb.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": key, "KeyType": kind} for key, kind in keys],
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key, _ in keys],
        BillingMode="PAY_PER_REQUEST",
    )


def client(service: str, url: str | None = None, config: Config | None = None) -> Any:
    return SESSION.client(service, endpoint_url=url, config=config)


# A server that misbehaves


Answer = Callable[["Exchange"], None]
"""What the server does with one request."""


class Exchange(BaseHTTPRequestHandler):
    """One connection of a `Loopback`."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave together, or each answer waits for an acknowledgement
    server: Loopback
    path: str

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.next_answer(f"{self.command} {self.path}", body)(self)

    do_GET = do_PUT = do_POST = handle_any  # noqa: N815  named by the base class

    def handle_expect_100(self) -> bool:
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def log_message(self, *_: Any) -> None:
        """Keep quiet: the test looks at `Loopback.requests`."""


class Loopback(ThreadingHTTPServer):
    """An HTTP server on loopback whose answers are scripted; the last one is repeated."""

    daemon_threads = True

    def __init__(self, *script: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.script = list(script)
        self.requests: list[tuple[str, bytes]] = []
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self.clients: list[Any] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def next_answer(self, what: str, body: bytes) -> Answer:
        with self.lock:
            self.requests.append((what, body))
            return self.script[min(len(self.requests), len(self.script)) - 1]

    def client(self, service: str, config: Config | None = None) -> Any:
        """A real client of this server, closed with it; the signature is `boto3.client`'s."""
        made = client(service, self.url, config)
        self.clients.append(made)
        return made

    def handle_error(self, *_: Any) -> None:
        """A client that gave up waiting is what many tests are about."""


@contextmanager
def loopback(*script: Answer) -> Iterator[Loopback]:
    server = Loopback(*script)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        for made in server.clients:
            made.close()
        server.shutdown()
        thread.join()
        server.server_close()


def answer(
    status: int,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    cut_bytes: int = 0,
    name: str = "",
) -> Answer:
    """Answer; the last `cut_bytes` that the header promises are not sent."""

    def act(exchange: Exchange) -> None:
        exchange.send_response(status)
        for header, value in (headers or {}).items():
            exchange.send_header(header, value)
        exchange.send_header("Content-Length", str(len(body)))
        exchange.end_headers()
        exchange.wfile.write(body[: len(body) - cut_bytes])
        exchange.close_connection = cut_bytes > 0

    act.__name__ = name or str(status)  # what pytest calls a test by
    return act


def s3_error(status: int, code: str) -> Answer:
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>"
    return answer(status, body.encode(), name=code)


def json_error(status: int, code: str) -> Answer:
    """An error as DynamoDB and Step Functions say it."""
    body = {"__type": f"com.amazonaws#{code}", "message": "no"}
    return answer(status, json.dumps(body).encode(), name=code)


def stall(exchange: Exchange) -> None:
    """Never answer; the connection stays open until the server closes."""
    exchange.server.closing.wait(60)
    exchange.close_connection = True


def drop(exchange: Exchange) -> None:
    """Hang up without an answer."""
    exchange.close_connection = True
    exchange.connection.shutdown(socket.SHUT_RDWR)


# The workflow, in process


@dataclass
class InProcessWorkflow:
    """The state machine of an ASL file, walked in this process.

    JSONata is evaluated as the file says it, stages are called, DynamoDB is a real client's. It
    knows the states that Millrace uses and refuses others. What a stage raises ends the execution,
    as it would end the real one.
    """

    topology: Topology
    stages: Mapping[str, Callable[[dict[str, Any], Any], dict[str, Any]]]
    dynamodb: Any
    context: Context = field(default_factory=Context)
    told: list[dict[str, Any]] = field(default_factory=list)
    entered: list[str] = field(default_factory=list)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    raised: list[Exception] = field(default_factory=list)
    down: bool = False

    upkeep: bool = False

    @cached_property
    def machine(self) -> dict[str, Any]:
        """The ASL file with its functions' names: a batch's, or upkeep's."""
        if self.upkeep:
            arns = {one.name: f"arn:{one.name}" for one in self.topology.upkeep.functions}
            return json.loads(self.topology.upkeep_definition(arns))  # type: ignore[no-any-return]
        return machine_of(self.topology)

    def run(self, state: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
        assert timeout_seconds > 0
        if self.down:
            raise Unavailable("the workflow does not answer")
        machine = self.machine
        self.inputs.append(state)
        execution = f"arn:aws:states:{REGION}:0:express:batch:{len(self.inputs)}"
        name, state = machine["StartAt"], json.loads(json.dumps(state))
        while True:
            self.entered.append(name)
            spec = machine["States"][name]
            at = {"State": {"EnteredTime": "2026-11-24T12:00:07.123Z"}}
            states = {"input": state, "context": {**at, "Execution": {"Id": execution}}}
            if spec["Type"] == "Succeed":
                return state
            if spec["Type"] == "Choice":
                chosen = [c for c in spec["Choices"] if evaluated(c["Condition"], states)]
                name = chosen[0]["Next"] if chosen else spec["Default"]
                continue
            if spec["Type"] == "Fail":
                kind = TransformDied if spec["Error"] == "TransformDied" else ExecutionFailed
                raise kind(f"FAILED: {evaluated(spec['Cause'], states)}")
            try:
                states["result"] = self._task(spec, evaluated(spec["Arguments"], states))
            except Exception as error:
                self.raised.append(error)
                caught = [c for c in spec.get("Catch", ()) if "States.ALL" in c["ErrorEquals"]]
                if not caught:
                    raise ExecutionFailed(f"FAILED: {type(error).__name__}") from error
                states["errorOutput"] = {"Error": type(error).__name__, "Cause": str(error)}
                state = evaluated(caught[0]["Output"], states)
                name = caught[0]["Next"]
                continue
            state = json.loads(json.dumps(evaluated(spec["Output"], states)))
            name = spec["Next"]

    def _task(self, spec: dict[str, Any], arguments: dict[str, Any]) -> Any:
        match spec["Resource"]:
            case "arn:aws:states:::lambda:invoke":
                stage = self.stages[arguments["FunctionName"].removeprefix("arn:")]
                sent = json.loads(json.dumps(arguments["Payload"]))
                return {"Payload": json.loads(json.dumps(stage(sent, self.context)))}
            case "arn:aws:states:::dynamodb:putItem":
                return self.dynamodb.put_item(**arguments)
            case "arn:aws:states:::events:putEvents":
                self.told += arguments["Entries"]
                return {"FailedEntryCount": 0}
        raise NotImplementedError(spec["Resource"])


MACHINES: dict[int, tuple[Topology, dict[str, Any]]] = {}


def machine_of(topology: Topology) -> dict[str, Any]:
    """A topology's state machine, read once; a topology is kept, so that its id stays its own."""
    if id(topology) not in MACHINES:
        arns = {function.name: f"arn:{function.name}" for function in topology.functions}
        MACHINES[id(topology)] = topology, json.loads(topology.definition(arns))
    return MACHINES[id(topology)][1]


@cache
def expression(text: str) -> Jsonata:
    """Parsed once: that takes longer than to evaluate it."""
    return Jsonata(text)


PLAIN_PATH = re.compile(r"(\$string\()?\$states((?:\.\w+)+)(?(1)\))")
"""Most expressions of the ASL: looking text or a number up needs no JSONata."""


def _looked_up(path: str, states: Any) -> Any:
    for name in path[1:].split("."):
        states = states.get(name) if isinstance(states, dict) else None
    return states


def evaluated(value: Any, states: dict[str, Any]) -> Any:
    """An ASL value with its JSONata expressions replaced by what they come to."""
    if isinstance(value, dict):
        return {key: evaluated(inner, states) for key, inner in value.items()}
    if isinstance(value, list):
        return [evaluated(inner, states) for inner in value]
    if isinstance(value, str) and value.startswith("{%"):
        text = value.removeprefix("{%").removesuffix("%}").strip()
        if plain := PLAIN_PATH.fullmatch(text):
            found = _looked_up(plain[2], states)
            if plain[1] and type(found) is int:
                return str(found)
            if isinstance(found, str | dict):
                return found
        parsed = expression(text)
        frame = parsed.create_frame()
        frame.bind("states", states)
        return parsed.evaluate(None, frame)
    return value
