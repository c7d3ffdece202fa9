"""`control/`: what operators and guards have decided, as small JSON objects replaced whole.

They are read once per Delivery at most, and never hold a record.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from sinks.bucket import Bucket

PREFIX = "control"
EPOCH = "epoch"
HASH_KEY = "hash-key"
HASH_KEY_BYTES = 32


def read(bucket: Bucket, name: str) -> dict[str, Any] | None:
    """The decision of this name, None where none was made."""
    data = bucket.find(_key(name))
    return None if data is None else orjson.loads(data)


def write(bucket: Bucket, name: str, decision: dict[str, Any]) -> None:
    """Replace the decision of this name."""
    bucket.put(_key(name), orjson.dumps(decision))


def hash_key(bucket: Bucket) -> bytes:
    """The bucket's own key for what contracts hash, made when it is first asked for.

    It lies beside raw, where everything is in the clear: who reads tables alone has neither.
    """

    def made(held: bytes | None) -> bytes:
        return held or orjson.dumps({"key": secrets.token_hex(HASH_KEY_BYTES)})

    return bytes.fromhex(orjson.loads(bucket.change(_key(HASH_KEY), made))["key"])


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

    `contract` is the digest of the rules. Operators who begin at once get an epoch each, or go on
    together where they ask for the same.
    """
    asked = (from_micros, to_micros, contract)

    def begun(greatest: int, known: list[Reprocessed]) -> list[Reprocessed]:
        if known and not known[-1].done:
            last = known[-1]
            if (last.from_micros, last.to_micros, last.contract) == asked:
                return known
        return [*known, Reprocessed(greatest + 1, *asked)]

    return _change(bucket, begun)[-1]


def finish(bucket: Bucket, which: Reprocessed) -> None:
    """Note that a range is done."""

    def finished(_: int, known: list[Reprocessed]) -> list[Reprocessed]:
        return [replace(one, done=True) if one.epoch == which.epoch else one for one in known]

    _change(bucket, finished)


def _change(
    bucket: Bucket, change: Callable[[int, list[Reprocessed]], list[Reprocessed]]
) -> list[Reprocessed]:
    """Replace the ranges, from the greatest epoch and what is known of them to what shall be."""
    changed: list[Reprocessed] = []

    def decision(data: bytes | None) -> bytes:
        held = {} if data is None else orjson.loads(data)
        known = [Reprocessed(**one) for one in held.get("reprocessed", ())]
        changed[:] = change(held.get("epoch", 0), known)
        greatest = max(one.epoch for one in changed)
        return orjson.dumps({"epoch": greatest, "reprocessed": [asdict(one) for one in changed]})

    bucket.change(_key(EPOCH), decision)
    return changed


def _key(name: str) -> str:
    return f"{PREFIX}/{name}.json"
