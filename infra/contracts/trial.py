"""A sample through Transform: what would be delivered, and what rejected, why and where."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from infra.contracts.samples import Sample
from transform.contract import Contract
from transform.pipeline import Transform
from transform.records import Batch, Delivery

SHOWN_MAX_BYTES = 200
NO_ATTRIBUTES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Rejected:
    """Elements rejected for one reason, with one of them as the example."""

    reason: str
    field: str | None
    count: int
    where: str
    detail: str
    body: str


@dataclass(frozen=True)
class Trial:
    """A sample's records by fate, its rows, and their identities."""

    records: int
    delivered: int
    dropped: int
    quarantined: int
    dropped_by: Mapping[str, int]
    rows: int
    repeats: int
    conflicts: int
    rejected: tuple[Rejected, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def applied(
    contract: Contract,
    bodies: Sequence[bytes],
    arrival: int,
    attributes: Mapping[str, str] = NO_ATTRIBUTES,
    older: tuple[Contract, ...] = (),
) -> Batch:
    """What Transform makes of these records, had they come just now: by SQS, with attributes.

    `older` are versions of the contract that they may name.
    """
    count = len(bodies)
    texts = {name: {"stringValue": text, "dataType": "String"} for name, text in attributes.items()}
    delivery = Delivery(
        source="sqs" if attributes else "kinesis",
        stream="sample",
        shards=[""] * count,
        sequences=[str(number) for number in range(count)],
        groups=[None] * count,
        arrivals=[arrival] * count,
        attributes=[json.dumps(texts) if attributes else None] * count,
        bodies=list(bodies),
    )
    return Transform(contract, older=older).apply(delivery.table(), "sample")


def tried(
    contract: Contract, sample: Sample, arrival: int, older: tuple[Contract, ...] = ()
) -> Trial:
    """A sample under a contract and its `older` versions, `arrival` in microseconds."""
    batch = applied(contract, sample.bodies, arrival, older=older)
    repeats, conflicts = _identities(batch)
    return Trial(
        records=batch.counts.received,
        delivered=batch.counts.delivered,
        dropped=batch.counts.dropped,
        quarantined=batch.counts.quarantined,
        dropped_by=dict(Counter(batch.drops.column("_rule").to_pylist())),
        rows=batch.rows.num_rows,
        repeats=repeats,
        conflicts=conflicts,
        rejected=_rejected(batch, sample),
    )


def _identities(batch: Batch) -> tuple[int, int]:
    """Rows beyond the first of each identity, and ids that stand for different bytes."""
    ids = batch.rows.column("_record_id").to_pylist()
    digests = batch.rows.column("_digest").to_pylist()
    each = set(zip(ids, digests, strict=True))
    return len(ids) - len(each), len(each) - len(set(ids))


def _rejected(batch: Batch, sample: Sample) -> tuple[Rejected, ...]:
    """By reason and field, the most frequent first."""
    groups: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
    for row in batch.rejects.to_pylist():
        groups.setdefault((row["_reason"], row["_field"]), []).append(row)
    return tuple(
        Rejected(
            reason=reason,
            field=field,
            count=len(rows),
            where=sample.where(rows[0]["_index"]),
            detail=rows[0]["_detail"],
            body=rows[0]["_body"][:SHOWN_MAX_BYTES].decode(errors="replace"),
        )
        for (reason, field), rows in sorted(groups.items(), key=lambda item: -len(item[1]))
    )
