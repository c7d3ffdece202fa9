"""Fuzzed Lambda events through the real handlers: nothing crashes, nothing is wrongly acknowledged.

    python -m tests.fuzz --events N [--first-seed N]    exit 1 and the smallest event on a violation

An event is one of `golden/*.json`, bent: in its bodies, which no producer's bytes may ever make a
crash of, and in what Lambda writes around them, which may end in `EventError` and in nothing else.
Handlers, stages, readers and the state machine's JSONata are the real ones; bucket and tables are
dictionaries that now and then throttle, lose an answer or take their time. A seed draws the hot
layout, and how objects are written. Whatever the handler answers is read as the mapping reads it,
and every record that is thereby gone from the source must be found in the objects.
"""

from __future__ import annotations

import argparse
import base64
import copy
import gzip
import hashlib
import io
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pyarrow as pa
from botocore.exceptions import ClientError, ReadTimeoutError
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st

from infra.esm.answers import Result, meaning
from ingest import kinesis, settings, sqs, telemetry
from ingest.events import EventError
from ingest.handlers import hot as hot_handler
from ingest.handlers import kinesis as kinesis_handler
from ingest.handlers import sqs as sqs_handler
from ingest.handlers import transform as transform_handler
from sinks import hot, ledger, parquet
from sinks.bucket import Bucket
from sinks.contracts import Contracts
from sinks.errors import DeadlinePassed
from sinks.queue import Queue
from sinks.repair import Limits, debt_of
from sinks.table import (
    BATCH_ITEMS_MAX,
    ITEM_BYTES_MAX,
    KEY_BYTES_MAX,
    SORT_KEY_BYTES_MAX,
    Key,
    Table,
)
from sinks.writes import NEWEST_BY
from tests.edge import rules
from tests.support import TOPOLOGY, Clock, Context, InProcessWorkflow
from transform import markers
from transform.contract import Contract
from transform.envelope import JSON, open_record
from transform.kpl import KPL_MAGIC, MD5_BYTES, aggregate
from transform.records import Delivery
from transform.tables import hot_mask

GOLDEN = Path(__file__).parent / "golden"
ROUND = 1_000  # events a seed; hypothesis remembers a round's, so rounds are kept short
ENOUGH_MS = 180_000
HEAT_MIN = 0.5  # from how bad a weather on some items are refused for good
BATCH_ENTRIES_MAX = 10  # SQS: entries of a batch call
VISIBILITY_MAX = 43_200  # SQS: seconds
FIRST_SEQUENCE = 49590338271490256608559692538361571095921575989136588898
PARQUET_EVERY = 10  # seeds; in between the objects are in Arrow's own format, ten times as quick
LAYOUTS: dict[str, tuple[tuple[str, str], ...]] = {
    "reading": (),
    "latest": (("[hot]", '[hot]\nlayout = "latest"'),),
}
"""What each hot layout changes in the telemetry contract."""
COLUMNS = {"landing": (), "quarantine": ("_reason", "_body"), "dropped": ("_rule",)}
"""What rows of each kind of object say beside where they come from."""
GROWN_MAX_BYTES = 20_000  # of what one repetition adds to a body: events stay small, and so quick

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 10**20, 10**400, 1e308, float("nan"), float("inf")),
    *("", " ", "x", "0", "-1", "é😀", "\ud800", "a\udfffb", "\x00", "NaN", "null", "١٢٣"),
    *("9" * 40, "9" * 5_000, "0" * 5_000, "z" * 20_000, "18446744073709551616", "2026-11-24"),
    *([], {}, [[]], {"": None}, {"a": {"b": []}}, [0] * 1_000),
)
ODD_JSON = (
    *(b"", b"null", b"{}", b"[]", b"NaN", b"-Infinity", b"1e999", b'"\\ud800"', b"9" * 5_000),
    *(b"[" * 99 + b"]" * 99, b"[" * 101 + b"]" * 101, b"{" * 3_000, b'{"a":' * 200, b" "),
    *(b'"\\u0000"', b"\xff", b"\xed\xa0\x80", b"\x00", b"1E400", b"-0", b"0.1e-400", b"tru"),
    *(b"\xef\xbb\xbf{}", b"\x1f\x8b\x08\x00", b"\x28\xb5\x2f\xfd\x00", b"18446744073709551616"),
)
MARKER = markers.body("shardId-000000000000", 1_795_521_600_000_000)
KEYS = ("device_id", "ts", "seq", "fw", "readings", "temperature", "status", "location", "lat", "")


# Plans: what hypothesis draws and shrinks


@dataclass(frozen=True)
class Bend:
    """One change: which kind, where and with what, as numbers that are taken modulo."""

    kind: int
    where: int
    what: int


@dataclass(frozen=True)
class Plan:
    """An event and the world it comes into."""

    golden: str
    picks: tuple[int, ...]
    bodies: tuple[Bend, ...]
    envelope: tuple[Bend, ...]
    remaining_ms: int
    stage_ms: int
    weather: int  # 0 is fair; else a seed


NUMBERS = st.integers(0, 2**20)
BENDS = st.integers(0, 2**28 - 1).map(lambda n: Bend(n % 2**6, n // 2**6 % 2**2, n // 2**8))
PLANS = st.builds(
    Plan,
    golden=st.sampled_from(["kinesis", "kinesis_kpl", "sqs", "sqs_fifo"]),
    picks=st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple),
    bodies=st.lists(BENDS, max_size=4).map(tuple),
    envelope=st.one_of(st.just(()), st.lists(BENDS, min_size=1, max_size=2).map(tuple)),
    remaining_ms=st.sampled_from([ENOUGH_MS] * 6 + [0, 2_999, 3_500, 4_001, 6_000, 12_000]),
    stage_ms=st.sampled_from([60_000] * 6 + [0, 5_999, 6_500, 10_000]),
    weather=st.one_of(st.just(0), NUMBERS.map(lambda seed: seed + 1)),
)


# Bodies


def _cut(body: bytes, rng: random.Random) -> bytes:
    return body[: rng.randrange(len(body) + 1)]


def _lost(body: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(body) + 1)
    return body[:at] + body[at + rng.randint(1, 8) :]


def _flipped(body: bytes, rng: random.Random) -> bytes:
    changed = bytearray(body or b"\x00")
    for _ in range(rng.randint(1, 3)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _inserted(body: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(body) + 1)
    return body[:at] + rng.choice(ODD_JSON) + body[at:]


def _repeated(body: bytes, rng: random.Random) -> bytes:
    low, high = sorted(rng.randrange(len(body) + 1) for _ in range(2))
    times = min(rng.randint(1, 200), GROWN_MAX_BYTES // (high - low + 1))
    return body[:high] + body[low:high] * times + body[high:]


def _replaced(body: bytes, rng: random.Random) -> bytes:
    del body
    return rng.choice(ODD_JSON)


def _marked(body: bytes, rng: random.Random) -> bytes:
    del body, rng
    return MARKER


def _random(body: bytes, rng: random.Random) -> bytes:
    del body
    return rng.randbytes(rng.randrange(200))


def _changed_json(body: bytes, rng: random.Random) -> bytes:
    """One value of the message, or one key, is another."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return rng.choice(ODD_JSON)
    at = value
    while isinstance(at, dict) and at and rng.random() < 0.6:
        inner = at[rng.choice(list(at))]
        if not isinstance(inner, dict):
            break
        at = inner
    if not isinstance(at, dict):
        return json.dumps([value] * rng.randrange(3)).encode()
    key = rng.choice([*at, *KEYS])
    match rng.randrange(4):
        case 0:
            at.pop(key, None)
        case 1:
            at[key] = rng.choice(ODD)
        case 2:
            at[rng.choice(KEYS) + rng.choice(("", "é", "\x00", "x" * 300))] = at.pop(key, None)
        case _:
            at[key] = {key: at.get(key)}
    return json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def _spliced(body: bytes, rng: random.Random) -> bytes:
    """A member before the others, as text: a repeated key, or a value no JSON writer makes."""
    key, value = rng.choice(KEYS).encode(), rng.choice(ODD_JSON)
    return body.replace(b"{", b'{"' + key + b'":' + value + b",", 1)


def _swelled(body: bytes, rng: random.Random) -> bytes:
    return body + b" " * rng.choice((8_192 - len(body), 8_193 - len(body), 20_000))


def _aggregated(body: bytes, rng: random.Random) -> bytes:
    """An aggregate of the message and bent ones: any depth comes by doing it again."""
    bends = rng.choices(BODY_BENDS[:9], k=rng.randrange(4))
    members = [body, *(bend(body, rng) for bend in bends)]
    key = rng.choice(("k", "", "é" * 200, "k" * 257))
    return aggregate([(key, member) for member in members])


def _packed(body: bytes, rng: random.Random) -> bytes:
    """Compressed or base64, by chance bent and packed again, as deep as is opened and deeper."""
    if rng.random() < 0.2:
        body = rng.choice((_cut, _flipped, _inserted))(body, rng)
    zstd: bytes = pa.compress(body, codec="zstd", asbytes=True)
    body = rng.choice((gzip.compress(body, mtime=0), zstd, base64.b64encode(body)))
    return _packed(body, rng) if rng.random() < 0.4 else body


def _listed(body: bytes, rng: random.Random) -> bytes:
    """An array or lines of the message and bent ones, by chance packed."""
    bends = rng.choices(BODY_BENDS[:9], k=rng.randrange(4))
    found = [body, *(bend(body, rng) for bend in bends)]
    listed = rng.choice((b"[" + b",".join(found) + b"]", b"\n".join(found), b"\x1e".join(found)))
    return _packed(listed, rng) if rng.random() < 0.3 else listed


def _many_members(body: bytes, rng: random.Random) -> bytes:
    return aggregate([("k", body)] + [("k", b"")] * rng.choice((1, 31, 32, 500)))


def _resealed(body: bytes, rng: random.Random) -> bytes:
    """An aggregate bent inside, under a digest that holds."""
    if not body.startswith(KPL_MAGIC):
        body = aggregate([("k", body), ("l", body)])
    packed = rng.choice((_cut, _lost, _flipped, _inserted, _repeated))(body[4:-MD5_BYTES], rng)
    return KPL_MAGIC + packed + hashlib.md5(packed, usedforsecurity=False).digest()


BODY_BENDS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_changed_json, _changed_json, _changed_json, _spliced, _cut, _lost, _flipped, _inserted),
    *(_repeated, _replaced, _random, _swelled, _aggregated, _aggregated, _resealed, _resealed),
    *(_marked, _marked),
    *(_many_members, _packed, _listed, _listed),
)


# Events


@cache
def _golden(name: str) -> list[str]:
    """The records of a golden event, each as JSON."""
    return [json.dumps(r) for r in json.loads((GOLDEN / f"{name}.json").read_text())["Records"]]


def made(plan: Plan) -> tuple[dict[str, Any], list[str]]:
    """The plan's event, and what was done to it."""
    records = [_numbered(plan.golden, pick, at) for at, pick in enumerate(plan.picks)]
    bent = []
    for bend in plan.bodies:
        change = BODY_BENDS[bend.kind % len(BODY_BENDS)]
        bent.append(f"body{change.__name__}")
        record = records[bend.where % len(records)]
        _with_body(record, change, random.Random(bend.what))
    event: Any = {"Records": records}
    for bend in plan.envelope:
        event, what = _enveloped(event, bend, random.Random(bend.what))
        bent.append(f"event_{what}")
    return event, bent or ["as_it_is"]


def _numbered(golden: str, pick: int, at: int) -> dict[str, Any]:
    """The picked record under a position of its own, behind those before it."""
    records = _golden(golden)
    record: dict[str, Any] = json.loads(records[pick % len(records)])
    if "kinesis" in record:
        number = str(FIRST_SEQUENCE + at * 7)
        record["kinesis"]["sequenceNumber"] = number
        record["eventID"] = record["eventID"].partition(":")[0] + ":" + number
    else:
        record["messageId"] = f"{at}{record['messageId'][1:]}"
    return record


def _with_body(
    record: dict[str, Any], change: Callable[[bytes, random.Random], bytes], rng: random.Random
) -> None:
    if "kinesis" in record:
        inside = record["kinesis"]
        try:
            body = base64.b64decode(inside["data"], validate=True)
        except ValueError:
            return
        inside["data"] = base64.b64encode(change(body, rng)).decode()
        if rng.random() < 0.05:
            inside["data"] = rng.choice(("not base64!", "abc", inside["data"] + "=", "é", "\ud800"))
    else:
        body = record["body"].encode("utf-8", "surrogatepass")
        errors = "surrogateescape" if rng.random() < 0.5 else "replace"
        record["body"] = change(body, rng).decode("utf-8", errors)


def _enveloped(event: Any, bend: Bend, rng: random.Random) -> tuple[Any, str]:
    """The event bent where Lambda writes it."""
    records = event.get("Records") if isinstance(event, dict) else None
    if not isinstance(records, list) or not records or bend.kind == 0:
        return rng.choice([*ODD, {"Records": rng.choice(ODD)}]), "replaced"
    match bend.kind:
        case 1:
            records.append(copy.deepcopy(rng.choice(records)))
            what = "record_twice"
        case 2:
            rng.shuffle(records)
            what = "out_of_order"
        case 3:
            records[bend.where % len(records)] = rng.choice(ODD)
            what = "record_replaced"
        case 4:
            records.clear()
            what = "empty"
        case _:
            what = _field_bent(records[bend.where % len(records)], rng)
    return event, what


def _field_bent(at: Any, rng: random.Random) -> str:
    """One field of a record, however deep, lost or something odd."""
    if not isinstance(at, dict) or not at:
        return "record_kept"
    key = rng.choice(sorted(at))
    while isinstance(at[key], dict) and at[key] and rng.random() < 0.8:
        at = at[key]
        key = rng.choice(sorted(at))
    if rng.random() < 0.3:
        del at[key]
        return "field_lost"
    at[key] = copy.deepcopy(rng.choice(ODD))
    return "field_odd"


# The world


class Weather:
    """Whether this call goes well. A lost answer is the worst: the write happened."""

    def __init__(self, seed: int, clock: Clock) -> None:
        self.rng = random.Random(seed)
        self.bad = 0.0 if seed == 0 else self.rng.choice((0.1, 0.3, 0.7, 0.97))
        self.where = self.rng.choice(("s3", "hot", "hot", "hot sqs", "ledger", "s3 hot ledger sqs"))
        self.clock = clock
        self.counts: Counter[str] = Counter()
        self.held: dict[tuple[str, str], bool] = {}

    def strikes(self, *kinds: str) -> str:
        service = kinds[0].partition("_")[0]
        if self.bad and service in self.where and self.rng.random() < self.bad:
            kind = self.rng.choice(kinds)
            self.counts[kind] += 1
            if kind == "slow":
                self.clock.now += self.rng.choice((0.5, 3, 20, 70))
                return ""
            return kind
        return ""

    def holds(self, key: tuple[str, str]) -> bool:
        """Whether this item's partition is too hot, now and until the weather clears up."""
        if self.bad < HEAT_MIN or "hot" not in self.where:
            return False
        if key not in self.held:
            self.held[key] = self.rng.random() < 0.4
            self.counts["hot_held"] += self.held[key]
        return self.held[key]


def injected(error: Exception) -> Exception:
    error.injected = True  # type: ignore[attr-defined]
    return error


def refused(code: str, status: int, operation: str) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        operation,
    )


class MemoryBucket:
    """What is used of an S3 client."""

    def __init__(self, weather: Weather) -> None:
        self.objects: dict[str, bytes] = {}
        self.weather = weather

    def put_object(self, **put: Any) -> dict[str, Any]:
        kind = self.weather.strikes("s3_503", "s3_put_lost", "s3_403", "s3_409", "slow")
        if kind in {"s3_503", "s3_403", "s3_409"}:
            codes = {"s3_503": "SlowDown", "s3_403": "AccessDenied", "s3_409": "Conflict"}
            raise injected(refused(codes[kind], int(kind[3:]), "PutObject"))
        if put.get("IfNoneMatch") and put["Key"] in self.objects:
            raise refused("PreconditionFailed", 412, "PutObject")
        self.objects[put["Key"]] = bytes(put["Body"])
        if kind == "s3_put_lost":
            raise injected(ReadTimeoutError(endpoint_url="s3"))
        return {}

    def get_object(self, **get: Any) -> dict[str, Any]:
        kind = self.weather.strikes("s3_get_503", "s3_get_lost", "slow")
        if kind == "s3_get_503":
            raise injected(refused("InternalError", 503, "GetObject"))
        if kind == "s3_get_lost":
            raise injected(ReadTimeoutError(endpoint_url="s3"))
        if get["Key"] not in self.objects:
            raise refused("NoSuchKey", 404, "GetObject")
        return {"Body": io.BytesIO(self.objects[get["Key"]])}


class MemoryTables:
    """What is used of a DynamoDB client, as strict as DynamoDB where a record could offend it."""

    def __init__(self, weather: Weather) -> None:
        self.items: dict[str, dict[tuple[str, str], Any]] = {}
        self.weather = weather

    def put_item(self, **put: Any) -> dict[str, Any]:
        table, item = self.items.setdefault(put["TableName"], {}), put["Item"]
        key = self._checked(item)
        whose = "hot" if put["TableName"] == TOPOLOGY.hot_table.name else "ledger"
        kind = self.weather.strikes(f"{whose}_throttled", f"{whose}_lost", "slow")
        if kind == f"{whose}_throttled" or (whose == "hot" and self.weather.holds(key)):
            raise injected(refused("ThrottlingException", 400, "PutItem"))
        newer = key in table and not (whose == "hot" and _at(table[key]) <= _at(item))
        if "ConditionExpression" in put and newer:
            raise refused("ConditionalCheckFailedException", 400, "PutItem")
        table[key] = item
        if kind == f"{whose}_lost":
            raise injected(ReadTimeoutError(endpoint_url="dynamodb"))
        return {}

    def batch_write_item(self, *, RequestItems: dict[str, Any]) -> dict[str, Any]:  # noqa: N803
        ((name, puts),) = RequestItems.items()
        pairs = [(self._checked(put["PutRequest"]["Item"]), put) for put in puts]
        if not 0 < len(pairs) <= BATCH_ITEMS_MAX or len({key for key, _ in pairs}) < len(pairs):
            raise refused("ValidationException", 400, "BatchWriteItem")
        kind = self.weather.strikes("hot_throttled", "hot_unprocessed", "hot_lost", "slow")
        if kind == "hot_throttled":
            raise injected(refused("ThrottlingException", 400, "BatchWriteItem"))
        left = [
            pair
            for pair in pairs
            if (kind == "hot_unprocessed" and self.weather.rng.random() < 0.5)
            or self.weather.holds(pair[0])
        ]
        taken = [pair for pair in pairs if pair not in left]
        self.items.setdefault(name, {}).update(
            (key, put["PutRequest"]["Item"]) for key, put in taken
        )
        if kind == "hot_lost":
            raise injected(ReadTimeoutError(endpoint_url="dynamodb"))
        return {"UnprocessedItems": {name: [put for _, put in left]} if left else {}}

    @staticmethod
    def _checked(item: dict[str, Any]) -> tuple[str, str]:
        pk, sk = item["pk"]["S"], item["sk"]["S"]
        size = sum(len(name) + len(str(*value.values()).encode()) for name, value in item.items())
        if (
            not 0 < len(pk.encode()) <= KEY_BYTES_MAX
            or not 0 < len(sk.encode()) <= SORT_KEY_BYTES_MAX
            or size > ITEM_BYTES_MAX
            or any(not _is_number(value["N"]) for value in item.values() if "N" in value)
        ):
            raise refused("ValidationException", 400, "PutItem")
        return pk, sk


class MemoryQueues:
    """What is used of an SQS client. `sent` are bodies of messages that are durable."""

    def __init__(self, weather: Weather) -> None:
        self.weather = weather
        self.sent: list[str] = []

    def get_queue_attributes(self, **_: Any) -> dict[str, Any]:
        if self.weather.strikes("sqs_count_lost"):
            raise injected(ReadTimeoutError(endpoint_url="sqs"))
        return {"Attributes": {"ApproximateNumberOfMessages": str(len(self.sent))}}

    def send_message_batch(self, **send: Any) -> dict[str, Any]:
        entries = send["Entries"]
        if not 0 < len(entries) <= BATCH_ENTRIES_MAX:
            raise refused("BatchRequestTooLong", 400, "SendMessageBatch")
        kind = self.weather.strikes("sqs_partial", "sqs_send_lost", "slow")
        taken = entries[: len(entries) // 2] if kind == "sqs_partial" else entries
        self.sent += [entry["MessageBody"] for entry in taken]
        if kind == "sqs_send_lost":
            raise injected(ReadTimeoutError(endpoint_url="sqs"))
        return {"Successful": [{"Id": entry["Id"]} for entry in taken]}

    def get_queue_url(self, *, QueueName: str) -> dict[str, Any]:  # noqa: N803
        return {"QueueUrl": f"https://sqs/{QueueName}"}

    def change_message_visibility_batch(self, **change: Any) -> dict[str, Any]:
        entries = change["Entries"]
        if not 0 < len(entries) <= BATCH_ENTRIES_MAX:
            raise refused("BatchRequestTooLong", 400, "ChangeMessageVisibilityBatch")
        if len({entry["Id"] for entry in entries}) < len(entries):
            raise refused("BatchEntryIdsNotDistinct", 400, "ChangeMessageVisibilityBatch")
        if any(not 0 <= entry["VisibilityTimeout"] <= VISIBILITY_MAX for entry in entries):
            raise refused("InvalidParameterValue", 400, "ChangeMessageVisibilityBatch")
        if self.weather.strikes("sqs_lost", "slow"):
            raise injected(ReadTimeoutError(endpoint_url="sqs"))
        return {"Successful": [{"Id": entry["Id"]} for entry in entries]}


def _at(item: dict[str, Any]) -> str:
    """The place in time by which an item of layout `latest` is newer."""
    return str(item[NEWEST_BY]["S"])


def _is_number(text: str) -> bool:
    number = abs(float(text))
    return number == 0 or 1e-130 <= number <= 9.9999999999999999e125


class Machine(InProcessWorkflow):
    """The state machine; a run is not begun when there is no time for it, as by `Workflow`."""

    def run(self, state: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
        if timeout_seconds < 1:
            raise DeadlinePassed("no time to run")
        return super().run(state, timeout_seconds)


@dataclass
class World:
    """A pipeline's wiring onto memory."""

    wiring: settings.Wiring
    bucket: MemoryBucket
    tables: MemoryTables
    queues: MemoryQueues
    machine: Machine
    clock: Clock = field(default_factory=Clock)

    @classmethod
    def of(cls, plan: Plan) -> World:
        clock = Clock()
        weather = Weather(plan.weather, clock)
        bucket, tables = MemoryBucket(weather), MemoryTables(weather)
        wiring = settings.wiring()
        wiring.clock = clock
        wiring.waiting = clock.waiting()
        wiring.bucket = Bucket(bucket, TOPOLOGY.bucket)  # type: ignore[arg-type]
        wiring.hot_table = Table(tables, TOPOLOGY.hot_table.name, threads=1)  # type: ignore[arg-type]
        wiring.parallel = lambda work, parts: [work(part) for part in parts]
        queues = MemoryQueues(weather)
        wiring.sqs = queues  # type: ignore[assignment]
        wiring.repair_queue = Queue(queues, TOPOLOGY.repair_queue.name)  # type: ignore[arg-type]
        limits = Limits(share_max=1.0) if plan.weather % 2 else Limits()
        wiring.settings = replace(wiring.settings, repair=limits)
        wiring.contracts = Contracts()
        stages_of = {
            TOPOLOGY.transform.name: transform_handler.handler,
            TOPOLOGY.hot.name: hot_handler.handler,
        }
        machine = Machine(TOPOLOGY, stages_of, tables, Context(plan.stage_ms))
        wiring.workflow = machine  # type: ignore[assignment]
        return cls(wiring, bucket, tables, queues, machine, clock)

    def look_at_stages(self) -> None:
        """What a stage raises is a defect, though ingest takes it for a killer or for weather."""
        for raised in self.machine.raised:
            if not getattr(raised, "injected", False):
                raise Violation(f"a stage raised {raised!r}") from raised

    def clear_up(self) -> None:
        """From now on the weather is fair, and there is time."""
        self.bucket.weather.bad = 0.0
        self.machine.context = Context(60_000)


# The oracle


class Violation(AssertionError):
    """What must never be, was."""


HANDLERS = {"kinesis": kinesis_handler.handler, "sqs": sqs_handler.handler}
READERS = {"kinesis": kinesis.read, "sqs": sqs.read}


def check(plan: Plan, tally: Counter[str] | None = None) -> None:
    """Bring the plan's event in, twice if need be, and raise `Violation` where a promise broke."""
    tally = Counter() if tally is None else tally
    event, bent = made(plan)
    source = plan.golden.partition("_")[0]
    world = World.of(plan)
    tally["events"] += 1
    tally.update(dict.fromkeys(bent, 1))
    tally[f"from_{plan.golden}"] += 1
    answer = invoked(world, source, event, plan.remaining_ms, valid=not plan.envelope)
    if answer is None:
        tally["event_error"] += 1
        return
    handed_back = judged(world, source, event, answer, tally)
    if handed_back:
        tally["invoked_again"] += 1
        world.clear_up()
        answer = invoked(world, source, event, ENOUGH_MS, valid=not plan.envelope)
        if answer is None or judged(world, source, event, answer, tally):
            raise Violation(f"in fair weather it is still handed back: {answer}")
    tally.update(world.bucket.weather.counts)
    tally["debts"] += len(world.queues.sent)


def invoked(world: World, source: str, event: Any, left_ms: int, *, valid: bool) -> Any:
    """The handler's answer; None for an `EventError`, which only a bent envelope may end in."""
    world.machine.raised.clear()
    try:
        answer = HANDLERS[source](event, Context(left_ms))
    except EventError as error:
        if valid:
            raise Violation(f"an event as Lambda sends it was refused: {error}") from error
        if world.bucket.objects:
            raise Violation("an event was refused after work was done") from error
        return None
    except Exception as error:
        world.look_at_stages()
        raise Violation(f"the handler raised {error!r}") from error
    world.look_at_stages()
    return answer


def judged(
    world: World, source: str, event: Any, answer: dict[str, Any], tally: Counter[str]
) -> bool:
    """Whether something was handed back. Raises `Violation` for what was wrongly acknowledged."""
    records = event["Records"]
    if not records:
        if answer != {"batchItemFailures": []}:
            raise Violation(f"nothing was answered with {answer}")
        return False
    names = [
        record["kinesis"]["sequenceNumber"] if source == "kinesis" else record["messageId"]
        for record in records
    ]
    payload = json.dumps(answer).encode()
    told = meaning(Result("answered", payload), names, source)  # type: ignore[arg-type]
    acknowledged = _acknowledged(told, names, source, answer)
    fates = _fates(world, source, event)
    for index in sorted(acknowledged):
        rows = fates.get(index)
        if rows is None:
            raise Violation(f"record {index} was acknowledged and is nowhere")
        _one_fate(rows, index)
    _hot_follows(world, acknowledged)
    _ledger_agrees(world, fates, len(records), some=bool(acknowledged))
    tally["acknowledged"] += len(acknowledged)
    tally["handed_back"] += len(records) - len(acknowledged)
    for index in acknowledged:
        reasons = [row["_reason"] for row in fates[index] if row["_reason"]]
        rules_ = [row["_rule"] for row in fates[index] if row["_rule"]]
        tally[f"fate_{[*reasons, *rules_, 'delivered'][0]}"] += 1
    return len(acknowledged) < len(records)


def _acknowledged(told: Any, names: list[str], source: str, answer: Any) -> set[int]:
    """By index, the records that are gone from the source after this answer."""
    if told.kind == "success":
        if answer != {"batchItemFailures": []}:
            raise Violation(f"an answer that only happens to mean success: {answer}")
        return set(range(len(names)))
    if told.kind != "partial":
        raise Violation(f"the mapping cannot use the answer: {told.reason}")
    if source == "kinesis":
        if len(told.failed) != 1:
            raise Violation(f"Kinesis is answered with {len(told.failed)} sequence numbers")
        lowest = int(told.failed[0])
        return {index for index, name in enumerate(names) if int(name) < lowest}
    return {index for index, name in enumerate(names) if name not in told.failed}


def _fates(world: World, source: str, event: Any) -> dict[int, list[dict[str, Any]]]:
    """Every row and mark by the event's record, found through the raw objects."""
    objects = world.bucket.objects
    delivery = READERS[source](event)
    raws = {key for key in objects if key.startswith("raw/") and _holds(objects[key], delivery)}
    fates: dict[int, list[dict[str, Any]]] = {}
    seen = set()
    for key in objects:
        kind = key.partition("/")[0]
        if kind not in COLUMNS:
            continue
        for row in _rows(objects[key], kind):
            index = row["_index"]
            element = (kind, row["_raw"], index, row["_sub"], row["_child"])
            if row["_raw"] not in raws or element in seen:
                continue
            seen.add(element)
            if row["_sequence"] != delivery.sequences[index]:
                raise Violation(f"a row of record {index} has another position")
            if (kind == "dropped") != markers.is_marker(delivery.bodies[index]):
                raise Violation(f"record {index} is in {kind}: {delivery.bodies[index]!r}")
            if "_body" in row and row["_body"] != _element(delivery, row):
                raise Violation(f"record {index} was set aside with other bytes")
            fates.setdefault(index, []).append(row)
    return fates


def _element(delivery: Delivery, row: dict[str, Any]) -> bytes:
    """The bytes that are at the row's place in its source record."""
    index, place = row["_index"], (row["_sub"], row["_child"])
    body, attributes = delivery.bodies[index], delivery.attributes[index]
    if row["_reason"] == "killer":
        return body
    found = open_record(body, None, attributes, delivery.source, JSON, 1)
    elements = dict(zip(zip(found.subs, found.children, strict=True), found.bodies, strict=True))
    elements |= {(reject.sub, reject.child): reject.body for reject in found.rejects}
    return elements[place]


def _holds(data: bytes, delivery: Delivery) -> bool:
    """Whether a raw object is of this Delivery."""
    table = parquet.decode(data, ["_sequence", "_arrival", "_body"])
    return (
        table.column("_sequence").to_pylist() == delivery.sequences
        and table.column("_arrival").cast("int64").to_pylist() == delivery.arrivals
        and table.column("_body").to_pylist() == delivery.bodies
    )


def _rows(data: bytes, kind: str) -> list[dict[str, Any]]:
    columns = ["_raw", "_index", "_sub", "_child", "_elements", "_sequence", *COLUMNS[kind]]
    rows = parquet.decode(data, columns).to_pylist()
    return [{"_reason": None, "_rule": None, **row} for row in rows]


def _one_fate(rows: list[dict[str, Any]], index: int) -> None:
    """All elements of the record are there, each in one place."""
    elements = Counter((row["_sub"], row["_child"]) for row in rows)
    if max(elements.values()) > 1:
        raise Violation(f"an element of record {index} has two fates: {elements}")
    if {row["_elements"] for row in rows} != {len(elements)}:
        raise Violation(f"record {index} has {len(elements)} of {rows[0]['_elements']} elements")


def _hot_follows(world: World, acknowledged: set[int]) -> None:
    """Every hot row of an acknowledged record is in the hot table, or owed to it."""
    contract = world.wiring.contract
    items = world.tables.items.get(TOPOLOGY.hot_table.name, {})
    debts = [debt_of(body) for body in world.queues.sent]
    owed = {(debt.landing_key, place) for debt in debts for place in debt.places}
    for key, data in world.bucket.objects.items():
        if not key.startswith("landing/"):
            continue
        file = parquet.File(data)
        rows = file.read([*hot.columns_of(contract, file.names), "_index"])
        there = zip(
            rows.column("_index").to_pylist(),
            hot.keys_of(rows, contract),
            hot_mask(rows, contract).to_pylist(),
            strict=True,
        )
        for place, (index, item, is_hot) in enumerate(there):
            missing = is_hot and not _stands(items, item, contract) and (key, place) not in owed
            if missing and index in acknowledged:
                raise Violation(f"record {index} is acknowledged, its item neither hot nor owed")


def _stands(items: dict[Key, Any], wanted: Key, contract: Contract) -> bool:
    """Whether a reading's item is there, or in its device's place a newer one."""
    if not contract.latest:
        return wanted in items
    device, place = wanted
    return (device, hot.LATEST) in items and _at(items[device, hot.LATEST]) >= place


def _ledger_agrees(
    world: World, fates: dict[int, list[dict[str, Any]]], received: int, *, some: bool
) -> None:
    """The last attempt's counts, against the rows."""
    items = list(world.tables.items.get(TOPOLOGY.ledger_table.name, {}).values())
    if not items:
        if some:
            raise Violation("records were acknowledged and the ledger knows of no attempt")
        return
    last = ledger.attempt(items[-1])
    retried = len(last.handed_back)
    if last.delivered + last.dropped + last.quarantined + retried != received:
        raise Violation(f"the ledger does not add up: {last}")
    done = set(range(received)) - last.handed_back
    set_aside = {i for i in done if any(row["_reason"] for row in fates.get(i, []))}
    dropped = {i for i in done if any(row["_rule"] for row in fates.get(i, []))}
    delivered = len(done) - len(set_aside) - len(dropped)
    if (last.quarantined, last.dropped, last.delivered) != (
        len(set_aside),
        len(dropped),
        delivered,
    ):
        raise Violation(f"the ledger counts otherwise than its objects: {last}")


# Running it


@contextmanager
def deployed(layout: str) -> Iterator[None]:
    """The functions' environment, their logs and metrics written and thrown away."""
    before = dict(os.environ)
    os.environ.update(TOPOLOGY.ingest_stream.environment)
    settings.wiring.cache_clear()
    namespace = telemetry.metrics.provider.namespace
    telemetry.metrics.provider.namespace = "Millrace"
    try:
        with redirect_stdout(Emptied()), tempfile.TemporaryDirectory() as folder:
            os.environ["MILLRACE_CONTRACT"] = rules(Path(folder), *LAYOUTS[layout])
            yield
    finally:
        telemetry.metrics.provider.namespace = namespace
        os.environ.clear()
        os.environ.update(before)
        settings.wiring.cache_clear()


class Emptied(io.TextIOBase):
    """Takes text as a log would, which is as UTF-8."""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        text.encode()
        return len(text)


def layout_of(seed: int) -> str:
    """The hot layout of a seed's events."""
    return list(LAYOUTS)[seed % len(LAYOUTS)]


@contextmanager
def objects_as(seed: int) -> Iterator[None]:
    """How objects are written: as Parquet, or as Arrow IPC, which keeps the same tables."""
    quick = {
        "write": lambda table: parquet.Written(_ipc(table), table.num_rows),
        "File": _Ipc,
    }
    kept = {name: getattr(parquet, name) for name in quick}
    vars(parquet).update(quick if seed % PARQUET_EVERY else {})
    try:
        yield
    finally:
        vars(parquet).update(kept)


def _ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


class _Ipc:
    """`parquet.File` of Arrow IPC."""

    def __init__(self, data: bytes) -> None:
        self._table = pa.ipc.open_stream(data).read_all()
        self.rows, self.names = self._table.num_rows, self._table.column_names
        self.metadata = self._table.schema.metadata or {}

    def read(self, columns: list[str] | None = None) -> pa.Table:
        return self._table if columns is None else self._table.select(columns)


def fuzz(seed: int, events: int, tally: Counter[str]) -> None:
    """One seed's events. Raises `Violation` with the smallest plan that hypothesis found."""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=events,
        database=None,
        deadline=None,
        derandomize=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )
    @given(PLANS)
    def one(plan: Plan) -> None:
        try:
            check(plan, tally)
        except Violation as violation:
            event, bent = made(plan)
            violation.plan, violation.event, violation.bent = plan, event, bent  # type: ignore[attr-defined]
            raise

    one()


def rounds(asked: tuple[int, int]) -> tuple[Counter[str], list[str]]:
    """One seed's events in a process of a pool: its counts, and what to say of a violation."""
    seed, events = asked
    tally: Counter[str] = Counter()
    with deployed(layout_of(seed)), objects_as(seed):
        try:
            fuzz(seed, events, tally)
        except Violation as violation:
            return tally, [
                f"violation, seed {seed}: {violation}",
                f"plan: {getattr(violation, 'plan', None)}",
                f"bent: {getattr(violation, 'bent', None)}",
                f"event: {json.dumps(getattr(violation, 'event', None))}",
            ]
    return tally, []


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args(arguments)
    started = time.monotonic()
    spans = [
        (asked.first_seed + number, min(ROUND, asked.events - number * ROUND))
        for number in range(-(-asked.events // ROUND))
    ]
    tally: Counter[str] = Counter()
    complaints: list[str] = []
    with multiprocessing.get_context("spawn").Pool(asked.processes) as pool:
        for done, (counts, complaint) in enumerate(pool.imap_unordered(rounds, spans), 1):
            tally += counts
            complaints += complaint
            if complaint:
                break
            if done % 10 == 0:
                rate = tally["events"] / (time.monotonic() - started)
                print(f"{tally['events']} events, {rate:.0f} a second", flush=True)
    for name, count in sorted(tally.items()):
        print(f"  {name:32} {count:9}")
    print(*complaints, sep="\n", end="\n" if complaints else "")
    seconds = time.monotonic() - started
    print(
        f"{tally['events']} events, {tally['acknowledged']} records acknowledged, "
        f"{tally['handed_back']} handed back, {tally['event_error']} events refused; "
        f"seeds {spans[0][0]} to {spans[-1][0]}, {1 if complaints else 0} violations, "
        f"{seconds:.0f} s",
        flush=True,
    )
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
