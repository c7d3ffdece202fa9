"""Ways in and out beside Kinesis and a plain queue, on the emulator: FIFO, SNS, rules, the feed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra import push
from infra.local.embedded import Embedded, embedded, running
from infra.local.state import State, StateError
from sinks import ledger, raw
from tests.support import reading

ROOT = Path(__file__).parent.parent
SECONDS = 60.0
COMMAND = (sys.executable, "-m", "infra.cli")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
HOT = {"readings": {"temperature": 1e9}}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    state = State(tmp_path_factory.mktemp("plain"))
    with state.owned(), embedded(state, "telemetry") as system:
        yield system


@pytest.fixture(scope="module")
def fifo_state(tmp_path_factory: pytest.TempPathFactory) -> State:
    return State(tmp_path_factory.mktemp("fifo"))


@pytest.fixture(scope="module")
def fifo(fifo_state: State) -> Iterator[Embedded]:
    with fifo_state.owned(), embedded(fifo_state, "telemetry", fifo=True) as system:
        yield system


def eventually(look: Callable[[], Any]) -> Any:
    until = time.monotonic() + SECONDS
    while not (found := look()):
        assert time.monotonic() < until
        time.sleep(0.2)
    return found


def message(device: str, seq: int, **more: Any) -> bytes:
    return reading(device, time.time_ns() // 1_000, seq, **more)


def settled(system: Embedded, stream: str) -> int:
    """How many source records of a stream have a fate."""
    found = [a for a in ledger.attempts(system.ledger_table) if a.stream == stream]
    return sum(a.delivered + a.quarantined for a in found)


def queue(system: Embedded, name: str) -> tuple[str, str]:
    """A new queue's URL and ARN."""
    sqs = system.client("sqs")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    asked = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return url, asked["Attributes"]["QueueArn"]


def pipelines_queue(system: Embedded) -> str:
    asked = system.client("sqs").get_queue_attributes(
        QueueUrl=system.queue_url, AttributeNames=["QueueArn"]
    )
    return str(asked["Attributes"]["QueueArn"])


def landed(system: Embedded, device: str) -> list[int]:
    """The numbers of a device's records in the hot table."""
    items = system.hot_table.scan()
    return sorted(int(i["sequence"]["N"]) for i in items if i["device_id"]["S"] == device)


# The feed


def test_a_rule_of_a_producer_gets_the_rejects_of_its_contract(plain: Embedded):
    events, sqs = plain.client("events"), plain.client("sqs")
    url, arn = queue(plain, "my-rejects")
    pattern = {"source": ["millrace"], "detail": {"contract": ["telemetry"]}}
    events.put_rule(Name="my-rejects", EventBusName="millrace", EventPattern=json.dumps(pattern))
    events.put_targets(
        Rule="my-rejects", EventBusName="millrace", Targets=[{"Id": "1", "Arn": arn}]
    )
    stream = plain.topology.stream.name
    bodies = [message("d-1", 1), message("d-1", 2, **HOT), message("d-1", 3, **HOT), b"{"]
    sent = push.Sent()
    push.to_stream(plain.client("kinesis"), stream, [("d-1", body) for body in bodies], sent)
    got: list[dict[str, Any]] = []

    def told() -> bool:
        answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        got.extend(json.loads(one["Body"]) for one in answer.get("Messages", []))
        return sum(one["detail"]["count"] for one in got) == 3

    eventually(told)
    assert {(one["source"], one["detail-type"]) for one in got} == {
        ("millrace", "Records rejected")
    }
    by_reason = {one["detail"]["reason"]: one["detail"] for one in got}
    hot = by_reason["out_of_range"]
    assert hot["examples"][0]["device"] == "d-1"
    assert hot["examples"][0]["sequence"] in sent.sequences
    assert (hot["pipeline"], hot["stream"], hot["field"]) == (stream, stream, "temperature")
    assert plain.bucket.find(hot["quarantine_key"])
    assert {a.settled_at for a in ledger.attempts(plain.ledger_table)} >= {hot["settled_at"]}


# Ways into a plain queue


def test_sns_and_eventbridge_can_feed_the_queue_with_the_message_alone(plain: Embedded):
    sns, events = plain.client("sns"), plain.client("events")
    target = pipelines_queue(plain)
    topic = sns.create_topic(Name="readings")["TopicArn"]
    sns.subscribe(
        TopicArn=topic,
        Protocol="sqs",
        Endpoint=target,
        Attributes={"RawMessageDelivery": "true"},
    )
    events.create_event_bus(Name="devices")
    events.put_rule(
        Name="readings", EventBusName="devices", EventPattern=json.dumps({"source": ["fleet"]})
    )
    events.put_targets(
        Rule="readings",
        EventBusName="devices",
        Targets=[{"Id": "1", "Arn": target, "InputPath": "$.detail"}],
    )
    sns.publish(TopicArn=topic, Message=message("by-sns", 1).decode())
    entry = {"EventBusName": "devices", "Source": "fleet", "DetailType": "reading"}
    events.put_events(Entries=[{**entry, "Detail": message("by-eventbridge", 1).decode()}])
    eventually(lambda: landed(plain, "by-sns") == landed(plain, "by-eventbridge") == [1])


# FIFO


def test_a_fifo_queue_keeps_each_device_in_order(fifo: Embedded):
    devices = [f"d-{number % 3}" for number in range(90)]
    keyed = [
        (device, b"{" if number == 40 else message(device, number))
        for number, device in enumerate(devices)
    ]
    sent = push.Sent()
    name = fifo.topology.queue.name
    push.to_queue(fifo.client("sqs"), fifo.queue_url, keyed, sent)
    assert name.endswith(".fifo")
    eventually(lambda: settled(fifo, name) == 90)
    seen: dict[str, list[str]] = defaultdict(list)
    attempts = [a for a in ledger.attempts(fifo.ledger_table) if a.stream == name]
    assert max(attempt.received for attempt in attempts) <= 10
    for attempt in sorted(attempts, key=lambda attempt: attempt.settled_at):
        rows = raw.read(fifo.bucket, attempt.raw_key, ["_partition_key", "_sequence"])
        for row in rows.to_pylist():
            seen[row["_partition_key"]].append(row["_sequence"])
    assert seen == {
        device: [one for one, own in zip(sent.sequences, devices, strict=True) if own == device]
        for device in set(devices)
    }
    assert [len(landed(fifo, f"d-{number}")) for number in range(3)] == [30, 29, 30]


def test_who_wants_the_other_kind_of_queue_is_told(fifo: Embedded, fifo_state: State):
    wants = f"serves a FIFO queue on {fifo_state.root}, not a standard queue"
    with pytest.raises(StateError, match=wants), running(fifo_state, "telemetry", fifo=False):
        pass
    with running(fifo_state, "telemetry") as system:
        assert system.topology.queue == fifo.topology.queue


# Who follows


def millrace(*arguments: str, state: State) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *arguments, "--state", str(state.root)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_tail_prints_rejects_as_they_come_until_it_is_interrupted(
    fifo: Embedded, fifo_state: State, tmp_path: Path
):
    asked = ("quarantine", "tail", "--device", "d-7", "--json", "--state", str(fifo_state.root))
    printed = tmp_path / "out"
    with (
        printed.open("wb") as out,
        subprocess.Popen([*COMMAND, *asked], env=ENVIRONMENT, stdout=out) as following,
    ):

        def told() -> list[dict[str, Any]]:
            number = len(told_before)
            told_before.append(number)
            keyed = [("d-7", message("d-7", number, **HOT)), ("d-8", b"{"), ("d-7", b"[")]
            push.to_queue(fifo.client("sqs"), fifo.queue_url, keyed, push.Sent())
            time.sleep(1)
            return [json.loads(line) for line in printed.read_text().splitlines()]

        told_before: list[int] = []
        found = eventually(lambda: len(rows := told()) >= 2 and rows)
        following.terminate()
        assert following.wait(SECONDS) == 130
    assert {(row["device"], row["partition_key"], row["reason"]) for row in found} == {
        ("d-7", "d-7", "out_of_range"),
        (None, "d-7", "malformed_json"),
    }
    assert len({row["position"] for row in found}) == len(found)


def test_a_file_through_a_fifo_queue_and_what_is_left_of_it(tmp_path: Path):
    state = State(tmp_path / "state")
    bodies = [message(f"d-{n % 4}", n, **(HOT if n % 20 == 3 else {})) for n in range(100)]
    (tmp_path / "file").write_bytes(b"\n".join(bodies))
    asked = (str(tmp_path / "file"), "--contract", "telemetry", "--via", "sqs-fifo", "--json")
    done = millrace("ingest", *asked, state=state)
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["sent"], told["delivered"], told["unaccounted"]) == (100, 95, 0), done.stderr
    tail = millrace("quarantine", "tail", "--device", "d-3", state=state)
    lines = tail.stdout.splitlines()
    assert (tail.returncode, len(lines)) == (0, 5)
    assert all("  d-3  out_of_range  temperature  " in line for line in lines)
    assert millrace("verify", state=state).returncode == 0
