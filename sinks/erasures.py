"""`erasures/`: what was erased and when, of a device that only the bucket's key can name.

    erasures/<contract>/<when it began>-<digest of the device>.json

An object of raw, landing or quarantine that held something of a device is written again without it,
under the name it has. The name is of what was written first: ledger, lists of the lake, rows and
debts point by it, and an attempt that comes late to write the same finds it taken and brings
nothing back. Which bytes are under it since, an erasure says: it is the one exception to law 4.

The device is told by a keyed digest. Ids are short and follow a pattern, so that a plain digest
would be undone by trying them all; and with the key, which lies in the bucket, whoever has to show
that a device was erased can.
"""

from __future__ import annotations

import hmac
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from sinks import control
from sinks.bucket import Bucket

PREFIX = "erasures"
ROWS = b"millrace.erased_rows"  # in an object's metadata: how many rows it had besides


@dataclass
class Erasure:
    """One run. Times are ISO, UTC; `finished_at` is empty for as long as it is not done.

    `counts` are by place; `objects` has the SHA-256 of what each object holds since; `marks` are
    the objects in dropped that say of each erased element that it is; `files` and `manifests` of
    the lake are deleted.
    """

    contract: str
    device: str
    began_at: str
    finished_at: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    objects: dict[str, str] = field(default_factory=dict)
    marks: list[str] = field(default_factory=list)
    lake_version: int = 0
    files: list[str] = field(default_factory=list)
    manifests: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        return f"{PREFIX}/{self.contract}/{self.began_at}-{self.device[:16]}.json"

    def write(self, bucket: Bucket) -> None:
        """Note it as it is now."""
        bucket.put(self.key, orjson.dumps(asdict(self)))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def name_of(bucket: Bucket, device: str) -> str:
    """How erasures call a device."""
    return hmac.digest(control.hash_key(bucket), device.encode(), "sha256").hex()


def known(bucket: Bucket) -> Iterator[Erasure]:
    """Every erasure, by contract and time."""
    for key in bucket.keys(f"{PREFIX}/"):
        yield Erasure(**orjson.loads(bucket.get(key)))


def digests(notes: Iterable[Erasure]) -> dict[str, set[str]]:
    """By key, the SHA-256 of what an object that was written again may hold."""
    found: dict[str, set[str]] = defaultdict(set)
    for note in notes:
        for key, digest in note.objects.items():
            found[key].add(digest)
    return found
