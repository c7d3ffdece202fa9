"""How a topology's numbers must relate: what waits outlives what it waits for, and has room.

Each relation is a pair: whether it holds, and why it must.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infra.topology import Topology

LAMBDA_TIMEOUT_MAX_SECONDS = 900  # Lambda quota: function timeout
EXPRESS_MAX_SECONDS = 300  # Step Functions quota: Express workflow duration
ESM_BATCH_MAX = 10_000  # Lambda CreateEventSourceMapping: BatchSize
ESM_WINDOW_MAX_SECONDS = 300  # Lambda: MaximumBatchingWindowInSeconds
BATCH_WITHOUT_WINDOW_MAX = 10  # Lambda: more needs a window; a FIFO queue never takes more
STAGE_TIMEOUT_MIN_SECONDS = 15
HOUR_SECONDS = 3_600
QUEUE_RETENTION_MAX_SECONDS = 1_209_600  # SQS: MessageRetentionPeriod, 14 days
VISIBILITY_FACTOR = 6  # Lambda guide: queue visibility at least six times the function timeout

ROUNDS = 8  # of Transform in one ingest: the first, five to find one of 10,000, two to make sure

Relation = tuple[bool, str]


def of(made: Topology) -> list[Relation]:
    """Every relation that a pipeline must keep."""
    return [
        *_timeouts(made),
        *_sources(made),
        *_concurrency(made),
        *_repair(made),
        *_upkeep(made),
    ]


def _timeouts(made: Topology) -> list[Relation]:
    """Law 7: what waits outlives what it waits for."""
    stages = made.transform.timeout_seconds + made.hot.timeout_seconds
    stages += made.workflow.settle_timeout_seconds + made.workflow.tell_seconds
    waiting = (made.ingest_stream, made.ingest_queue)
    working = (made.transform, made.hot)
    return [
        (
            stages <= made.workflow.timeout_seconds <= EXPRESS_MAX_SECONDS,
            f"the stages' {stages} s must fit in the workflow's timeout, and that in "
            f"{EXPRESS_MAX_SECONDS} s",
        ),
        (
            all(made.workflow.timeout_seconds < f.timeout_seconds for f in waiting),
            "the workflow's timeout must be under ingest's, or ingest dies waiting",
        ),
        (
            all(ROUNDS * made.transform.timeout_seconds <= f.timeout_seconds for f in waiting),
            f"Transform's timeout must be at most 1/{ROUNDS} of ingest's: finding the record "
            "that kills it takes as many rounds",
        ),
        (
            all(f.timeout_seconds <= LAMBDA_TIMEOUT_MAX_SECONDS for f in made.functions),
            f"a function's timeout is at most {LAMBDA_TIMEOUT_MAX_SECONDS} s",
        ),
        (
            all(f.timeout_seconds > STAGE_TIMEOUT_MIN_SECONDS for f in working),
            f"a stage's timeout must be over {STAGE_TIMEOUT_MIN_SECONDS} s: it keeps 6 s back "
            "to answer, and would hand everything back for ever",
        ),
    ]


def _sources(made: Topology) -> list[Relation]:
    """What AWS takes of a mapping; and nothing is shown again too soon, or gone too soon."""
    return [
        (
            made.queue.visibility_seconds
            >= VISIBILITY_FACTOR * made.ingest_queue.timeout_seconds
            + made.queue_mapping.window_seconds,
            "the queue's visibility must be six times ingest's timeout plus the window",
        ),
        (
            made.queue.retention_seconds <= made.dead_letters.retention_seconds,
            "the dead-letter queue must keep messages at least as long as the queue",
        ),
        (
            all(
                1 <= m.batch_size <= ESM_BATCH_MAX
                and 0 <= m.window_seconds <= ESM_WINDOW_MAX_SECONDS
                for m in (made.stream_mapping, made.queue_mapping)
            ),
            f"a mapping's batch is 1 to {ESM_BATCH_MAX} records, its window 0 to "
            f"{ESM_WINDOW_MAX_SECONDS} s",
        ),
        (
            all(
                m.window_seconds >= 1
                for m in (made.stream_mapping, made.queue_mapping)
                if m.batch_size > BATCH_WITHOUT_WINDOW_MAX
            ),
            f"a mapping of more than {BATCH_WITHOUT_WINDOW_MAX} records a batch needs a "
            "window of at least 1 s",
        ),
        (
            not made.queue.fifo
            or (
                made.queue_mapping.batch_size <= BATCH_WITHOUT_WINDOW_MAX
                and not made.queue_mapping.window_seconds
            ),
            f"a FIFO queue's mapping takes {BATCH_WITHOUT_WINDOW_MAX} messages a batch at "
            "most, and no window",
        ),
        (
            made.queue.fifo == made.dead_letters.fifo,
            "a FIFO queue's dead letters go to a FIFO queue, and no other's do",
        ),
        (
            -1
            <= made.stream_mapping.maximum_record_age_seconds
            < HOUR_SECONDS * made.stream.retention_hours,
            "a record must grow too old for its mapping before it expires from the stream, or "
            "it is gone before it can be set aside",
        ),
    ]


def _concurrency(made: Topology) -> list[Relation]:
    """Law 10: waiting cannot starve working."""
    batches = made.stream.shards * made.stream_mapping.parallelization_factor
    pollers = batches + made.queue_mapping.maximum_concurrency
    working = (made.transform, made.hot)
    return [
        (
            batches <= made.ingest_stream.reserved_concurrency
            and made.queue_mapping.maximum_concurrency <= made.ingest_queue.reserved_concurrency,
            "ingest must reserve what its mapping can ask for at once: a throttled receive "
            "counts as one, and enough of them park messages that nobody has read",
        ),
        (
            all(2 * pollers <= f.reserved_concurrency for f in working),
            f"up to {pollers} Deliveries wait at once: each stage must reserve twice that",
        ),
    ]


def _repair(made: Topology) -> list[Relation]:
    """Law 6: a debt outlasts any outage, and repair takes nothing from the stages."""
    queue, mapping, repair = made.repair_queue, made.repair_mapping, made.repair
    return [
        (
            queue.visibility_seconds
            >= VISIBILITY_FACTOR * repair.timeout_seconds + mapping.window_seconds,
            "the repair queue's visibility must be six times repair's timeout plus the window",
        ),
        (
            queue.retention_seconds == QUEUE_RETENTION_MAX_SECONDS
            and queue.dead_letter is None
            and not queue.fifo,
            "the repair queue must keep debts as long as SQS can, and move them nowhere",
        ),
        (
            1 <= mapping.batch_size <= BATCH_WITHOUT_WINDOW_MAX and not mapping.window_seconds,
            f"the repair mapping takes 1 to {BATCH_WITHOUT_WINDOW_MAX} debts at once, and no "
            "window: what it takes must be paid in one invocation",
        ),
        (
            mapping.maximum_concurrency <= repair.reserved_concurrency,
            "repair must reserve what its mapping can ask for at once",
        ),
        (
            repair.timeout_seconds > STAGE_TIMEOUT_MIN_SECONDS,
            f"repair's timeout must be over {STAGE_TIMEOUT_MIN_SECONDS} s, as a stage's",
        ),
    ]


def _upkeep(made: Topology) -> list[Relation]:
    """Law 11: one committer, and each step has its time."""
    upkeep = made.upkeep
    return [
        (
            all(f.reserved_concurrency == 1 for f in upkeep.functions),
            "upkeep's functions must reserve 1: of two committers the slower begins again",
        ),
        (
            all(f.timeout_seconds <= LAMBDA_TIMEOUT_MAX_SECONDS for f in upkeep.functions),
            f"upkeep's functions have at most {LAMBDA_TIMEOUT_MAX_SECONDS} s",
        ),
        (
            4 * upkeep.compact.timeout_seconds <= upkeep.timeout_seconds,
            "upkeep's timeout must have room for four steps at least",
        ),
    ]
