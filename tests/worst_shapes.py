"""Events of 6 MB of the worst shapes, and a command that takes one in and says what it cost.

    python -m tests.worst_shapes [--limit-mb N] [--wide | --verbs] [--write DIR] [SHAPE ...]

With `--write` the events are only written there, by number, beside the contract. Otherwise it
prints a line of JSON for each. Each stage is measured in a process of its own, because a peak is
a process's: forked, so that the imports are in it and are paid for once. The base64 in a Kinesis
event leaves a producer 4.4 MB of it. Every shape comes between two good records.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import io
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from botocore.exceptions import ClientError

from ingest import kinesis, stages
from ingest.settings import Settings, Wiring
from sinks import landing, raw
from sinks.bucket import Bucket
from sinks.deadline import Deadline
from sinks.table import Table
from tests.support import NOON, SETTINGS, Clock, Context
from transform.envelope import COMPRESSED_ELEMENT_BYTES_MIN, OPENED_BYTES_MAX, READING_BYTES_MIN
from transform.kpl import KPL_MAGIC, aggregate

PAYLOAD_MAX_BYTES = 6_291_556  # Lambda: a synchronous invocation's event
RECORD_MAX_BYTES = 4_400_000  # of a Kinesis record that fits one: Kinesis takes up to 10 MiB
BODY_MAX_BYTES = 262_144  # the largest that a contract may allow
BODIES = 16  # of that size in an event
MB = 1_048_576
ROOMY = """
name = "roomy"
version = 1
description = "As much as a contract may take"
[identity]
device = "d"
event_time = "t"
[limits]
max_body_bytes = 262144
[[field]]
name = "d"
type = "string"
[[field]]
name = "t"
type = "timestamp"
format = "epoch_millis"
[[field]]
name = "x"
type = "float64"
[[field]]
name = "n"
type = "int64"
[[field]]
name = "deep"
path = "a.b.c"
type = "string"
"""

FIELDS_MAX = 500  # of a contract
WIDE = ROOMY.partition('[[field]]\nname = "x"')[0] + "".join(
    f'[[field]]\nname = "f{number}"\ntype = "float64"\n' for number in range(FIELDS_MAX - 2)
)
NEITHER = ROOMY.partition('[[field]]\nname = "x"')[0]
OLD_NAMES = [f"x{number}" for number in range(16)]
VERBS = "".join(
    [
        NEITHER,
        '[explode]\npath = "r"\n',
        '[[field]]\nname = "v"\ntype = "float64"\npath = "value"\nof = "reading"\n',
        *(
            f'[[field]]\nname = "f{n}"\ntype = "float64"\n'
            f"aliases = {[f'{old}.f{n}' for old in OLD_NAMES]}\n"
            f'[[field]]\nname = "e{n}"\ntype = "float64"\nexpr = "v * 1.8 + {n}"\n'
            for n in range(10)
        ),
    ]
)
"""Lists of readings, fields of many names, and fields that are made."""


def varint(number: int) -> bytes:
    low = []
    while number > 0x7F:
        low.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*low, number])


def chunk(tag: int, value: bytes) -> bytes:
    return varint(tag << 3 | 2) + varint(len(value)) + value


def wrapped(packed: bytes) -> bytes:
    return KPL_MAGIC + packed + hashlib.md5(packed, usedforsecurity=False).digest()


def entry(data: bytes) -> bytes:
    return chunk(3, b"\x08\x00" + chunk(3, data))


def filled(key: bytes, data: bytes, size: int = RECORD_MAX_BYTES) -> bytes:
    """An aggregate of `size` bytes, all its user records the same."""
    head, one = chunk(1, key), entry(data)
    return wrapped(head + one * ((size - len(head) - 20) // len(one)))


def different(size: int = RECORD_MAX_BYTES) -> bytes:
    """An aggregate of the smallest good messages, no two the same."""
    parts, left, number = [chunk(1, b"k")], size - 23, 0
    while left > 0:
        parts.append(entry(b'{"d":"a","t":%d}' % number))
        left -= len(parts[-1])
        number += 1
    return wrapped(b"".join(parts[:-1]))


def matryoshka() -> bytes:
    """Aggregates in an aggregate: only the outermost is opened, what is in it is data."""
    body = filled(b"k", b"", RECORD_MAX_BYTES - 1_000)
    for _ in range(20):
        body = aggregate([("k", body)])
    return body


def message(rest: bytes, size: int = BODY_MAX_BYTES, tail: bytes = b"}") -> bytes:
    """A good message of the roomy contract with `rest` after its fields."""
    head = b'{"d":"a","t":%d,' % (NOON // 1_000)
    assert len(head) + len(rest) + len(tail) <= size
    return head + rest + tail


def many(make: Callable[[int], bytes], tail: bytes = b"}", size: int = BODY_MAX_BYTES) -> bytes:
    """A message full of what `make` gives for 0, 1, 2, ..."""
    parts: list[bytes] = []
    left, number = size - 100, 0
    while left > 0:
        parts.append(make(number))
        left -= len(parts[-1]) + 1
        number += 1
    return message(b",".join(parts), size + 100, tail)


def many_readings(number: int) -> bytes:
    """As many readings as are read of a message, no two the same."""
    count = (BODY_MAX_BYTES - 100) // READING_BYTES_MIN
    first = 1_000_000 + number * count
    return message(b'"r":[' + b",".join(b"%d" % (first + n) for n in range(count)) + b"]")


def dense(line: bytes, size: int = RECORD_MAX_BYTES) -> bytes:
    """Gzip of `size` bytes that holds as many lines as are opened, padded by its own header."""
    lines = (line + b"\n") * (size // COMPRESSED_ELEMENT_BYTES_MIN)
    packed = gzip.compress(lines, mtime=0)
    comment = b"z" * (size - len(packed) - 1) + b"\0"
    return packed[:3] + b"\x10" + packed[4:10] + comment + packed[10:]


def bomb(content: bytes, size: int = 0) -> bytes:
    """zstd, with a frame that is skipped behind it so that `size` bytes of it come."""
    packed: bytes = pa.compress(content, codec="zstd", asbytes=True)
    left = max(0, size - len(packed) - 8)
    return packed + b"\x50\x2a\x4d\x18" + left.to_bytes(4, "little") + bytes(left)


def nested_bomb() -> bytes:
    body = b" " * 1_000_000_000
    for _ in range(3):
        body = gzip.compress(body, mtime=0)
    return body


GOOD = b'{"d":"a","t":0}'
NAN = b'{"d":"a","t":NaN}'

SHAPES: dict[str, Callable[[], list[bytes]]] = {
    # one body as large as an event: over what any contract takes
    "nested arrays": lambda: [b"[" * RECORD_MAX_BYTES],
    "nested objects": lambda: [b'{"a":' * (RECORD_MAX_BYTES // 5)],
    "a number of millions of digits": lambda: [b"9" * RECORD_MAX_BYTES],
    "a million keys": lambda: [
        b"{" + b",".join(b'"%d":1' % n for n in range(400_000)) + b"}",
    ],
    "gzip": lambda: [gzip.compress(b"0" * 50_000_000)[: BODY_MAX_BYTES - 1]],
    "zstd": lambda: [pa.compress(b"0" * 50_000_000, codec="zstd", asbytes=True)],
    "gzip in gzip in gzip": lambda: [nested_bomb()],
    "a million gzip members": lambda: [gzip.compress(b"", mtime=0) * (RECORD_MAX_BYTES // 20)],
    "zstd as large as is opened": lambda: [bomb(b" " * OPENED_BYTES_MAX, 839_000)] * 5,
    "small zstd as large as is opened": lambda: [bomb(b" " * 24_000, 200)] * 9_990,
    "zstd in an aggregate": lambda: [filled(b"k", bomb(b" " * 16_000))],
    # sequences
    "an array of empty objects": lambda: [b"[" + b"{}," * (RECORD_MAX_BYTES // 3 - 1) + b"{}]"],
    "an array of digits": lambda: [b"[" + b"1," * (RECORD_MAX_BYTES // 2 - 1) + b"1]"],
    "an array of empty objects, zstd": lambda: [bomb(b"[" + b"{}," * 2_790_000 + b"{}]", 264_000)],
    "lines of empty objects": lambda: [b"{}\n" * (RECORD_MAX_BYTES // 3)],
    "blank lines": lambda: [b"{}" + b"\n" * (RECORD_MAX_BYTES - 4) + b"{}"],
    "an array of the smallest messages": lambda: [
        b"[" + (GOOD + b",") * (RECORD_MAX_BYTES // 16 - 1) + GOOD + b"]"
    ],
    "small arrays of digits": lambda: [b"[" + b"1," * 31 + b"1]"] * 9_990,
    "gzip of as many lines as are opened": lambda: [dense(GOOD)],
    "gzip of as many bad lines as are opened": lambda: [dense(NAN)],
    "small gzips of as many lines as are opened": lambda: [dense(GOOD, 256)] * 9_400,
    "gzips of as many lines as are opened": lambda: [dense(GOOD, 42_000)] * 100,
    # aggregates
    "empty members": lambda: [filled(b"k", b"")],
    "empty members in many aggregates": lambda: [filled(b"k", b"", 620)] * 4_500,
    "empty members, long key": lambda: [filled(b"k" * 256, b"")],
    "empty members, huge key": lambda: [filled(b"k" * 2_000_000, b"")],
    "wide empty members": lambda: [filled("😀".encode() * 256, b"")],
    "tiny good members": lambda: [filled(b"k", GOOD)],
    "tiny good members, all different": lambda: [different()],
    "tiny good members of a wide key": lambda: [filled("😀".encode() * 256, GOOD)],
    "tiny good members in many aggregates": lambda: [filled(b"k", GOOD, 620)] * 4_500,
    "tiny bad members": lambda: [filled(b"k", b'{"d":NaN}')],
    "not JSON members": lambda: [filled(b"k", b"{")],
    "one byte members, not UTF-8": lambda: [filled(b"k", b"\xff")],
    "dense bad members, wide key": lambda: [
        filled("\U0001f600".encode() * 256, b'{"d":"a","t":NaN}')
    ],
    "dense members, each its own slow way": lambda: [filled(b"k", b'{"d":"a","t":0,"":0}')],
    "dense members that are not UTF-8, wide key": lambda: [
        filled("\U0001f600".encode() * 256, b"\xff" * 15)
    ],
    "a table of keys": lambda: [wrapped(chunk(1, b"") * (RECORD_MAX_BYTES // 2) + entry(GOOD))],
    "aggregates in aggregates": lambda: [matryoshka()],
    "groups in groups": lambda: [wrapped(b"\x7b" * 4_000_000 + b"\x7c" * 100)],
    "tags": lambda: [
        wrapped(chunk(1, b"k") + chunk(3, b"\x08\x00\x1a\x00" + b"\x22\x02\x0a\x00" * 1_000_000))
    ],
    "unknown fields": lambda: [wrapped(chunk(1, b"k") + b"\x78\x00" * 2_000_000 + entry(GOOD))],
    # messages as large as a contract may allow
    "escapes in a string": lambda: [message(b'"z":"' + b"\\u0001" * 43_000 + b'"')] * BODIES,
    "backslashes": lambda: [message(b'"z":"' + b"\\\\" * 130_000 + b'"')] * BODIES,
    "half an escaped string": lambda: (
        [message(b"[" * 99 + b'"' + b"\\\\" * 130_000, tail=b"\\")] * BODIES
    ),
    "brackets": lambda: [message(b'"z":[' + b"[]," * 87_000 + b"[]]")] * BODIES,
    "nested as deep as allowed": lambda: (
        [message(b'"z":[' + b",".join([b"[" * 98 + b"]" * 98] * 1_300) + b"]")] * BODIES
    ),
    "digits": lambda: [message(b'"z":' + b"9" * 262_000)] * BODIES,
    "digits in a field": lambda: [message(b'"n":' + b"9" * 262_000)] * BODIES,
    "digits in a double": lambda: [message(b'"x":0.' + b"9" * 262_000)] * BODIES,
    "digits in a time": lambda: [message(b'"x":1,"t":' + b"9" * 262_000)] * BODIES,
    "a great exponent": lambda: [message(b'"x":1e' + b"9" * 262_000)] * BODIES,
    "one key again and again": lambda: [many(lambda _: b'"x":1')] * BODIES,
    "keys": lambda: [many(lambda n: b'"%d":1' % n)] * BODIES,
    "empty objects": lambda: [message(b'"z":[' + b"{}," * 87_000 + b"{}]")] * BODIES,
    "keys and NaN": lambda: [many(lambda n: b'"%d":NaN' % n)] * BODIES,
    "half surrogates": lambda: [message(b'"z":"' + b"\\ud800" * 43_000 + b'"')] * BODIES,
    "rescued controls in keys": lambda: (
        [many(lambda n: b'"' + b"\\u0001" * 20 + b'%d":1' % n)] * BODIES
    ),
    "a long device": lambda: [message(b'"d":"' + b"z" * 262_000 + b'"')] * BODIES,
    "a wrong type as long as may be": lambda: [message(b'"x":"' + b"z" * 262_000 + b'"')] * BODIES,
    "nothing but records": lambda: [b""] * 9_990,
    # lists of readings
    "readings, all different": lambda: [many_readings(n) for n in range(BODIES)],
    "more readings than are read": lambda: [message(b'"r":[' + b"1," * 120_000 + b"1]")] * BODIES,
    "small lists of readings": lambda: [message(b'"r":[' + b"1," * 31 + b"1]")] * 9_990,
}


class MemoryS3:
    """The two calls that a stage makes of a bucket."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, IfNoneMatch: str = "") -> None:  # noqa: N803
        del Bucket
        if IfNoneMatch and Key in self.objects:
            metadata = {"HTTPStatusCode": 412}
            raise ClientError(
                {"Error": {"Code": "PreconditionFailed"}, "ResponseMetadata": metadata},  # type: ignore[typeddict-item]
                "PutObject",
            )
        self.objects[Key] = Body

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        del Bucket
        if Key not in self.objects:
            raise ClientError(
                {
                    "Error": {"Code": "NoSuchKey"},
                    "ResponseMetadata": {"HTTPStatusCode": 404},  # type: ignore[typeddict-item]
                },
                "GetObject",
            )
        return {"Body": io.BytesIO(self.objects[Key])}


class Taking:
    """A hot table that takes everything."""

    def batch_write_item(self, **_: Any) -> dict[str, Any]:
        return {"UnprocessedItems": {}}


def wiring(contract: str) -> Wiring:
    clock = Clock()
    made = Wiring(Settings(**{**vars(SETTINGS), "contract": contract}), clock)
    made.waiting = clock.waiting()
    made.bucket = Bucket(MemoryS3(), SETTINGS.bucket)  # type: ignore[arg-type]
    made.hot_table = Table(Taking(), SETTINGS.hot_table)  # type: ignore[arg-type]
    return made


def event(shape: str) -> bytes:
    good = b'{"d":"good","t":%d}' % (NOON // 1_000)
    bodies = [good, *SHAPES[shape](), good]
    records = [
        {
            "kinesis": {
                "partitionKey": "k",
                "sequenceNumber": f"4959033827149025660855969253836157109592157598913{n:07}",
                "data": base64.b64encode(body).decode(),
                "approximateArrivalTimestamp": NOON / 1_000_000,
            },
            "eventSource": "aws:kinesis",
            "eventID": f"shardId-000000000006:{n}",
            "eventSourceARN": "arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream",
        }
        for n, body in enumerate(bodies)
    ]
    return json.dumps({"Records": records}, separators=(",", ":")).encode()


def measured(stage: Callable[[], dict[str, Any]], limit_mb: int) -> dict[str, Any]:
    """What `stage` says, with its peak and its time, from a fork of this process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        told: dict[str, Any] = {}
        try:
            os.close(reader)
            resource.setrlimit(resource.RLIMIT_AS, (limit_mb * MB, limit_mb * MB))
            started = time.process_time()
            told = stage()
            told["cpu_seconds"] = round(time.process_time() - started, 2)
        except BaseException as error:  # noqa: BLE001  told to the parent
            told = {"died": repr(error)[:300]}
        told["peak_mb"] = _peak_mb()
        os.write(writer, json.dumps(told).encode())
        os._exit(0)  # no clean-up of what is the parent's
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if text else {"died": f"status {status}"}


def _peak_mb() -> int:
    """VmHWM: unlike `ru_maxrss` it does not begin with the peak of whoever started the process."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024


class Measure:
    """One shape through ingest, Transform and Hot, by way of files."""

    def __init__(self, shape: str, contract: Path) -> None:
        self.shape = shape
        self.folder = contract.parent
        self.wiring = wiring(str(contract))
        self.wiring.transform(0).plans.only.message.decode(
            GOOD
        )  # made once per process, before any event

    def ingest(self) -> dict[str, Any]:
        made = self.wiring
        delivery = kinesis.read(json.loads((self.folder / "event").read_bytes()))
        key = raw.archive(made.bucket, delivery, Deadline(made.clock() + 100, made.clock))
        self._keep(key)
        return {"key": key, "records": len(delivery)}

    def transform(self, archived: dict[str, Any]) -> dict[str, Any]:
        self._load(archived["key"])
        done = stages.transform(self._state(archived), self.wiring, Context(60_000))
        told = {name: done[name] for name in ("landing_key", "landing_rows", "hot_rows")}
        told |= {"quarantine_rows": done["quarantine_rows"], "account": done["account"]}
        if done["landing_key"]:
            self._keep(done["landing_key"])
        if key := done["quarantine_key"]:
            rows = landing.read(self.wiring.bucket, key, ["_reason", "_detail"])
            reasons = pc.value_counts(rows.column("_reason")).to_pylist()
            told["reasons"] = {one["values"]: one["counts"] for one in reasons}
            told["detail"] = max(pc.unique(rows.column("_detail")).to_pylist(), key=len)
        return told

    def hot(self, archived: dict[str, Any], done: dict[str, Any]) -> dict[str, Any]:
        self._load(done["landing_key"])
        state = self._state(archived) | {"account": done["account"], "transform": done}
        return {"written": stages.write_hot(state, self.wiring, Context(60_000))["written"]}

    def _state(self, archived: dict[str, Any]) -> dict[str, Any]:
        count = archived["records"]
        return {
            "pipeline": "roomy",
            "stream": "s",
            "raw_key": archived["key"],
            "epoch": 0,
            "archived": count,
            "first": 0,
            "received": count,
            "ledger_bucket": 0,
            "deadline_ms": int(self.wiring.clock() * 1_000) + 100_000,
        }

    def _keep(self, key: str) -> None:
        (self.folder / key.rpartition("/")[2]).write_bytes(self.wiring.bucket.client.objects[key])  # type: ignore[attr-defined]

    def _load(self, key: str) -> None:
        data = (self.folder / key.rpartition("/")[2]).read_bytes()
        self.wiring.bucket.client.objects[key] = data  # type: ignore[attr-defined]


def cost(shape: str, limit_mb: int, contract: str = ROOMY) -> dict[str, Any]:
    """What each stage said of the shape and what it took."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "roomy.toml"
        path.write_text(contract)
        measure = Measure(shape, path)

        def make() -> dict[str, Any]:
            (path.parent / "event").write_bytes(event(shape))
            return {"event_bytes": (path.parent / "event").stat().st_size}

        told: dict[str, Any] = {"shape": shape, "make": measured(make, 16_000)}
        told["ingest"] = measured(measure.ingest, limit_mb)
        told["transform"] = measured(lambda: measure.transform(told["ingest"]), limit_mb)
        if told["transform"].get("hot_rows"):
            told["hot"] = measured(lambda: measure.hot(told["ingest"], told["transform"]), limit_mb)
        return told


def write(folder: Path, shapes: list[str], contract: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "contract.toml").write_text(contract)
    for number, shape in enumerate(shapes):
        (folder / f"{number}.json").write_bytes(event(shape))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--limit-mb", type=int, default=6_000, help="of address space")
    parser.add_argument("--wide", action="store_true", help="a contract of 500 fields")
    parser.add_argument("--verbs", action="store_true", help="a contract of lists and aliases")
    parser.add_argument("--write", type=Path, metavar="DIR", help="the events, and no more")
    parser.add_argument("shapes", nargs="*")
    asked = parser.parse_args()
    contract = WIDE if asked.wide else VERBS if asked.verbs else ROOMY
    if asked.write:
        write(asked.write, asked.shapes or list(SHAPES), contract)
        return
    for shape in asked.shapes or SHAPES:
        print(json.dumps(cost(shape, asked.limit_mb, contract)), flush=True)
    sys.stdout.flush()
    os._exit(0)  # pyarrow's threads may end a process that is going to end with an abort


if __name__ == "__main__":
    main()
