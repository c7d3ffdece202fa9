"""`contracts/`, `lookups/`, `generations/`: the rules behind every object that Transform made.

    contracts/<name>/<digest>.toml    each contract file that ever made an object, and its versions
    lookups/<sha256>                  the tables that they look up in
    generations/<digest>.json         what a generation was of, where one contract does not tell it

Stages are deployed at different moments, and repair comes days after: so hot items are made by the
contract that made the landing object, never by the one that a function happens to carry.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from sinks.bucket import Bucket
from sinks.deadline import Deadline
from sinks.landing import Landing
from transform.contract import Contract, Lookup
from transform.contract_file import parse_contract
from transform.contract_rules import Files
from transform.pipeline import Transform

PREFIX = "contracts"
LOOKUPS = "lookups"
GENERATIONS = "generations"
KNOWN_MAX = 16  # contracts that one process remembers


class Contracts:
    """What a process knows of the contracts in its bucket: it asks, and writes, each once."""

    def __init__(self) -> None:
        self._kept: set[str] = set()
        self._known: dict[tuple[str, bool], Contract] = {}

    def keep(self, bucket: Bucket, rules: Transform, deadline: Deadline) -> None:
        """See to it that the rules are in the bucket. To be called before anything is written."""
        generation = rules.generation.digest
        if generation in self._kept:
            return
        for contract in (rules.contract, *rules.older):
            put(bucket, contract, deadline)
        if rules.older or rules.hash_key:
            told = {
                "epoch": rules.epoch,
                "contract": rules.contract.digest,
                "older": sorted(contract.digest for contract in rules.older),
                "hashed": bool(rules.hash_key),
            }
            key = f"{GENERATIONS}/{generation}.json"
            bucket.put_absent(key, orjson.dumps(told), deadline)
        self._kept.add(generation)

    def behind(self, bucket: Bucket, landing: Landing, own: Contract) -> Contract:
        """The contract behind a landing object; `own` where it is that one, or none is noted."""
        digest = landing.contract_digest
        if digest is None or (landing.contract_name, digest) == (own.name, own.digest):
            return own
        return self.of(bucket, landing.contract_name, digest)

    def noted(self, bucket: Bucket, own: Contract, digest: str) -> Contract:
        """The contract of this digest, of the name of `own`; `own` where it is that one."""
        return own if digest == own.digest else self.of(bucket, own.name, digest)

    def of(self, bucket: Bucket, name: str, digest: str, files: Files | None = None) -> Contract:
        """A kept contract, its lookups read by `files` if at all."""
        key = key_of(name, digest)
        asked = (key, files is not None)  # one read for its columns alone has no tables
        if asked not in self._known:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            where = f"s3://{bucket.name}/{key}"
            self._known[asked] = parse_contract(bucket.get(key), where, files)
        return self._known[asked]


def put(bucket: Bucket, contract: Contract, deadline: Deadline | None = None) -> None:
    """Keep a contract, and first the tables that it looks up in."""
    for lookup in contract.lookups:
        if lookup.data is not None:
            bucket.put_absent(f"{LOOKUPS}/{lookup.digest}", lookup.data, deadline)
    bucket.put_absent(key_of(contract.name, contract.digest), contract.source, deadline)


def files_in(bucket: Bucket) -> Files:
    """Lookups as they are kept in a bucket, by their digests."""

    def read(lookup: Lookup) -> bytes:
        return bucket.get(f"{LOOKUPS}/{lookup.digest}")

    return read


def generations(bucket: Bucket) -> Mapping[str, dict[str, Any]]:
    """What generations were of, by their digests: those that one contract does not tell."""
    return {
        key.rpartition("/")[2].removesuffix(".json"): orjson.loads(bucket.get(key))
        for key in bucket.keys(f"{GENERATIONS}/")
    }


def key_of(name: str, digest: str) -> str:
    return f"{PREFIX}/{name}/{digest}.toml"
