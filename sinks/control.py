"""`control/`: what operators and guards have decided, as small JSON objects replaced whole.

They are read once per Delivery at most, and never hold a record.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from sinks.bucket import Bucket

PREFIX = "control"
EPOCH = "epoch"


def read(bucket: Bucket, name: str) -> dict[str, Any] | None:
    """The decision of this name, None where none was made."""
    data = bucket.find(f"{PREFIX}/{name}.json")
    return None if data is None else orjson.loads(data)


def write(bucket: Bucket, name: str, decision: dict[str, Any]) -> None:
    """Replace the decision of this name."""
    bucket.put(f"{PREFIX}/{name}.json", orjson.dumps(decision))


@dataclass(frozen=True)
class Reprocessed:
    """A range of arrivals that was run again, under an epoch of its own.

    `from_micros` belongs to it and `to_micros` does not. `done` says that all of it has its fate.
    """

    epoch: int
    from_micros: int
    to_micros: int
    contract: str
    done: bool = False


def epoch(bucket: Bucket) -> int:
    """The greatest epoch ever begun, 0 where none was."""
    return int((read(bucket, EPOCH) or {}).get("epoch", 0))


def reprocessed(bucket: Bucket) -> list[Reprocessed]:
    """Every range that was ever begun, in the order of their epochs."""
    return [Reprocessed(**one) for one in (read(bucket, EPOCH) or {}).get("reprocessed", ())]


def begin(bucket: Bucket, from_micros: int, to_micros: int, contract: str) -> Reprocessed:
    """Begin an epoch for a range, or go on with the newest one where it is the same and not done.

    `contract` is the digest of the rules. One operator at a time: two who begin at once would get
    the same epoch.
    """
    known = reprocessed(bucket)
    asked = (from_micros, to_micros, contract)
    if known and not known[-1].done:
        last = known[-1]
        if (last.from_micros, last.to_micros, last.contract) == asked:
            return last
    fresh = Reprocessed(epoch(bucket) + 1, *asked)
    _keep(bucket, [*known, fresh])
    return fresh


def finish(bucket: Bucket, which: Reprocessed) -> None:
    """Note that a range is done."""
    known = reprocessed(bucket)
    _keep(bucket, [replace(one, done=True) if one.epoch == which.epoch else one for one in known])


def _keep(bucket: Bucket, known: list[Reprocessed]) -> None:
    greatest = max(one.epoch for one in known)
    write(bucket, EPOCH, {"epoch": greatest, "reprocessed": [asdict(one) for one in known]})
