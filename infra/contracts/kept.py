"""The contracts that a bucket keeps: every version that ever made an object there."""

from __future__ import annotations

from collections.abc import Mapping

from sinks import contracts, registry
from sinks.bucket import Bucket
from sinks.contracts import Contracts
from transform.contract import Contract


def kept(bucket: Bucket) -> Mapping[str, list[Contract]]:
    """Contracts by name, of each its versions; the last is the one to read it by.

    That is the published one, where one is; else the greatest version, of two with one number that
    which was written later.
    """
    written: dict[str, list[tuple[str, float]]] = {}
    for key, at in bucket.written(f"{contracts.PREFIX}/"):
        _, name, file = key.split("/")
        written.setdefault(name, []).append((file.removesuffix(".toml"), at))
    known = Contracts()
    found = {}
    for name, files in sorted(written.items()):
        current = registry.read(bucket, name).current
        versions = [(known.of(bucket, name, digest), at) for digest, at in files]
        versions.sort(key=lambda one: (one[0].version == current, one[0].version, one[1]))
        found[name] = [contract for contract, _ in versions]
    return found
