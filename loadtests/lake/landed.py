"""Landing objects made by Transform on generated Deliveries, and what the ledger says of them.

    python -m loadtests.lake.landed FOLDER

A process per core, a shard at a time. Nothing is archived in raw: no reader of a lake opens it.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import msgspec

from loadtests.lake import folder
from loadtests.lake.oracle import Oracle
from loadtests.lake.traffic import NAME, Delivered, Extent, Shard
from loadtests.machine import CORES
from sinks import landing
from sinks.bucket import Bucket
from sinks.deadline import Deadline
from sinks.ledger import Attempt
from transform.devices import MICROS, Message
from transform.pipeline import Transform

NEVER = Deadline(1.0, lambda: 0.0)
SETTLED_AFTER = 3 * MICROS  # the arrival of a Delivery's last record
MADE = "made.json"


@dataclass
class Made:
    """What was made: attempts by the time they settled, and what a lake of them must say.

    `firsts` are the landing objects of Deliveries that came for the first time, by arrival: each
    source record once, as any other consumer of the stream has it.
    """

    extent: Extent
    attempts: list[Attempt] = field(default_factory=list)
    firsts: list[str] = field(default_factory=list)
    oracle: Oracle = field(default_factory=Oracle)
    seconds: float = 0.0

    @property
    def landing_keys(self) -> list[str]:
        return [attempt.landing_key for attempt in self.attempts if attempt.landing_rows]

    @property
    def landing_rows(self) -> int:
        return sum(attempt.landing_rows for attempt in self.attempts)


def attempts(root: Path) -> list[Attempt]:
    """What the ledger says, of what `made` has made there."""
    return msgspec.json.decode((root / MADE).read_bytes(), type=_Ledger).attempts


@dataclass
class _Ledger:
    attempts: list[Attempt]


def made(root: Path, extent: Extent) -> Made:
    """The objects in the bucket under a folder; they are made where they are not there yet."""
    note = root / MADE
    if note.exists():
        found = msgspec.json.decode(note.read_bytes(), type=Made)
        if found.extent != extent:
            raise ValueError(f"{root} holds other records: {found.extent}")
        return found
    found = make(root, extent)
    note.write_bytes(msgspec.json.encode(found))
    return found


def make(root: Path, extent: Extent, processes: int = len(CORES)) -> Made:
    """Make them: the same objects for the same extent, by however many processes."""
    began = time.monotonic()
    folder.bucket(root)
    found = Made(extent)
    settled: list[tuple[Attempt, bool]] = []
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        shards = [Shard(extent, number) for number in range(extent.shards)]
        for attempts, oracle in pool.map(_settled, repeat(folder.bucket(root)), shards):
            settled += attempts
            found.oracle.merge(oracle)
    settled.sort(key=lambda pair: (pair[0].settled_at, pair[0].raw_key))
    found.attempts = [attempt for attempt, _ in settled]
    found.firsts = [one.landing_key for one, again in settled if one.landing_rows and not again]
    found.seconds = time.monotonic() - began
    return found


def _settled(bucket: Bucket, shard: Shard) -> tuple[list[tuple[Attempt, bool]], Oracle]:
    oracle = Oracle()
    first, second = shard.contracts
    rules = Transform(first), Transform(second, older=(first,))
    attempts = []
    for delivered in shard.deliveries():
        if not delivered.again:
            _count(delivered.messages, oracle)
        attempts.append((_attempt(bucket, rules[delivered.newest], delivered), delivered.again))
    return attempts, oracle


def _count(messages: Sequence[Message], oracle: Oracle) -> None:
    """From the messages alone, as they were generated: nothing that reads them has a say."""
    for message in messages:
        if message.planted is None:
            oracle.sent(message.device, message.body, repeat=message.repeat)


def _attempt(bucket: Bucket, rules: Transform, delivered: Delivered) -> Attempt:
    """Land a Delivery; what Settle would say of it."""
    delivery = delivered.delivery
    places = "\n".join([str(delivered.again), *delivery.sequences])
    name = hashlib.sha256(places.encode()).hexdigest()
    arrived = datetime.fromtimestamp(delivery.arrivals[0] // MICROS, UTC)
    raw_key = f"raw/{arrived:%Y-%m-%d/%H}/{name}.parquet"
    batch = rules.apply(delivery.table(), raw_key)
    landed = landing.write(bucket, rules.contract, batch, NEVER)
    settled = datetime.fromtimestamp((delivery.arrivals[-1] + SETTLED_AFTER) / MICROS, UTC)
    generation = rules.generation
    return Attempt(
        execution=f"arn:aws:states:us-east-1:000000000000:express:{NAME}:{name[:32]}:1",
        settled_at=settled.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        pipeline=NAME,
        contract=NAME,
        stream=delivery.stream,
        shard=delivery.shards[0],
        raw_key=raw_key,
        archived=len(delivery),
        first_arrival=min(delivery.arrivals),
        last_arrival=max(delivery.arrivals),
        outcome="done",
        reason="",
        epoch=generation.epoch,
        version=generation.version,
        generation=generation.digest,
        first=0,
        **asdict(batch.counts),
        retry=(),
        **asdict(landed),
        hot_rows=batch.hot_rows,
        hot_written=batch.hot_rows,
        repair_rows=0,
        repair=(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--records", type=int, default=Extent.records)
    asked = parser.parse_args()
    made(asked.folder, Extent(records=asked.records))


if __name__ == "__main__":
    main()
