"""What replays were asked and have done: `replays/<run>/run.json`, and an object for each chunk.

An audit is named by the digest of the chunk's raw object. By them a run that was cut short goes on,
and people are told which run resolved a reject; what counts is law 5, not the audit.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import orjson

from ingest.parking import Letter
from ingest.rounds import Fate, Ran
from ingest.settings import Wiring
from sinks.bucket import Bucket
from sinks.fates import Place
from transform.erased import marked
from transform.records import Delivery

if TYPE_CHECKING:
    import pyarrow as pa

PREFIX = "replays"

Origin = Literal["quarantine", "dead-letters", "on-failure"]
ORIGINS: tuple[Origin, ...] = ("quarantine", "dead-letters", "on-failure")


@dataclass(frozen=True)
class Choice:
    """What to replay. Times are microseconds since 1970, of arrival; `until` does not belong."""

    origins: tuple[Origin, ...] = ORIGINS
    reason: str | None = None
    field: str | None = None
    since: int | None = None
    until: int | None = None
    limit: int | None = None

    def takes(self, arrival: int) -> bool:
        """Whether a record of this arrival is meant."""
        return (self.since is None or arrival >= self.since) and (
            self.until is None or arrival < self.until
        )


@dataclass(frozen=True)
class Chosen:
    """A chosen source record: its row of raw, where it was found and what was said of it.

    `erased` are members of it that are (`transform.erased`).
    """

    source: str
    row: dict[str, Any]
    origin: Origin
    before: str
    letter: Letter | None = None
    erased: frozenset[int] = frozenset()

    @property
    def place(self) -> Place:
        return self.row["_stream"], self.row["_shard"], self.row["_sequence"]


def delivery_of(chunk: list[Chosen]) -> Delivery:
    """The chunk as if it had just come: positions, arrivals, keys and bytes are the original's."""

    def column(name: str) -> list[Any]:
        return [one.row[name] for one in chunk]

    return Delivery(
        source="sqs" if chunk[0].source == "sqs" else "kinesis",
        stream=chunk[0].row["_stream"],
        shards=column("_shard"),
        sequences=column("_sequence"),
        groups=column("_partition_key"),
        arrivals=column("_arrival"),
        attributes=column("_attributes"),
        bodies=column("_body"),
    )


def table_of(chunk: list[Chosen]) -> pa.Table:
    """The chunk as a raw table, which says what is erased of it."""
    erased = {(index, sub) for index, one in enumerate(chunk) for sub in one.erased}
    table = delivery_of(chunk).table()
    return marked(table, erased) if erased else table


def begin(wiring: Wiring, choice: Choice, run: str) -> None:
    """Note what the run is asked, if it is new."""
    key = f"{PREFIX}/{run}/run.json"
    if wiring.bucket.find(key) is None:
        contract = wiring.contract
        told = {
            "run": run,
            "began": _iso(wiring.clock()),
            "pipeline": wiring.settings.pipeline,
            "contract": contract.name,
            "contract_digest": contract.digest,
            "choice": asdict(choice),
        }
        wiring.bucket.put(key, orjson.dumps(told))


def choice_of(bucket: Bucket, run: str) -> Choice | None:
    """What the run of this id was asked for, None where there is none."""
    data = bucket.find(f"{PREFIX}/{run}/run.json")
    if data is None:
        return None
    told = orjson.loads(data)["choice"]
    return Choice(**{**told, "origins": tuple(told["origins"])})


def write(wiring: Wiring, run: str, chunk: list[Chosen], told: Ran) -> None:
    """Note what became of a chunk."""
    digest = told.raw_key.rpartition("/")[2].removesuffix(".parquet")
    outcomes = [
        [*one.place, fate, one.origin, one.before]
        for one, fate in zip(chunk, told.fates, strict=True)
    ]
    audit = {
        "run": run,
        "at": _iso(wiring.clock()),
        "raw_key": told.raw_key,
        "epoch": told.epoch,
        "contract": told.contract,
        "generation": told.generation,
        "reason": told.reason,
        "positions": outcomes,
    }
    wiring.bucket.put(f"{PREFIX}/{run}/{digest}.json", orjson.dumps(audit))


def done(bucket: Bucket, run: str) -> set[Place]:
    """Positions that the run has given a fate."""
    return set(_done(bucket, f"{PREFIX}/{run}/"))


def resolved(bucket: Bucket) -> dict[Place, str]:
    """Positions that a replay gave a good fate (delivered or dropped), with the run's id."""
    return {
        place: run
        for place, (run, fate) in _done(bucket, f"{PREFIX}/").items()
        if fate in {"delivered", "dropped"}
    }


def _done(bucket: Bucket, prefix: str) -> dict[Place, tuple[str, Fate]]:
    """Run and fate of each position that an audit under `prefix` says is done."""
    found: dict[Place, tuple[str, Fate]] = {}
    for key in bucket.keys(prefix):
        audit = orjson.loads(bucket.get(key))
        for stream, shard, sequence, fate, *_ in audit.get("positions", ()):
            if fate != "retry":
                found[stream, shard, sequence] = (audit["run"], fate)
    return found


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
