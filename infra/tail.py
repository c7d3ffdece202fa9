"""Rejects one by one, as attempts settle: what `millrace quarantine tail` prints.

They are read from the ledger and the quarantine objects that it names, not from the feed: an event
has a few examples and may come twice or not at all, here is every one. It costs the ledger's last
minutes at each look, and one object for each attempt that set something aside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sinks import landing
from sinks.bucket import Bucket
from sinks.ledger import Attempt
from transform.contract import Contract
from transform.sender import detail_to_tell, may_be_told, sender_of_reject

SEEN_MAX = 100_000  # elements remembered, so that one whose answer got lost is not printed twice
COLUMNS = [
    *("_contract", "_stream", "_shard", "_sequence", "_sub", "_child", "_generation", "_arrival"),
    *("_step", "_reason", "_field", "_detail", "_body", "_partition_key"),
]

Reject = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """Which rejects; None is any. `since` is when their attempt settled."""

    device: str | None = None
    reason: str | None = None
    contract: str | None = None
    since: datetime | None = None


@dataclass
class Tail:
    """The rejects of attempts, each element once for each generation that rejected it."""

    bucket: Bucket
    contracts: Iterable[Contract]
    wanted: Wanted
    _seen: dict[tuple[Any, ...], None] = field(default_factory=dict)

    def of(self, attempts: Iterable[Attempt]) -> Iterator[Reject]:
        """What these attempts set aside, as far as it is wanted and new."""
        known = {contract.name: contract for contract in self.contracts}
        for attempt in sorted(attempts, key=lambda attempt: attempt.settled_at):
            if not attempt.quarantine_key or not self._wants(attempt):
                continue
            rows = landing.read(self.bucket, attempt.quarantine_key, COLUMNS)
            for row in rows.to_pylist():
                if self._is_new(row):
                    yield from self._told(row, attempt, known.get(attempt.contract))

    def _wants(self, attempt: Attempt) -> bool:
        settled = datetime.fromisoformat(attempt.settled_at)
        early = self.wanted.since is not None and settled < self.wanted.since
        return not early and self.wanted.contract in (None, attempt.contract)

    def _is_new(self, row: dict[str, Any]) -> bool:
        element = tuple(row[name] for name in COLUMNS[1:7])
        if element in self._seen:
            return False
        self._seen[element] = None
        if len(self._seen) > SEEN_MAX:
            del self._seen[next(iter(self._seen))]
        return True

    def _told(
        self, row: dict[str, Any], attempt: Attempt, contract: Contract | None
    ) -> Iterator[Reject]:
        """A reject, if it is of the wanted reason and device."""
        device = contract and sender_of_reject(row["_step"], row["_body"], contract)
        whose = row["_partition_key"] if device is None else device
        if self.wanted.reason not in (None, row["_reason"]):
            return
        if self.wanted.device not in (None, whose):
            return
        public = contract is None or may_be_told(contract.field(contract.device))
        detail = row["_detail"]
        yield {
            "settled_at": attempt.settled_at,
            "arrival": row["_arrival"].isoformat().replace("+00:00", "Z"),
            "contract": row["_contract"],
            "device": device if public else None,
            "partition_key": row["_partition_key"] if public else None,
            "step": row["_step"],
            "reason": row["_reason"],
            "field": row["_field"],
            "detail": detail_to_tell(detail, row["_field"], contract) if contract else detail,
            "position": f"{row['_stream']}/{row['_shard']}/{row['_sequence']}",
            "element": f"{row['_sub']}/{row['_child']}",
            "generation": row["_generation"],
            "quarantine_key": attempt.quarantine_key,
        }
