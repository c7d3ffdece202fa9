"""Which shard may be read when: children wait for their parents, so that a key keeps its order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class Lineage:
    """The shards of a stream as a mapping goes through them.

    A child of a split has one parent, of a merge two; it is ready when each is done. A parent that
    the stream lists no longer has been trimmed: there is nothing to wait for.
    """

    def __init__(self) -> None:
        self._parents: dict[str, tuple[str, ...]] = {}
        self._started: set[str] = set()
        self._ended: set[str] = set()

    def learn(self, shards: Mapping[str, Sequence[str]]) -> None:
        """Take the stream's list of shards: the parents of each."""
        self._parents = {shard: tuple(parents) for shard, parents in shards.items()}

    def ready(self) -> list[str]:
        """The shards to begin with now; each is told once."""
        ready = [
            shard
            for shard, parents in self._parents.items()
            if shard not in self._started
            and all(parent in self._ended or parent not in self._parents for parent in parents)
        ]
        self._started.update(ready)
        return ready

    def end(self, shard: str) -> None:
        """A shard is closed, read to its end, and all of its records are settled."""
        self._ended.add(shard)
