"""A pipeline on a mocked account whose contract can be changed, as replay and reprocess meet it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from infra.esm.events import Place, kinesis_event, record
from infra.topology import pipeline
from ingest import replay as replays
from ingest import stages
from ingest.audit import Choice
from ingest.parking import Parking
from ingest.process import process
from ingest.replay import Pace, Report
from ingest.settings import Wiring
from sinks import fates, raw
from sinks.deadline import Deadline
from tests.support import (
    NOON,
    SECOND,
    TOPOLOGY,
    Clock,
    Cloud,
    Context,
    InProcessWorkflow,
    delivery,
)
from transform.contract_file import load_contract
from transform.records import Delivery

if TYPE_CHECKING:
    import pyarrow as pa

STREAM = TOPOLOGY.stream.name
SHARD = "shardId-000000000000"
HOT = {"readings": {"temperature": 200}}  # over what the shipped contract allows
WIDER = ("max = 125", "max = 500")


def rules(folder: Any, *changes: tuple[str, str]) -> str:
    text = load_contract("telemetry").source.decode()
    for old, new in (("version = 1", "version = 2"), *changes):
        assert old in text
        text = text.replace(old, new, 1)
    path = folder / "telemetry.toml"
    path.write_text(text)
    return str(path)


class Crash(BaseException):
    """The process is gone: nothing catches it."""


@dataclass
class Edge:
    """A pipeline on a mocked account, whose contract can be changed."""

    account: Cloud
    clock: Clock = field(default_factory=lambda: Clock(NOON / SECOND + 5))
    inputs: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.deploy("telemetry")

    def deploy(self, contract: str) -> Wiring:
        self.wiring = wiring = self.account.wiring(self.clock, contract)
        topology = replace(pipeline("telemetry", "telemetry"), contract=contract)
        self.workflow = InProcessWorkflow(
            topology,
            {
                topology.transform.name: lambda state, at: stages.transform(state, wiring, at),
                topology.hot.name: lambda state, at: stages.write_hot(state, wiring, at),
            },
            self.account.dynamodb,
        )
        self.workflow.inputs = self.inputs  # executions are numbered by them
        wiring.workflow = self.workflow  # type: ignore[assignment]
        return wiring

    def ingest(self, bodies: Sequence[bytes], arrival: int = NOON, first: int = 100) -> Delivery:
        came = delivery(bodies, arrival, STREAM)
        came = replace(came, sequences=[str(first + n) for n in range(len(bodies))])
        process(came, self.wiring, Context())
        return came

    def land(self, bodies: Sequence[bytes], epoch: int = 0) -> str:
        """An attempt that ends when it has landed; the landing object's key."""
        made = delivery(bodies, NOON, STREAM)
        deadline = Deadline(self.clock() + 60, self.clock)
        state = {
            "raw_key": raw.archive(self.account.bucket, made, deadline),
            "archived": len(bodies),
            "first": 0,
            "received": len(bodies),
            "epoch": epoch,
            "deadline_ms": int(deadline.at * 1_000),
        }
        return str(stages.transform(state, self.wiring, Context())["landing_key"])

    def parking(self, **more: Any) -> Parking:
        return Parking(self.account.bucket, STREAM, "on-failure/", **more)

    def replay(self, run: str = "run-1", pace: Pace | None = None, **choice: Any) -> Report:
        return replays.replay(self.wiring, self.parking(), Choice(**choice), run, pace)

    def fates(self) -> fates.Fates:
        return fates.read(self.account.bucket, self.wiring.contract)

    def delivered(self) -> pa.Table:
        return self.fates().ask(fates.TABLES.delivered()).to_arrow_table()

    def open(self) -> list[dict[str, Any]]:
        return list(self.fates().open_rows())

    def park(self, bodies: Sequence[bytes], name: str = "a", *, payload: bool = True) -> str:
        key = f"on-failure/aws/lambda/m/{name}"
        self.account.bucket.put(key, json.dumps(document(bodies, payload=payload)).encode())
        return key


def document(bodies: Sequence[bytes], *, payload: bool, first: int = 100) -> dict[str, Any]:
    """What a stream's mapping leaves of a batch that it gave up."""
    place = Place(f"arn:aws:kinesis:us-east-1:0:stream/{STREAM}", "arn:f", "us-east-1", "r", SHARD)
    records = [record(str(first + n), "sensor", b, NOON / SECOND) for n, b in enumerate(bodies)]
    told: dict[str, Any] = {
        "requestContext": {"condition": "RetryAttemptsExhausted"},
        "KinesisBatchInfo": {
            "shardId": SHARD,
            "startSequenceNumber": records[0].identifier,
            "endSequenceNumber": records[-1].identifier,
            "batchSize": len(records),
            "streamArn": place.source_arn,
        },
    }
    if payload:
        told["payload"] = kinesis_event(records, place).decode()
    return told
