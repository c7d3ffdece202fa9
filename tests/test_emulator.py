"""The emulator: starts where it is told, saves what it holds, and never outlives its owner."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.local import child, emulator
from infra.local.embedded import served
from infra.local.emulator import PID_FILE, Emulator, EmulatorError, client, is_healthy, serves
from infra.local.state import Running, State, StateError
from sinks.deadline import Deadline
from sinks.table import Table, put_text
from tests.support import Clock, create_table

ROOT = Path(__file__).parent.parent
PATIENCE_SECONDS = 20.0
# Starts an emulator with something in it, and is then killed by the test.
DOOMED = """
import sys, time
from pathlib import Path
from infra.local.emulator import Emulator, client
emulator = Emulator(Path(sys.argv[1]))
emulator.start()
client("sqs", emulator.url).create_queue(QueueName="kept")
client("s3", emulator.url).create_bucket(Bucket="kept")
client("s3", emulator.url).put_object(Bucket="kept", Key="a/b", Body=b"1")
print(emulator.pid, emulator.url, flush=True)
time.sleep(60)
"""


@contextmanager
def started(state: Path, port: int = 0):
    made = Emulator(state, port)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def running(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def await_end(pid: int) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while running(pid):
        assert time.monotonic() < until, f"process {pid} is still there"
        time.sleep(0.02)


def put_everywhere(url: str) -> None:
    """Something in each service that a pipeline uses."""
    client("s3", url).create_bucket(Bucket="kept")
    client("s3", url).put_object(Bucket="kept", Key="a/b", Body=b"\x00\xff")
    sqs = client("sqs", url)
    queue = sqs.create_queue(QueueName="kept")["QueueUrl"]
    sqs.send_message(QueueUrl=queue, MessageBody="\N{SNOWMAN}")
    kinesis = client("kinesis", url)
    kinesis.create_stream(StreamName="kept", ShardCount=1)
    kinesis.get_waiter("stream_exists").wait(StreamName="kept", WaiterConfig={"Delay": 1})
    kinesis.put_record(StreamName="kept", PartitionKey="k", Data=b"\x00\xff")
    dynamodb = client("dynamodb", url)
    dynamodb.create_table(
        TableName="kept",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    dynamodb.put_item(TableName="kept", Item={"pk": {"S": "1"}, "n": {"N": "1.5"}})


def read_everywhere(url: str) -> dict[str, object]:
    """What `put_everywhere` put, read back."""
    sqs = client("sqs", url)
    queue = sqs.get_queue_url(QueueName="kept")["QueueUrl"]
    kinesis = client("kinesis", url)
    shard = kinesis.list_shards(StreamName="kept")["Shards"][0]["ShardId"]
    iterator = kinesis.get_shard_iterator(
        StreamName="kept", ShardId=shard, ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    item = client("dynamodb", url).get_item(TableName="kept", Key={"pk": {"S": "1"}})
    return {
        "s3": client("s3", url).get_object(Bucket="kept", Key="a/b")["Body"].read(),
        "sqs": sqs.receive_message(QueueUrl=queue)["Messages"][0]["Body"],
        "kinesis": kinesis.get_records(ShardIterator=iterator)["Records"][0]["Data"],
        "dynamodb": item["Item"]["n"],
    }


# ---- Starting and stopping ----


def test_stop_saves_and_start_reads_it_back(tmp_path):
    with started(tmp_path) as first:
        assert is_healthy(first.url)
        assert serves(first.pid, tmp_path)
        assert not serves(first.pid, tmp_path / "other")
        pid = first.pid
        put_everywhere(first.url)
    assert not running(pid)
    assert not is_healthy(first.url)
    assert not first.alive()
    assert not (tmp_path / PID_FILE).exists()
    with started(tmp_path) as second:
        assert read_everywhere(second.url) == {
            "s3": b"\x00\xff",
            "sqs": "\N{SNOWMAN}",
            "kinesis": b"\x00\xff",
            "dynamodb": {"N": "1.5"},
        }


def test_of_a_devices_items_the_newest_stays(tmp_path):
    with started(tmp_path) as here:
        dynamodb = client("dynamodb", here.url)
        create_table(dynamodb, "latest")
        table, clock = Table(dynamodb, "latest"), Clock()

        def put(at: str) -> str:
            item = {"pk": {"S": "d"}, "sk": {"S": "latest"}, "_at": {"S": at}}
            deadline = Deadline(clock.now + 60, clock)
            assert not table.put_each(1, [put_text(item)], deadline, clock.waiting(), newest=True)
            return dict(table.all_keys())["d"]

        assert [put(at) for at in ("5", "4", "6", "6", "1")] == ["5", "5", "6", "6", "6"]
        table.delete_newest(("d", "latest"), "5")
        assert list(table.all_keys()) == [("d", "6")]
        table.delete_newest(("d", "latest"), "6")
        table.delete_newest(("d", "latest"), "6")
        assert list(table.all_keys()) == []


def test_it_listens_on_loopback_alone(tmp_path):
    with started(tmp_path) as made:
        listening = listening_addresses(made.pid)
    assert listening
    assert listening <= {"0100007F"}  # 127.0.0.1, as the kernel writes it


def test_stopping_twice_is_stopping_once(tmp_path):
    made = Emulator(tmp_path)
    made.stop()
    made.start()
    made.stop()
    made.stop()
    assert not made.alive()
    assert made.pid == 0


def test_a_taken_port_is_told_before_anything_is_started(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EmulatorError, match=f"port {port} of 127.0.0.1 is taken .*--port"):
            Emulator(tmp_path, port).start()
    assert list(tmp_path.iterdir()) == []


def test_the_wanted_port_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with started(tmp_path, port) as made:
        assert made.url == f"http://127.0.0.1:{port}"


def test_an_emulator_that_ends_at_once_shows_the_end_of_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "BOOTSTRAP", "import sys; sys.exit('no such module: ministack')")
    with pytest.raises(EmulatorError, match="did not start; its log ends:\nno such module"):
        Emulator(tmp_path).start()


def test_ctrl_c_while_stopping_does_not_cost_the_state(tmp_path):
    made = Emulator(tmp_path)
    made.start()
    put_everywhere(made.url)
    timers = [threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)) for delay in (0.5, 0.7)]
    os.kill(made.pid, signal.SIGSTOP)  # so that it certainly takes longer
    timers.append(threading.Timer(1.0, os.kill, (made.pid, signal.SIGCONT)))
    for timer in timers:
        timer.start()
    made.stop()
    for timer in timers:
        timer.join()
    with started(tmp_path) as again:
        assert read_everywhere(again.url)["dynamodb"] == {"N": "1.5"}


def test_clients_are_blind_to_the_callers_own_setup(tmp_path, monkeypatch):
    broken = tmp_path / "config"
    broken.write_text("[broken\n")
    elsewhere = {
        "AWS_PROFILE": "nobody",
        "AWS_CONFIG_FILE": str(broken),
        "AWS_SHARED_CREDENTIALS_FILE": str(broken),
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_DEFAULT_REGION": "mars-north-1",
        "http_proxy": "http://127.0.0.1:1",
    }
    for name, value in elsewhere.items():
        monkeypatch.setenv(name, value)
    emulator._session.cache_clear()
    with started(tmp_path / "state") as made:
        put_everywhere(made.url)
        assert read_everywhere(made.url)["s3"] == b"\x00\xff"


# ---- When its owner is killed ----


def test_it_saves_and_ends_when_its_owner_is_killed(tmp_path):
    doomed = subprocess.Popen(
        [sys.executable, "-c", DOOMED, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with doomed:
        assert doomed.stdout is not None
        pid, url = doomed.stdout.readline().split()
        assert is_healthy(url)
        doomed.kill()
    await_end(int(pid))
    with started(tmp_path) as again:
        client("sqs", again.url).get_queue_url(QueueName="kept")
        body = client("s3", again.url).get_object(Bucket="kept", Key="a/b")["Body"]
        assert body.read() == b"1"


def test_a_stale_emulator_is_stopped_when_the_state_is_next_owned(tmp_path):
    state = State(tmp_path / "state")
    state.prepare()
    stale = Emulator(state.root)
    stale.start()
    try:
        put_everywhere(stale.url)
        gone = 2**22 + 1  # above any process number
        state.announce(Running(gone, stale.pid, stale.url, "fleet"))
        assert state.running() is None
        with state.owned():
            assert not running(stale.pid)
            with started(state.root) as fresh:
                assert read_everywhere(fresh.url)["dynamodb"] == {"N": "1.5"}
    finally:
        stale.stop()


def test_a_pipeline_that_runs_is_found_and_named(tmp_path):
    state = State(tmp_path / "state")
    with state.owned(), started(state.root) as made:
        here = Running(os.getpid(), made.pid, made.url, "fleet")
        state.announce(here)
        assert state.running() == here
        match = rf"in use by process {os.getpid()} \(fleet\)"
        with pytest.raises(StateError, match=match), State(state.root).owned():
            pass
        assert made.alive()
    assert state.running() is None


def test_another_states_emulator_on_the_old_port_is_not_taken_for_ours(tmp_path):
    ours, other = State(tmp_path / "ours"), State(tmp_path / "other")
    ours.prepare()
    other.prepare()
    with started(other.root) as theirs:
        ours.announce(Running(os.getpid(), theirs.pid, theirs.url, "fleet"))
        (ours / PID_FILE).write_text(str(theirs.pid))
        assert ours.running() is None
        with ours.owned():
            assert theirs.alive()


def test_who_reads_from_a_pipeline_that_ends_is_told(tmp_path):
    state = State(tmp_path / "state")
    with state.owned(), started(state.root) as made:
        state.announce(Running(os.getpid(), made.pid, made.url, "fleet"))
        match = rf"process {os.getpid()}, whose pipeline this used, has stopped it"
        with pytest.raises(StateError, match=match):
            read_while_it_ends(state, made.stop)


def read_while_it_ends(state: State, end: Callable[[], None]) -> None:
    with served(state) as clients:
        assert clients("s3").list_buckets()["Buckets"] == []
        end()
        clients("sqs").list_queues()


def test_who_reads_from_an_emulator_that_dies_is_told(tmp_path):
    state = State(tmp_path / "state")
    state.prepare()
    match = r"the emulator has died; see .*emulator\.log"
    with pytest.raises(EmulatorError, match=match):
        read_while_it_ends(
            state, lambda: os.kill(int((state / PID_FILE).read_text()), signal.SIGKILL)
        )
    with served(state) as clients:
        assert clients("s3").list_buckets()["Buckets"] == []


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "1", str(2**22 + 1)])
def test_nobody_else_is_stopped(tmp_path, text):
    state = State(tmp_path / "state")
    state.prepare()
    (state / PID_FILE).write_text(text)
    with state.owned():
        pass


def test_what_is_no_emulator_is_not_healthy():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        threading.Thread(target=hang_up, args=(silent,), daemon=True).start()
        assert not is_healthy(f"http://127.0.0.1:{port}")
    assert not is_healthy(f"http://127.0.0.1:{port}")


def hang_up(server: socket.socket) -> None:
    connection, _ = server.accept()
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    connection.close()


def listening_addresses(pid: int) -> set[str]:
    """The addresses a process listens on, as /proc has them."""
    sockets = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        try:
            sockets.add(str(file.readlink()))
        except FileNotFoundError:
            continue
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = "0A"
    return {
        row[1].partition(":")[0]
        for row in rows
        if row[3] == listening and f"socket:[{row[9]}]" in sockets
    }
