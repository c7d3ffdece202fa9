"""`registry/`: the versions of each contract that are in use side by side.

    registry/<contract>.json     {"current": 3, "versions": {"1": <digest>, "3": <digest>}}

The files themselves are kept contracts (`sinks/contracts.py`), which nothing ever replaces. The
index is one small object, read whole and replaced whole: whoever reads it has a snapshot.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from sinks import contracts
from sinks.bucket import Bucket
from sinks.contracts import Contracts, files_in
from transform.contract import Contract
from transform.versions import clash

PREFIX = "registry"


class RegistryError(ValueError):
    """A version that cannot be published or used; says why, and what can be done."""


@dataclass(frozen=True)
class Index:
    """Digests of a contract's versions, and which of them reads what names none."""

    current: int = 0
    versions: tuple[tuple[int, str], ...] = ()

    @classmethod
    def of(cls, data: bytes | None) -> Index:
        if data is None:
            return cls()
        held = orjson.loads(data)
        versions = sorted((int(number), digest) for number, digest in held["versions"].items())
        return cls(held["current"], tuple(versions))

    def to_bytes(self) -> bytes:
        versions = {str(number): digest for number, digest in self.versions}
        return orjson.dumps({"current": self.current, "versions": versions})


def read(bucket: Bucket, name: str) -> Index:
    """The index of a contract, empty where nothing was ever published."""
    return Index.of(bucket.find(_key(name)))


def load(bucket: Bucket, name: str, index: Index, known: Contracts) -> list[Contract]:
    """The contracts of an index, the current one last."""
    files = files_in(bucket)
    found = [known.of(bucket, name, digest, files) for _, digest in index.versions]
    return sorted(found, key=lambda contract: (contract.version == index.current, contract.version))


def publish(bucket: Bucket, contract: Contract) -> Index:
    """Put a version beside the others and make it current. Raises `RegistryError`.

    A version is published once: what has made rows is never something else later.
    """
    contracts.put(bucket, contract)

    def change(data: bytes | None) -> bytes:
        index = Index.of(data)
        there = dict(index.versions)
        if there.get(contract.version, contract.digest) != contract.digest:
            raise RegistryError(
                f"version {contract.version} of {contract.name} is published with other rules; "
                f"set version = {max(there) + 1}"
            )
        for other in load(bucket, contract.name, index, Contracts()):
            why = clash(contract, other)
            if why is not None:
                raise RegistryError(f"{why}: give the contract another name, or the field")
        there[contract.version] = contract.digest
        return Index(contract.version, tuple(sorted(there.items()))).to_bytes()

    return Index.of(bucket.change(_key(contract.name), change))


def use(bucket: Bucket, name: str, version: int) -> Index:
    """Make a published version the current one: a way back. Raises `RegistryError`."""

    def change(data: bytes | None) -> bytes:
        index = Index.of(data)
        numbers = [number for number, _ in index.versions]
        if version not in numbers:
            there = ", ".join(map(str, numbers)) or "none"
            raise RegistryError(f"{name} has no version {version}; published are {there}")
        return Index(version, index.versions).to_bytes()

    return Index.of(bucket.change(_key(name), change))


def _key(name: str) -> str:
    return f"{PREFIX}/{name}.json"
