"""Tables of items: each is the JSON it came as, by partition key and sort key, and in a journal.

An item is in its table's journal, a file, before it is acknowledged: what was acknowledged is there
after the process was killed. A loss of power is another matter: nothing is synced.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from errno import ENOSPC
from itertools import islice
from pathlib import Path
from typing import IO, Any

import msgspec
from msgspec import Struct

SUFFIX = ".items"
STALE_MIN = 10_000  # lines of a journal that no longer count, before it is written anew
NAME = re.compile(r"[a-zA-Z0-9_.-]{3,255}")

Key = tuple[str, str]


class Description(Struct, frozen=True):
    """What is said of a table when it is made; the journal's first line."""

    name: str
    hash_key: str
    range_key: str
    created: float


class _Partition:
    """The items of one partition key, sorted when asked for."""

    __slots__ = ("_order", "items")

    def __init__(self) -> None:
        self.items: dict[str, bytes] = {}
        self._order: list[str] | None = None

    def put(self, sort: str, item: bytes) -> None:
        if sort not in self.items:
            self._order = None
        self.items[sort] = item

    def delete(self, sort: str) -> bool:
        self._order = None
        return self.items.pop(sort, None) is not None

    @property
    def order(self) -> list[str]:
        if self._order is None:
            self._order = sorted(self.items)  # of code points: the order of their UTF-8 as well
        return self._order


class Table:
    """One table, and its journal in `directory`."""

    def __init__(self, description: Description, directory: Path) -> None:
        self.description = description
        self.count = 0
        self._path = directory / (description.name + SUFFIX)
        self._partitions: dict[str, _Partition] = {}
        self._names: list[str] = []  # of partitions, in the order a scan goes
        self._places: dict[str, int] = {}
        self._journal: IO[bytes] | None = None
        self._size = 0

    @classmethod
    def made(cls, description: Description, directory: Path) -> Table:
        """A new table."""
        table = cls(description, directory)
        table._rewrite()
        return table

    @classmethod
    def loaded(cls, path: Path) -> Table:
        """The table of a journal. A torn last line is none: nobody was told that it is there."""
        with path.open("rb") as file:
            first = file.readline()
            table = cls(msgspec.json.decode(first, type=Description), path.parent)
            read_key = table._key_reader()
            lines, size = 0, len(first)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                lines, size = lines + 1, size + len(line)
                pk, sk = read_key(line.removeprefix(b"-"))
                if line.startswith(b"-"):
                    table._forget(pk, sk)
                else:
                    table._keep(pk, sk, line[:-1])
        if lines > 2 * table.count + STALE_MIN:
            table._rewrite()
        else:
            table._append_from(size)
        return table

    def write(self, puts: Iterable[tuple[Key, bytes]], deletes: Iterable[Key] = ()) -> None:
        """Put and delete. Raises OSError where the journal cannot be written; then nothing is."""
        puts, deletes = list(puts), list(deletes)
        lines = [item for _, item in puts]
        lines += [b"-" + self.key_text(key) for key in deletes]
        self._log(lines)
        for (pk, sk), item in puts:
            self._keep(pk, sk, item)
        for pk, sk in deletes:
            self._forget(pk, sk)

    def get(self, key: Key) -> bytes | None:
        partition = self._partitions.get(key[0])
        return None if partition is None else partition.items.get(key[1])

    def query(self, pk: str, low: str, high: str | None) -> Iterator[tuple[Key, bytes]]:
        """Items of a partition in the order of their sort keys, from `low` to `high`, both in."""
        partition = self._partitions.get(pk)
        if partition is None:
            return
        order = partition.order
        stop = len(order) if high is None else bisect_right(order, high)
        for sk in order[bisect_left(order, low) : stop]:
            yield (pk, sk), partition.items[sk]

    def backwards(self, pk: str, low: str, high: str | None) -> Iterator[tuple[Key, bytes]]:
        """The same, from the end."""
        return reversed(list(self.query(pk, low, high)))

    def scan(self, after: Key | None = None) -> Iterator[tuple[Key, bytes]]:
        """Every item behind a key, partition by partition. Raises KeyError for an unknown one."""
        first = 0
        if after is not None:
            pk, sk = after
            first = self._places[pk] + 1
            order = self._partitions[pk].order
            for later in order[bisect_right(order, sk) :]:
                yield (pk, later), self._partitions[pk].items[later]
        for pk in islice(self._names, first, None):
            partition = self._partitions[pk]
            for sk in partition.order:
                yield (pk, sk), partition.items[sk]

    def key_text(self, key: Key) -> bytes:
        """A key as DynamoDB's JSON."""
        names = (self.description.hash_key, self.description.range_key)
        pairs = {name: {"S": text} for name, text in zip(names, key, strict=True)}
        return msgspec.json.encode(pairs)

    def drop(self) -> None:
        """Forget all of it."""
        self.close()
        self._path.unlink()

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()

    def _keep(self, pk: str, sk: str, item: bytes) -> None:
        partition = self._partitions.get(pk)
        if partition is None:
            partition = self._partitions[pk] = _Partition()
            self._places[pk] = len(self._names)
            self._names.append(pk)
        self.count += sk not in partition.items
        partition.put(sk, item)

    def _forget(self, pk: str, sk: str) -> None:
        """An emptied partition stays: a scan under way may have ended in it."""
        partition = self._partitions.get(pk)
        if partition is not None:
            self.count -= partition.delete(sk)

    def _log(self, lines: list[bytes]) -> None:
        if not lines or self._journal is None:
            return
        text = b"\n".join([*lines, b""])
        try:
            written = self._journal.write(text)
        except OSError:
            written = 0
        if written != len(text):  # the disk is full: half an item is none
            self._journal.truncate(self._size)
            raise OSError(ENOSPC, "the journal cannot grow", str(self._path))
        self._size += len(text)

    def _rewrite(self) -> None:
        fresh = self._path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(msgspec.json.encode(self.description) + b"\n")
            for _, item in self.scan():
                file.write(item + b"\n")
        fresh.replace(self._path)
        self._append_from(self._path.stat().st_size)

    def _append_from(self, size: int) -> None:
        self._journal, self._size = self._path.open("ab", buffering=0), size
        self._journal.truncate(size)

    def _key_reader(self) -> Any:
        """How to read the key of an item that was checked when it came."""
        text = msgspec.defstruct("Text", [("S", str)])
        names = {"hash": self.description.hash_key, "range": self.description.range_key}
        keys: Any = msgspec.defstruct("Keys", [("hash", text), ("range", text)], rename=names)
        decoder = msgspec.json.Decoder(keys)

        def read(line: bytes) -> Key:
            found = decoder.decode(line)
            return found.hash.S, found.range.S

        return read
