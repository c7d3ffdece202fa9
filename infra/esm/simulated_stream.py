"""A Kinesis stream in memory: shards, hash keys, splits, merges, retention. Time is an argument."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise

from infra.esm.events import Record, record

HASH_KEYS = 2**128  # a partition key's MD5 as an integer [aws.md 1.1, B]
FIRST_SEQUENCE = 8  # so that 9 and 10 come soon: a function that compares them as text is found out


@dataclass
class Shard:
    """A shard: a range of hash keys [low, high), its parents, its records in order."""

    name: str
    low: int
    high: int
    parents: tuple[str, ...] = ()
    closed: bool = False
    records: list[Record] = field(default_factory=list)


class SimulatedStream:
    """A stream that never refuses: what it is for is who may read what, and for how long."""

    def __init__(self, shards: int = 1, retention_seconds: float = 86_400.0) -> None:
        self.retention_seconds = retention_seconds
        self.shards: dict[str, Shard] = {}
        self._sequence = FIRST_SEQUENCE
        edges = [HASH_KEYS * number // shards for number in range(shards + 1)]
        for low, high in pairwise(edges):
            self._open(low, high)

    def put(self, key: str, data: bytes, now: float, hash_key: int | None = None) -> Record:
        """Put a record into the open shard of its key's MD5, or of an explicit hash key."""
        made = record(str(self._next()), key, data, now)
        self.shard_of(key, hash_key).records.append(made)
        return made

    def shard_of(self, key: str, hash_key: int | None = None) -> Shard:
        """The open shard that a partition key's records go to."""
        digest = hashlib.md5(key.encode(), usedforsecurity=False).digest()
        at = int.from_bytes(digest, "big") if hash_key is None else hash_key
        return next(s for s in self.shards.values() if not s.closed and s.low <= at < s.high)

    def split(self, name: str) -> tuple[str, str]:
        """Close a shard; two children share its range."""
        parent = self.shards[name]
        middle = (parent.low + parent.high) // 2
        parent.closed = True
        self._next()
        return self._open(parent.low, middle, name), self._open(middle, parent.high, name)

    def merge(self, left: str, right: str) -> str:
        """Close two neighbours; one child has both ranges."""
        first, second = sorted((self.shards[left], self.shards[right]), key=lambda s: s.low)
        if first.high != second.low or first.closed or second.closed:
            raise ValueError(f"{left} and {right} are no open neighbours")
        first.closed = second.closed = True
        self._next()
        return self._open(first.low, second.high, first.name, second.name)

    def read(self, name: str, after: int, limit: int, now: float) -> tuple[list[Record], bool]:
        """Records behind a sequence number that are still kept; whether the shard ends there."""
        shard = self.shards[name]
        start = bisect_right(shard.records, after, key=lambda record: record.sequence)
        kept = bisect_right(
            shard.records, now - self.retention_seconds, key=lambda record: record.arrival
        )
        start = max(start, kept)
        found = shard.records[start : start + limit]
        return found, shard.closed and start + len(found) == len(shard.records)

    def _open(self, low: int, high: int, *parents: str) -> str:
        name = f"shardId-{len(self.shards):012d}"
        self.shards[name] = Shard(name, low, high, parents)
        return name

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence - 1
