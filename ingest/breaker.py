"""Law 9: when nearly everything is bad, it is the world that is wrong, not each record.

A producer's release or a contract's can make every record a reject. Quarantine would then fill with
what is good, so Transform writes nothing, hands all of it back and says so; ingest writes down what
was found, and disables its own event source mapping. An operator mends the cause and resumes, or
accepts the rejects of what arrives up to a time.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.compute as pc

from ingest import log
from sinks import control
from sinks.bucket import Bucket
from sinks.deadline import Deadline
from sinks.errors import Refused, SinkError, translated
from transform.records import Batch

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

REASON = "breaker"  # of an account in which everything goes back because nearly all is bad
WITHHELD = "withheld"  # ... because a part's rejects wait for the judgement of the whole Delivery
REASONS_MAX = 10  # that a sample names: it travels in the state of the workflow

Rejects = Literal["judge", "withhold", "write"]
"""What Transform does about rejects. `judge`: the breaker decides over what Transform was given.
`withhold`: it writes nothing where there are any, and says what it found, for it has only a part of
a Delivery. `write`: they are set aside, for somebody has judged already."""
COUNTED = ["_partition_key", "_index", "_reason", "_field"]  # of a quarantine table
PART_ROWS = 8_192  # whose keys are Python values at once
DISABLED = frozenset({"Disabling", "Disabled"})  # states of an event source mapping


@dataclass(frozen=True)
class RejectLimits:
    """Where the breaker trips: a share of rejects above `ratio_max`, and only over so much."""

    ratio_max: float = 0.5
    records_min: int = 200
    keys_min: int = 10


@dataclass(frozen=True)
class Finding:
    """What was found in the records that tripped the breaker."""

    contract: str
    records: int
    rejected: int
    top_reason: str

    def __str__(self) -> str:
        return (
            f"{self.rejected} of {self.records} records break contract {self.contract}, "
            f"most for {self.top_reason}"
        )


@dataclass(frozen=True)
class Tripped:
    """Which mapping the breaker stopped, when (ISO, UTC) and over what."""

    source: str
    stream: str
    at: str
    finding: Finding


@dataclass(frozen=True)
class Accepted:
    """An operator's word: rejects of this contract are right, of what arrives before a time."""

    contract: str
    until_micros: int


@dataclass(frozen=True)
class Sample:
    """What the rules made of some records: a producer's records, each member of an aggregate one.

    `keys` are partition keys of the rejected ones, as KPL carries them, and only as many as the
    breaker asks for: one device that sends nothing but rejects, however many, is no broken world.
    Where a source has no partition keys, each message is its own.
    """

    contract: str
    records: int = 0
    rejected: int = 0
    keys: frozenset[str] = frozenset()
    reasons: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, contract: str, batch: Batch, keys_max: int, since_micros: int = 0) -> Sample:
        """What arrived from `since_micros` on. Nothing else counts: each attempt finds the same."""
        every = (batch.rows, batch.rejects, batch.drops)
        records = sum(_since(rows, since_micros).num_rows for rows in every)
        if not batch.rejects.num_rows:
            return cls(contract, records)
        rejects = _since(batch.rejects, since_micros)
        keys, reasons = set[str](), Counter[str]()
        for part in rejects.select(COUNTED).to_batches(max_chunksize=PART_ROWS):
            named = zip(*(part[name].to_pylist() for name in COUNTED[:2]), strict=True)
            keys |= {str(index) if key is None else key for key, index in named}
            keys = set(sorted(keys)[:keys_max])
            blamed = zip(*(part[name].to_pylist() for name in COUNTED[2:]), strict=True)
            reasons.update(f"{reason} ({at})" if at else str(reason) for reason, at in blamed)
        return cls(
            contract,
            records=records,
            rejected=rejects.num_rows,
            keys=frozenset(keys),
            reasons=Counter(dict(reasons.most_common(REASONS_MAX))),
        )

    def __add__(self, other: Sample) -> Sample:
        return Sample(
            self.contract,
            self.records + other.records,
            self.rejected + other.rejected,
            self.keys | other.keys,
            self.reasons + other.reasons,
        )

    def judged(self, limits: RejectLimits) -> Finding | None:
        """What is wrong with the records as a whole, if something is."""
        if self.records < limits.records_min or len(self.keys) < limits.keys_min:
            return None
        if self.rejected <= limits.ratio_max * self.records:
            return None
        ((top, _),) = self.reasons.most_common(1)
        return Finding(self.contract, self.records, self.rejected, top)

    def to_text(self) -> str:
        """For the workflow's state. As text: JSONata would take an array of one apart."""
        return json.dumps({**vars(self), "keys": sorted(self.keys)})

    @classmethod
    def of_text(cls, text: str) -> Sample:
        told = json.loads(text)
        return cls(**{**told, "keys": frozenset(told["keys"]), "reasons": Counter(told["reasons"])})


def _since(rows: pa.Table, micros: int) -> pa.Table:
    if not micros:
        return rows
    return rows.filter(pc.greater_equal(rows["_arrival"].cast(pa.int64()), micros))


# What was decided, in `control/breaker/<pipeline>/`: one object for each source, one for the
# operator, so that no two writers replace each other's.


def accepted(bucket: Bucket, pipeline: str) -> Accepted | None:
    found = control.read(bucket, f"breaker/{pipeline}/accepted")
    return Accepted(**found) if found else None


def accept(bucket: Bucket, pipeline: str, word: Accepted) -> None:
    control.write(bucket, f"breaker/{pipeline}/accepted", asdict(word))


def tripped(bucket: Bucket, pipeline: str, source: str) -> Tripped | None:
    """What stopped the pipeline's mapping of this source, until somebody resumes it."""
    found = control.read(bucket, f"breaker/{pipeline}/{source}")
    return Tripped(**{**found, "finding": Finding(**found["finding"])}) if found else None


def reset(bucket: Bucket, pipeline: str, source: str) -> None:
    """Forget what stopped this mapping. To enable it again is the caller's."""
    control.write(bucket, f"breaker/{pipeline}/{source}", {})


@dataclass
class Breaker:
    """The pipeline's breaker at ingest: it writes down what was found and disables the mapping."""

    bucket: Bucket
    lambdas: LambdaClient
    pipeline: str

    def trip(self, found: Finding, mapping: Mapping, now: float, deadline: Deadline) -> None:
        """Best effort: the records go back anyway, and the next attempt at them trips again."""
        at = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
        stop = Tripped(mapping.source, mapping.stream, at, found)
        try:
            deadline.check("trip the breaker")
            control.write(self.bucket, f"breaker/{self.pipeline}/{mapping.source}", asdict(stop))
            self._disable(mapping, deadline)
        except (SinkError, Refused) as error:
            log.exception("mapping not disabled", stream=mapping.stream, error=str(error))

    def _disable(self, mapping: Mapping, deadline: Deadline) -> None:
        what = f"disable the mapping of {mapping.source_arn} to {mapping.function}"
        deadline.check(what)
        with translated(what):
            answer = self.lambdas.list_event_source_mappings(
                FunctionName=mapping.function, EventSourceArn=mapping.source_arn
            )
        for each in answer.get("EventSourceMappings", []):
            if each.get("State") in DISABLED:
                continue
            deadline.check(what)
            with translated(what):
                self.lambdas.update_event_source_mapping(UUID=each["UUID"], Enabled=False)


@dataclass(frozen=True)
class Mapping:
    """The event source mapping that a Delivery came by."""

    source: str
    stream: str
    source_arn: str
    function: str
