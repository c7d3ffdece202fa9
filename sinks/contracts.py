"""`contracts/`: every contract file that ever made a landing object, named by its digest.

Stages are deployed at different moments, and repair comes days after: so hot items are made by the
contract that made the landing object, never by the one that a function happens to carry.
"""

from __future__ import annotations

from sinks.bucket import Bucket
from sinks.deadline import Deadline
from sinks.landing import Landing
from transform.contract import Contract
from transform.contract_file import parse_contract

PREFIX = "contracts"
KNOWN_MAX = 16  # contracts that one process remembers


class Contracts:
    """What a process knows of the contracts in its bucket: it asks, and writes, each once."""

    def __init__(self) -> None:
        self._kept: set[str] = set()
        self._known: dict[str, Contract] = {}

    def keep(self, bucket: Bucket, contract: Contract, deadline: Deadline) -> None:
        """See to it that the file is in the bucket. To be called before landing is written."""
        key = _key(contract.name, contract.digest)
        if key not in self._kept:
            bucket.put_absent(key, contract.source, deadline)
            self._kept.add(key)

    def behind(self, bucket: Bucket, landing: Landing, own: Contract) -> Contract:
        """The contract behind a landing object; `own` where it is that one, or none is noted."""
        digest = landing.contract_digest
        if digest is None or (landing.contract_name, digest) == (own.name, own.digest):
            return own
        key = _key(landing.contract_name, digest)
        if key not in self._known:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[key] = parse_contract(bucket.get(key), f"s3://{bucket.name}/{key}")
        return self._known[key]


def _key(name: str, digest: str) -> str:
    return f"{PREFIX}/{name}/{digest}.toml"
