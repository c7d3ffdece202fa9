"""The settings of a Kinesis event source mapping, and the commands its machine gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from infra.esm.answers import Meaning
from infra.esm.events import Record

BATCH_MAX = 10_000  # Lambda: BatchSize [aws.md 1.3, B]
WINDOW_MAX_SECONDS = 300  # Lambda: MaximumBatchingWindowInSeconds [aws.md 1.3, B]
RETRIES_MAX = 10_000  # Lambda: MaximumRetryAttempts; -1 is without end [aws.md 1.3, B]
AGE_MIN_SECONDS = 60  # Lambda: MaximumRecordAgeInSeconds; -1 is without end [aws.md 1.3, B]
AGE_MAX_SECONDS = 604_800
LANES_MAX = 10  # Lambda: ParallelizationFactor [aws.md 1.3, B]

Condition = Literal["RetryAttemptsExhausted", "RecordAgeExceeded"]


@dataclass(frozen=True)
class StreamRules:
    """The settings of a Kinesis mapping, with AWS's defaults. Raises ValueError as AWS refuses."""

    batch_size: int = 100
    window_seconds: float = 0.0
    bisect: bool = False
    maximum_retry_attempts: int = -1
    maximum_record_age_seconds: int = -1
    parallelization_factor: int = 1
    reports: bool = True  # ReportBatchItemFailures
    backoff_first_seconds: float = 1.0  # AWS documents none; any will do
    backoff_max_seconds: float = 60.0

    def __post_init__(self) -> None:
        age = self.maximum_record_age_seconds
        for must, what in (
            (1 <= self.batch_size <= BATCH_MAX, f"batch size is 1 to {BATCH_MAX}"),
            (0 <= self.window_seconds <= WINDOW_MAX_SECONDS, "window is 0 to 300 s"),
            (-1 <= self.maximum_retry_attempts <= RETRIES_MAX, "retries are -1 to 10,000"),
            (age == -1 or AGE_MIN_SECONDS <= age <= AGE_MAX_SECONDS, "age is -1 or 60 to 604,800"),
            (1 <= self.parallelization_factor <= LANES_MAX, "parallelization factor is 1 to 10"),
        ):
            if not must:
                raise ValueError(f"a Kinesis mapping's {what}: {self}")


@dataclass(frozen=True)
class Invoke:
    """Invoke the function with these records; `invocations` counts those before, for the same."""

    lane: int
    records: tuple[Record, ...]
    invocations: int


@dataclass(frozen=True)
class Discard:
    """Give these records up: to the on-failure destination, if there is one."""

    lane: int
    records: tuple[Record, ...]
    condition: Condition
    invocations: int
    last: Meaning | None


@dataclass(frozen=True)
class Checkpoint:
    """All records up to this one are settled."""

    identifier: str

    @property
    def sequence(self) -> int:
        return int(self.identifier)


Command = Invoke | Discard | Checkpoint
