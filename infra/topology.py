"""The system, described once: CDK renders it, the local runtime obeys it, the planner prices it.

A `Topology` is one pipeline (one contract): its stream and queue, the mappings that feed ingest,
the functions, the Express workflow that ties the stages together, and where records come to rest.
Everything is a frozen dataclass; units are in the names. Relations that must hold between the
numbers (stage < workflow < ingest timeout < visibility) are checked when it is made, so a wrong
description cannot be rendered by anyone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from ingest.sqs import FIFO
from ingest.workflow import READ_TIMEOUT_STEP_SECONDS

WORKFLOWS = Path(__file__).parent / "workflows"

LAMBDA_TIMEOUT_MAX_SECONDS = 900  # Lambda quota: function timeout
EXPRESS_MAX_SECONDS = 300  # Step Functions quota: Express workflow duration
ESM_BATCH_MAX = 10_000  # Lambda CreateEventSourceMapping: BatchSize
ESM_WINDOW_MAX_SECONDS = 300  # Lambda: MaximumBatchingWindowInSeconds
BATCH_WITHOUT_WINDOW_MAX = 10  # Lambda: more needs a window; a FIFO queue never takes more
STAGE_TIMEOUT_MIN_SECONDS = 15
TRANSFORM_SECONDS = 20  # 5,000 records take it a fraction of one
HOUR_SECONDS = 3_600
QUEUE_RETENTION_MAX_SECONDS = 1_209_600  # SQS: MessageRetentionPeriod, 14 days
VISIBILITY_FACTOR = 6  # Lambda guide: queue visibility at least six times the function timeout

ROUNDS = 8  # of Transform in one ingest: the first, five to find one of 10,000, two to make sure

TELL_TRIES = 2  # of the events after Settle, as the ASL file has it: the shard waits for them
TELL_PAUSE_SECONDS = 1  # between them, at most

BUCKET = "millrace"  # a deployment gives its own: bucket names are global
LEDGER = "millrace-ledger"
BUS = "millrace"

Environment = Mapping[str, str]


@dataclass(frozen=True)
class Function:
    """A Lambda function. `handler` is an import path, the same in AWS and on a laptop."""

    name: str
    handler: str
    memory_mb: int
    timeout_seconds: int
    reserved_concurrency: int
    environment: Environment = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Stream:
    """A Kinesis data stream, provisioned."""

    name: str
    shards: int
    retention_hours: int


@dataclass(frozen=True)
class Queue:
    """An SQS queue and where a message goes when its receive count is spent."""

    name: str
    visibility_seconds: int
    retention_seconds: int
    dead_letter: str | None = None
    max_receive_count: int = 0

    @property
    def fifo(self) -> bool:
        return self.name.endswith(FIFO)


@dataclass(frozen=True)
class StreamMapping:
    """Event source mapping of a stream; ReportBatchItemFailures is always on.

    -1 is without end, as in AWS. `on_failure_prefix` is where in the bucket a discarded batch goes,
    with its payload; None keeps nothing of it.
    """

    stream: str
    function: str
    batch_size: int
    window_seconds: float
    parallelization_factor: int = 1
    bisect: bool = False
    maximum_retry_attempts: int = -1
    maximum_record_age_seconds: int = -1
    on_failure_prefix: str | None = None


@dataclass(frozen=True)
class QueueMapping:
    """Event source mapping of a queue; ReportBatchItemFailures is always on."""

    queue: str
    function: str
    batch_size: int
    window_seconds: float
    maximum_concurrency: int


@dataclass(frozen=True)
class Table:
    """A DynamoDB table on demand with string keys `pk` and `sk`."""

    name: str
    ttl_attribute: str | None = None


@dataclass(frozen=True)
class EventBus:
    """An EventBridge bus, on which producers are told of rejects; pipelines may share one."""

    name: str


@dataclass(frozen=True)
class Workflow:
    """An Express workflow, whose definition is one ASL file under `infra/workflows/`.

    `tell_timeout_seconds` is of one try to put the events.
    """

    name: str
    definition: str
    timeout_seconds: int
    settle_timeout_seconds: int
    tell_timeout_seconds: int

    @property
    def tell_seconds(self) -> int:
        """How long the events can take at most, with their retry."""
        return TELL_TRIES * self.tell_timeout_seconds + (TELL_TRIES - 1) * TELL_PAUSE_SECONDS


@dataclass(frozen=True)
class Topology:
    """One pipeline. `contract` is a shipped contract's name or the path of a contract file."""

    name: str
    contract: str
    bucket: str
    stream: Stream
    queue: Queue
    dead_letters: Queue
    stream_mapping: StreamMapping
    queue_mapping: QueueMapping
    ingest_stream: Function
    ingest_queue: Function
    transform: Function
    hot: Function
    repair: Function
    repair_queue: Queue
    repair_mapping: QueueMapping
    workflow: Workflow
    hot_table: Table
    ledger_table: Table
    bus: EventBus

    def __post_init__(self) -> None:
        for must, why in self._relations():
            if not must:
                raise ValueError(f"topology {self.name!r}: {why}")

    @property
    def service(self) -> str:
        """What its functions call the pipeline, in metrics and in `control/`."""
        return self.transform.environment["POWERTOOLS_SERVICE_NAME"]

    @property
    def functions(self) -> tuple[Function, ...]:
        return (self.ingest_stream, self.ingest_queue, self.transform, self.hot, self.repair)

    @property
    def queues(self) -> tuple[Queue, ...]:
        """A queue after the one its messages move to."""
        return (self.dead_letters, self.queue, self.repair_queue)

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.hot_table, self.ledger_table)

    def _relations(self) -> list[tuple[bool, str]]:
        """Laws 7 (what waits outlives what it waits for) and 10, as pairs of truth and reason."""
        stages = self.transform.timeout_seconds + self.hot.timeout_seconds
        stages += self.workflow.settle_timeout_seconds + self.workflow.tell_seconds
        waiting = (self.ingest_stream, self.ingest_queue)
        batches = self.stream.shards * self.stream_mapping.parallelization_factor
        pollers = batches + self.queue_mapping.maximum_concurrency
        working = (self.transform, self.hot)
        return [
            (
                stages <= self.workflow.timeout_seconds <= EXPRESS_MAX_SECONDS,
                f"the stages' {stages} s must fit in the workflow's timeout, and that in "
                f"{EXPRESS_MAX_SECONDS} s",
            ),
            (
                all(self.workflow.timeout_seconds < f.timeout_seconds for f in waiting),
                "the workflow's timeout must be under ingest's, or ingest dies waiting",
            ),
            (
                all(ROUNDS * self.transform.timeout_seconds <= f.timeout_seconds for f in waiting),
                f"Transform's timeout must be at most 1/{ROUNDS} of ingest's: finding the record "
                "that kills it takes as many rounds",
            ),
            (
                all(f.timeout_seconds <= LAMBDA_TIMEOUT_MAX_SECONDS for f in self.functions),
                f"a function's timeout is at most {LAMBDA_TIMEOUT_MAX_SECONDS} s",
            ),
            (
                self.queue.visibility_seconds
                >= VISIBILITY_FACTOR * self.ingest_queue.timeout_seconds
                + self.queue_mapping.window_seconds,
                "the queue's visibility must be six times ingest's timeout plus the window",
            ),
            (
                self.queue.retention_seconds <= self.dead_letters.retention_seconds,
                "the dead-letter queue must keep messages at least as long as the queue",
            ),
            (
                all(
                    1 <= m.batch_size <= ESM_BATCH_MAX
                    and 0 <= m.window_seconds <= ESM_WINDOW_MAX_SECONDS
                    for m in (self.stream_mapping, self.queue_mapping)
                ),
                f"a mapping's batch is 1 to {ESM_BATCH_MAX} records, its window 0 to "
                f"{ESM_WINDOW_MAX_SECONDS} s",
            ),
            (
                all(
                    m.window_seconds >= 1
                    for m in (self.stream_mapping, self.queue_mapping)
                    if m.batch_size > BATCH_WITHOUT_WINDOW_MAX
                ),
                f"a mapping of more than {BATCH_WITHOUT_WINDOW_MAX} records a batch needs a "
                "window of at least 1 s",
            ),
            (
                not self.queue.fifo
                or (
                    self.queue_mapping.batch_size <= BATCH_WITHOUT_WINDOW_MAX
                    and not self.queue_mapping.window_seconds
                ),
                f"a FIFO queue's mapping takes {BATCH_WITHOUT_WINDOW_MAX} messages a batch at "
                "most, and no window",
            ),
            (
                self.queue.fifo == self.dead_letters.fifo,
                "a FIFO queue's dead letters go to a FIFO queue, and no other's do",
            ),
            (
                all(f.timeout_seconds > STAGE_TIMEOUT_MIN_SECONDS for f in working),
                f"a stage's timeout must be over {STAGE_TIMEOUT_MIN_SECONDS} s: it keeps 6 s back "
                "to answer, and would hand everything back for ever",
            ),
            (
                -1
                <= self.stream_mapping.maximum_record_age_seconds
                < HOUR_SECONDS * self.stream.retention_hours,
                "a record must grow too old for its mapping before it expires from the stream, or "
                "it is gone before it can be set aside",
            ),
            (
                batches <= self.ingest_stream.reserved_concurrency
                and self.queue_mapping.maximum_concurrency
                <= self.ingest_queue.reserved_concurrency,
                "ingest must reserve what its mapping can ask for at once: a throttled receive "
                "counts as one, and enough of them park messages that nobody has read",
            ),
            *self._repair_relations(),
            (
                all(2 * pollers <= f.reserved_concurrency for f in working),
                f"up to {pollers} Deliveries wait at once: each stage must reserve twice that",
            ),
        ]

    def _repair_relations(self) -> list[tuple[bool, str]]:
        """Law 6: a debt outlasts any outage, and repair takes nothing from the stages."""
        queue, mapping, repair = self.repair_queue, self.repair_mapping, self.repair
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

    def definition(self, function_arns: Mapping[str, str]) -> str:
        """The ASL text with its `${...}` filled in; `function_arns` is by function name.

        A placeholder that is a whole JSON string takes its value's own type, so timeouts become
        numbers: CDK's DefinitionSubstitutions cannot do that, so everyone renders through here.
        `TellMillis` is what must be left of a Delivery's time for the events to be begun: all that
        they can take, and as much as ingest may stop listening before the deadline.
        """
        values: dict[str, str | int] = {
            "TransformFunctionArn": function_arns[self.transform.name],
            "TransformTimeoutSeconds": self.transform.timeout_seconds,
            "HotFunctionArn": function_arns[self.hot.name],
            "HotTimeoutSeconds": self.hot.timeout_seconds,
            "SettleTimeoutSeconds": self.workflow.settle_timeout_seconds,
            "WorkflowTimeoutSeconds": self.workflow.timeout_seconds,
            "LedgerTable": self.ledger_table.name,
            "EventBus": self.bus.name,
            "TellTimeoutSeconds": self.workflow.tell_timeout_seconds,
            "TellMillis": 1_000 * (self.workflow.tell_seconds + READ_TIMEOUT_STEP_SECONDS),
        }
        text = (WORKFLOWS / self.workflow.definition).read_text(encoding="utf-8")
        for name, value in values.items():
            text = text.replace(f'"${{{name}}}"', json.dumps(value))
            text = text.replace(f"${{{name}}}", str(value))
        if "${" in text:
            raise ValueError(f"{self.workflow.definition}: a placeholder has no value")
        return text


def pipeline(
    name: str, contract: str, *, bucket: str = BUCKET, shards: int = 2, fifo: bool = False
) -> Topology:
    """The default pipeline of a contract, named after it (`[a-z0-9-]`, at most 40 characters).

    With `fifo` its queue is an SQS FIFO queue, and so is where its dead letters go.
    """
    prefix = f"millrace-{name}"
    kind = FIFO if fifo else ""
    stages = {
        "MILLRACE_BUCKET": bucket,
        "MILLRACE_CONTRACT": contract,
        "MILLRACE_HOT_TABLE": f"{prefix}-hot",
        "MILLRACE_LEDGER_TABLE": LEDGER,
        "MILLRACE_REPAIR_QUEUE": f"{prefix}-repair",
        "POWERTOOLS_SERVICE_NAME": prefix,
        "POWERTOOLS_METRICS_NAMESPACE": "Millrace",
    }
    edge = {
        **stages,
        "MILLRACE_WORKFLOW": f"{prefix}-batch",
        "MILLRACE_TRANSFORM_SECONDS": str(TRANSFORM_SECONDS),
    }
    ingest = Function(
        name=f"{prefix}-ingest-kinesis",
        handler="ingest.handlers.kinesis.handler",
        memory_mb=512,
        timeout_seconds=180,
        reserved_concurrency=20,
        environment=MappingProxyType(edge),
    )
    stage = Function(
        name=f"{prefix}-transform",
        handler="ingest.handlers.transform.handler",
        memory_mb=1769,  # one vCPU
        timeout_seconds=TRANSFORM_SECONDS,
        reserved_concurrency=40,
        environment=MappingProxyType(stages),
    )
    repair = Function(
        name=f"{prefix}-repair",
        handler="ingest.handlers.repair.handler",
        memory_mb=512,
        timeout_seconds=60,
        reserved_concurrency=2,
        environment=MappingProxyType(stages),
    )
    day_seconds = 86_400
    return Topology(
        name=name,
        contract=contract,
        bucket=bucket,
        stream=Stream(name=prefix, shards=shards, retention_hours=168),
        queue=Queue(
            name=prefix + kind,
            visibility_seconds=VISIBILITY_FACTOR * ingest.timeout_seconds + 30,
            retention_seconds=4 * day_seconds,
            dead_letter=f"{prefix}-dead-letters{kind}",
            # What is handed back waits 1 s to 15 min, so that a day's outage takes 200 receives.
            max_receive_count=250,
        ),
        dead_letters=Queue(
            name=f"{prefix}-dead-letters{kind}",
            visibility_seconds=30,
            retention_seconds=14 * day_seconds,
        ),
        stream_mapping=StreamMapping(
            stream=prefix,
            function=ingest.name,
            batch_size=5_000,
            window_seconds=1,
            bisect=True,
            maximum_record_age_seconds=6 * day_seconds,  # a weekend's outage, under the retention
            on_failure_prefix="on-failure/",
        ),
        queue_mapping=QueueMapping(
            queue=prefix + kind,
            function=f"{prefix}-ingest-sqs",
            batch_size=BATCH_WITHOUT_WINDOW_MAX if fifo else 1_000,
            window_seconds=0 if fifo else 1,
            maximum_concurrency=2,
        ),
        ingest_stream=ingest,
        ingest_queue=replace(
            ingest, name=f"{prefix}-ingest-sqs", handler="ingest.handlers.sqs.handler"
        ),
        transform=stage,
        hot=replace(
            stage,
            name=f"{prefix}-hot",
            handler="ingest.handlers.hot.handler",
            timeout_seconds=60,
        ),
        repair=repair,
        repair_queue=Queue(
            name=f"{prefix}-repair",
            visibility_seconds=VISIBILITY_FACTOR * repair.timeout_seconds,
            retention_seconds=QUEUE_RETENTION_MAX_SECONDS,
        ),
        repair_mapping=QueueMapping(
            queue=f"{prefix}-repair",
            function=repair.name,
            batch_size=10,
            window_seconds=0,
            maximum_concurrency=2,
        ),
        workflow=Workflow(
            name=f"{prefix}-batch",
            definition="batch.asl.json",
            timeout_seconds=120,
            settle_timeout_seconds=10,
            tell_timeout_seconds=2,  # twenty times what PutEvents takes
        ),
        hot_table=Table(name=f"{prefix}-hot", ttl_attribute="expires_at"),
        ledger_table=Table(name=LEDGER),
        bus=EventBus(name=BUS),
    )
