"""Bad weather for the local functions: what passes is unchanged, what fails, fails as in AWS."""

from __future__ import annotations

import gc
import io
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

from infra.cli.verify import stores_of
from infra.local import chaos
from infra.local.chaos import Chaos, Kind, Plan, Rule
from infra.local.embedded import embedded
from infra.local.emulator import Emulator
from infra.local.emulator import client as make_client
from infra.local.proxy import Answer, Forward, Proxy, Request, with_body
from infra.local.state import TABLES, State
from infra.topology import Topology
from infra.verify import verify
from sinks import ledger
from sinks.errors import Unavailable, translated
from tests.support import TOPOLOGY, Exchange, answer, client, create_table, loopback, reading

ROOT = Path(__file__).parent.parent
ITEM = {"pk": {"S": "a"}, "sk": {"S": "b"}}


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    running = Emulator(tmp_path_factory.mktemp("emulator"))
    running.start()
    try:
        create_table(make_client("dynamodb", running.url), "items")
        make_client("s3", running.url).create_bucket(Bucket="bucket")
        yield running.url
    finally:
        running.stop()


# ---- Bytes ----


@contextmanager
def endpoint(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives these answers, and the bytes it was asked with until `END`."""
    asked: list[bytes] = []

    def serve() -> None:
        for told in answers:
            peer, _ = listener.accept()
            with peer:
                got = b""
                while not got.endswith(b"END") and (more := peer.recv(65_536)):
                    got += more
                asked.append(got)
                peer.sendall(told)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
        thread.join(5)


def talk(url: str, *parts: bytes, until: bytes) -> bytes:
    """What is said on one connection to these parts, sent one after the other."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 5) as peer:
        got = b""
        for part in parts:
            peer.sendall(part)
        while not got.endswith(until) and (more := peer.recv(65_536)):
            got += more
        return got


REQUESTS = {
    "length": b"PUT /a%20b?x=1 HTTP/1.1\r\nhOsT: x\r\nContent-Length: 7\r\n\r\n\x00\xff\r\nEND",
    "chunks with trailers": b"PUT /k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Encoding: aws-chunked\r\nTrailer: x-amz-checksum-crc32\r\n\r\n"
    b"A;chunk-signature=0\r\n0123456789\r\n3\r\n\r\n0\r\n0\r\n"
    b"x-amz-checksum-crc32: AAAAAA==\r\n\r\n",
    "chunks without trailers": b"PUT /k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\nab\r\n0\r\n\r\n",
}
ANSWERS = {
    "length": b"HTTP/1.1 200 OK\r\nX-Odd :  1 \r\nContent-Length: 5\r\n\r\n\r\nEND",
    "chunks": b"HTTP/1.1 206 Some\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nEND\r\n0\r\n\r\n",
    "until the end": b"HTTP/1.1 200 OK\r\n\r\nall of it",
    "nothing": b"HTTP/1.1 204 No Content\r\n\r\n",
    "two": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", REQUESTS.values(), ids=REQUESTS.keys())
def test_a_request_passes_unchanged(request_bytes: bytes) -> None:
    asked: list[Request] = []
    told = Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"")

    async def meddle(request: Request, _: Forward) -> Answer:
        asked.append(request)
        return told

    with Proxy("http://127.0.0.1:1", meddle) as proxy:
        # The second one on the same connection shows that the first was read to its end.
        got = talk(proxy.url("f"), request_bytes, request_bytes, until=told.head * 2)
    assert got == told.head * 2
    assert [each.head + each.body for each in asked] == [request_bytes] * 2
    assert {each.caller for each in asked} == {"f"}


@pytest.mark.parametrize("answer_bytes", ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer_passes_unchanged(answer_bytes: bytes) -> None:
    request = REQUESTS["length"]
    with endpoint(answer_bytes) as (url, asked), Proxy(url) as proxy:
        final = answer_bytes.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert talk(proxy.url("f"), request, until=final) == final
    assert asked == [request]


def test_who_waits_for_100_continue_gets_it_before_the_body() -> None:
    head = b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    told = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    with endpoint(told) as (url, asked), Proxy(url) as proxy:
        host, _, port = proxy.url("f").removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), 5) as peer:
            peer.sendall(head)
            assert peer.recv(1_000) == b"HTTP/1.1 100 Continue\r\n\r\n"
            peer.sendall(b"END")
            assert peer.recv(1_000) == told
    assert asked == [head + b"END"]


def test_real_clients_notice_nothing(emulator: str) -> None:
    data = random.Random(1).randbytes(3_000_000)
    with Proxy(emulator) as proxy:
        url = proxy.url("f")
        s3, table = make_client("s3", url), make_client("dynamodb", url)
        s3.put_object(Bucket="bucket", Key="a b/ü", Body=data, IfNoneMatch="*")
        with pytest.raises(ClientError, match="PreconditionFailed"):
            s3.put_object(Bucket="bucket", Key="a b/ü", Body=data, IfNoneMatch="*")
        stream = io.BytesIO(data)
        s3.put_object(Bucket="bucket", Key="stream", Body=stream, ChecksumAlgorithm="SHA256")
        keys = ["a b/ü", "stream"]
        for key in keys:
            assert s3.get_object(Bucket="bucket", Key=key)["Body"].read() == data
            assert s3.head_object(Bucket="bucket", Key=key)["ContentLength"] == len(data)
        found = s3.list_objects_v2(Bucket="bucket")["Contents"]
        assert [entry["Key"] for entry in found] == keys
        table.put_item(TableName="items", Item=ITEM)
        assert table.scan(TableName="items")["Items"] == [ITEM]
        s3.close()
        table.close()


def test_a_request_is_finished_although_its_caller_is_gone(caplog: pytest.LogCaptureFixture):
    began, go_on, finished = threading.Event(), threading.Event(), threading.Event()

    def slowly(exchange: Exchange) -> None:
        began.set()
        go_on.wait(5)
        answer(200)(exchange)

    async def meddle(request: Request, forward: Forward) -> Answer:
        told = await forward(request)
        finished.set()
        return told

    with loopback(slowly) as server, Proxy(server.url, meddle) as proxy:
        host, _, port = proxy.url("f").removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), 5) as peer:
            peer.sendall(b"PUT / HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
            assert began.wait(5)
        time.sleep(0.2)  # until the proxy has seen the end of its caller
        gc.collect()  # the loop itself keeps no task alive
        go_on.set()
        assert finished.wait(5)
    assert not caplog.records


def test_no_endpoint_is_a_connection_closed() -> None:
    with (
        Proxy("http://127.0.0.1:1") as proxy,
        hasty("s3", proxy.url("f")) as s3,
        pytest.raises(ConnectionClosedError),
    ):
        s3.get_object(Bucket="bucket", Key="k")


# ---- Faults, as clients see them ----


@contextmanager
def hasty(service: str, url: str) -> Iterator[Any]:
    """A client that tries once."""
    made = client(service, url, Config(retries={"total_max_attempts": 1}, inject_host_prefix=False))
    try:
        yield made
    finally:
        made.close()


CALLS: dict[str, Callable[[Any], Any]] = {
    "s3": lambda s3: s3.put_object(Bucket="bucket", Key="k", Body=b"data"),
    "dynamodb": lambda table: table.batch_write_item(
        RequestItems={"items": [{"PutRequest": {"Item": ITEM}}]}
    ),
    "stepfunctions": lambda machine: machine.start_sync_execution(
        stateMachineArn="arn:aws:states:us-east-1:000000000000:stateMachine:m", input="{}"
    ),
    "sqs": lambda sqs: sqs.send_message(QueueUrl="http://x/0/q", MessageBody="m"),
}
EXCEPTIONS = {
    Kind.THROTTLE: ClientError,
    Kind.SERVER_ERROR: ClientError,
    Kind.LOST_ANSWER: ConnectionClosedError,
    Kind.ZOMBIE: ConnectionClosedError,
}


@pytest.mark.parametrize("kind", EXCEPTIONS)
@pytest.mark.parametrize("service", CALLS)
def test_a_fault_is_weather_to_the_sinks(kind: Kind, service: str) -> None:
    """And it takes effect, or does not: what was refused never reached the endpoint."""
    always = Chaos(1, [Plan(kind, service, 1.0, lambda r: chaos.service_of(r) == service)])
    with (
        loopback(answer(200, b"{}")) as server,
        Proxy(server.url, always.meddle) as proxy,
        hasty(service, proxy.url("f")) as made,
    ):
        for _ in range(8):
            reached = len(server.requests)
            with pytest.raises(EXCEPTIONS[kind]) as seen:
                CALLS[service](made)
            with pytest.raises(Unavailable), translated("it"):
                raise seen.value
            effects = len(server.requests) - reached
            if kind is not Kind.ZOMBIE:  # that one ends when it likes
                assert effects == (kind is Kind.LOST_ANSWER)
    assert always.counts()[kind][service] == 8


def test_of_unprocessed_items_the_others_are_written(emulator: str) -> None:
    always = Chaos(1, [Plan(Kind.UNPROCESSED, "dynamodb", 1.0, lambda _: True)])
    sks = {f"{number:02}" for number in range(25)}
    with Proxy(emulator, always.meddle) as proxy, hasty("dynamodb", proxy.url("f")) as table:
        written: set[str] = set()
        left, calls = sks, 0
        while left:
            answered = table.batch_write_item(RequestItems={"items": puts("v", left)})
            back = answered.get("UnprocessedItems", {}).get("items", [])
            still = {put["PutRequest"]["Item"]["sk"]["S"] for put in back}
            assert still
            assert still <= left
            written |= left - still
            found = make_client("dynamodb", emulator).scan(TableName="items")["Items"]
            assert {item["sk"]["S"] for item in found if item["pk"]["S"] == "v"} == written
            left, calls = still if len(still) > 1 else set(), calls + 1
        assert calls > 1


def puts(pk: str, sks: set[str]) -> list[dict[str, Any]]:
    return [{"PutRequest": {"Item": {"pk": {"S": pk}, "sk": {"S": sk}}}} for sk in sorted(sks)]


def test_a_delayed_request_is_answered() -> None:
    always = Chaos(1, [Plan(Kind.DELAY, "s3", 1.0, lambda _: True)])
    with (
        loopback(answer(200)) as server,
        Proxy(server.url, always.meddle) as proxy,
        hasty("s3", proxy.url("f")) as s3,
    ):
        started = time.monotonic()
        for _ in range(3):
            CALLS["s3"](s3)
        assert time.monotonic() - started >= 3 * chaos.DELAY_SECONDS[0]
        always.calm()
        CALLS["s3"](s3)
    assert (len(server.requests), always.counts()["delay"]["s3"]) == (4, 3)


@pytest.mark.parametrize("busy", [True, False])
def test_a_worker_dies_before_its_call_or_after(*, busy: bool) -> None:
    """A call of a worker that is not there any more is nobody's: it is hung up."""
    killed: list[str] = []

    def kill(function: str) -> bool:
        killed.append(function)
        return busy

    always = Chaos(1, [Plan(Kind.KILLED, "hot", 1.0, lambda r: r.caller == "hot")])
    always.over(TOPOLOGY)
    always.kill = kill
    closed = 0
    with (
        loopback(answer(200)) as server,
        Proxy(server.url, always.meddle) as proxy,
        hasty("s3", proxy.url("hot")) as s3,
        hasty("s3", proxy.url("transform")) as other,
    ):
        for _ in range(20):
            CALLS["s3"](other)
            try:
                CALLS["s3"](s3)
            except ConnectionClosedError:
                closed += 1
    assert set(killed) == {TOPOLOGY.hot.name}
    assert always.counts() == {
        "killed_worker": {"hot": len(killed) if busy else 0},
        "throttle": {"lambda": 0},
    }
    if busy:
        assert 20 < len(server.requests) < 40
        assert closed == 40 - len(server.requests)
    else:
        assert len(server.requests) == 40


# ---- The schedule ----


def test_a_fault_that_must_happen_happens_early_and_the_same_seed_says_when() -> None:
    plan = Plan(Kind.DELAY, "s3", 0.1, lambda _: True, most=(3, 4))

    def run(seed: int) -> list[bool]:
        rule = Rule(plan, seed)
        happened = []
        for _ in range(500):
            due = rule.due()
            rule.happened += due
            happened.append(due)
        return happened

    runs = {seed: run(seed) for seed in range(50)}
    assert all(any(happened[: chaos.FIRST_MAX]) for happened in runs.values())
    assert {sum(happened) for happened in runs.values()} == {3, 4}
    assert runs == {seed: run(seed) for seed in range(50)}
    assert len({tuple(happened) for happened in runs.values()}) > 10


def test_what_did_not_happen_is_named_unless_it_may_not() -> None:
    quiet = Chaos(1)
    told = quiet.counts()
    assert "killed_worker at ingest-sqs" in quiet.missing()
    assert "throttle at lambda" in quiet.missing()
    assert all(not count for places in told.values() for count in places.values())
    assert not any("sqs" in places for kind, places in told.items() if kind != Kind.KILLED)
    assert sum(map(len, told.values())) == len(quiet.missing())
    assert set(told) == set(Kind)


def test_lambda_is_too_busy_now_and_then() -> None:
    weather = Chaos(3)
    refused = [weather.refuses() for _ in range(200)]
    assert 0 < sum(refused) < 40
    assert weather.counts()["throttle"]["lambda"] == sum(refused)
    weather.calm()
    assert not any(weather.refuses() for _ in range(200))


def test_the_pipeline_in_chaos_keeps_all_but_the_size_of_its_batches() -> None:
    disturbed = Chaos(1).over(TOPOLOGY)
    assert disturbed.functions == TOPOLOGY.functions
    assert disturbed.queue == TOPOLOGY.queue
    assert disturbed.stream_mapping.batch_size < TOPOLOGY.stream_mapping.batch_size


# ---- The whole path ----


@pytest.mark.timeout(300)
class HotPartition(Chaos):
    """No bad weather but this: the table takes nothing of one device, until it cools down."""

    def __init__(self, device: str) -> None:
        super().__init__(0, ())
        self.device, self.refused = device, 0

    def refuses(self) -> bool:
        return False

    def over(self, topology: Topology) -> Topology:
        return replace(topology, hot=replace(topology.hot, timeout_seconds=16))

    async def meddle(self, request: Request, forward: Forward) -> Answer:
        if self._calm or chaos.operation_of(request) != "BatchWriteItem":
            return await forward(request)
        ((table, puts),) = json.loads(request.body)["RequestItems"].items()
        device = {"S": self.device}
        left = [p for p in puts if p["PutRequest"]["Item"].get("device_id") == device]
        self.refused += len(left)
        if taken := [put for put in puts if put not in left]:
            body = json.dumps({"RequestItems": {table: taken}}).encode()
            await forward(replace(request, head=with_body(request.head, body, {}), body=body))
        told = {"UnprocessedItems": {table: left} if left else {}}
        return chaos._signed_off(json.dumps(told).encode())


def test_a_hot_partition_is_owed_and_paid_when_it_cools_down(tmp_path: Path) -> None:
    """Functions, queue and repair as they run here: the debt is taken, open, paid, and proven."""
    state, weather = State(tmp_path / "state"), HotPartition("busy")
    now = time.time_ns() // 1_000
    devices = ["busy"] * 5 + [f"calm-{number}" for number in range(45)]
    records = [
        {"Data": reading(device, now, seq=number), "PartitionKey": device}
        for number, device in enumerate(devices)
    ]
    with state.owned(), embedded(state, "telemetry", chaos=weather) as system:
        system.client("kinesis").put_records(
            StreamName=system.topology.stream.name, Records=records
        )
        eventually(lambda: ledger.debts(system.ledger_table)[0])
        assert {pk.partition("#")[0] for pk, _ in system.hot_table.all_keys()} == set(devices[5:])
        assert weather.refused > 5
        weather.calm()
        eventually(lambda: not ledger.debts(system.ledger_table)[0])
        system.mappings.stop(10)
        books = ledger.books(system.ledger_table)
        assert sum(attempt.repair_rows for attempt in books.attempts) == 5
        assert len(list(system.hot_table.all_keys())) == 50
        assert verify(stores_of(state, system.client)).findings == ()


def eventually(holds: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something holds, a minute at most."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.2)


@pytest.mark.parametrize("table", TABLES)
def test_a_demo_in_chaos_accounts_for_every_record(tmp_path: Path, table: str) -> None:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    options = ("--chaos", "--table", table, "--records", "2000", "--json")
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli", "demo", *options],
        env={**inherited, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["sent"], told["unaccounted"], told["problems"]) == (2_000, 0, [])
    quarantined = dict(told["quarantined"])
    total = quarantined.pop("total")
    assert quarantined == told["planted"]
    assert told["delivered"] + total == 2_000
    assert told["repeats"] == told["planted_repeats"]
    assert told["hot_items"] == told["delivered"] - told["repeats"]
    assert told["verify"]["proven"]
    assert set(told["chaos"]) == set(Kind)
    assert all(count > 0 for places in told["chaos"].values() for count in places.values())
