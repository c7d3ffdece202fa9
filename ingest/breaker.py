"""Law 9: when nearly everything is bad, it is the world that is wrong, not each record.

A producer's release or a contract's can make every record a reject. Quarantine would then fill with
what is good, so Transform writes nothing, hands all of it back and says so; ingest writes down what
was found, and disables its own event source mapping. An operator mends the cause and resumes, or
accepts the rejects of what arrives up to a time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from sinks import control
from sinks.bucket import Bucket
from sinks.deadline import Deadline
from sinks.errors import SinkError, translated

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

REASON = "breaker"  # of an account in which everything goes back because nearly all is bad
DISABLED = frozenset({"Disabling", "Disabled"})  # states of an event source mapping

logger = Logger()


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


def judge(
    rows: pa.Table, rejects: pa.Table, first: int, limits: RejectLimits, since_micros: int = 0
) -> Finding | None:
    """What is wrong with the records in `rows` as a whole, if something is.

    `first` is the place of the first of them in the raw object. Those that arrived before
    `since_micros` do not count. It depends on nothing else: each attempt at the same records comes
    to the same. Where a source has no partition keys, each message is its own.
    """
    if not rejects.num_rows:
        return None
    arrivals = rows.column("_arrival").cast(pa.int64()).to_pylist()
    sample = [index for index, arrival in enumerate(arrivals) if arrival >= since_micros]
    rejected = {first + index for index in sample}.intersection(rejects["_index"].to_pylist())
    if len(sample) < limits.records_min or len(rejected) / len(sample) <= limits.ratio_max:
        return None
    groups = rows.column("_partition_key").to_pylist()
    keys = {index if groups[index] is None else groups[index] for index in sample}
    if len(keys) < limits.keys_min:
        return None
    contract = rejects["_contract"][0].as_py()
    return Finding(contract, len(sample), len(rejected), _top_reason(rejects))


def _top_reason(rejects: pa.Table) -> str:
    """The commonest reason, with the field where one is to blame: `missing_field (ts)`."""
    reasons, fields = (rejects.column(name).to_pylist() for name in ("_reason", "_field"))
    (reason, field), _ = Counter(zip(reasons, fields, strict=True)).most_common(1)[0]
    return f"{reason} ({field})" if field else str(reason)


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
        except (SinkError, ClientError) as error:
            logger.exception("mapping not disabled", stream=mapping.stream, error=str(error))

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
