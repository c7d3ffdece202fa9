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

from infra import relations
from infra.relations import (
    BATCH_WITHOUT_WINDOW_MAX,
    QUEUE_RETENTION_MAX_SECONDS,
    VISIBILITY_FACTOR,
)
from ingest.limits import FIFO, READ_TIMEOUT_STEP_SECONDS

WORKFLOWS = Path(__file__).parent / "workflows"

TRANSFORM_SECONDS = 20  # 5,000 records take it a fraction of one
DAY_SECONDS = 86_400

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
    storage_mb: int = 512  # of /tmp


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
class Upkeep:
    """A Standard workflow that EventBridge starts, one execution at a time, and its functions.

    Each step is one invocation. Locally `millrace compact` does the same.
    """

    name: str
    definition: str
    every_minutes: int
    orphans_every_minutes: int  # ... with `{"orphans": true}`: it lists what landed
    timeout_seconds: int
    compact: Function
    publish: Function

    @property
    def functions(self) -> tuple[Function, ...]:
        return (self.compact, self.publish)


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
    upkeep: Upkeep

    def __post_init__(self) -> None:
        for must, why in relations.of(self):
            if not must:
                raise ValueError(f"topology {self.name!r}: {why}")

    @property
    def service(self) -> str:
        """What its functions call the pipeline, in metrics and in `control/`."""
        return self.transform.environment["POWERTOOLS_SERVICE_NAME"]

    @property
    def functions(self) -> tuple[Function, ...]:
        """Those on the path of a record, and repair; upkeep has its own."""
        return (self.ingest_stream, self.ingest_queue, self.transform, self.hot, self.repair)

    @property
    def queues(self) -> tuple[Queue, ...]:
        """A queue after the one its messages move to."""
        return (self.dead_letters, self.queue, self.repair_queue)

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.hot_table, self.ledger_table)

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
        return _filled(self.workflow.definition, values)

    def upkeep_definition(self, function_arns: Mapping[str, str]) -> str:
        """The ASL text of the lake's upkeep; `function_arns` is by function name."""
        compact, publish = self.upkeep.functions
        values: dict[str, str | int] = {
            "CompactFunctionArn": function_arns[compact.name],
            "CompactTimeoutSeconds": compact.timeout_seconds,
            "PublishFunctionArn": function_arns[publish.name],
            "PublishTimeoutSeconds": publish.timeout_seconds,
            "UpkeepTimeoutSeconds": self.upkeep.timeout_seconds,
        }
        return _filled(self.upkeep.definition, values)


def _filled(definition: str, values: Mapping[str, str | int]) -> str:
    """An ASL file with its placeholders replaced."""
    text = (WORKFLOWS / definition).read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f'"${{{name}}}"', json.dumps(value))
        text = text.replace(f"${{{name}}}", str(value))
    if "${" in text:
        raise ValueError(f"{definition}: a placeholder has no value")
    return text


def pipeline(
    name: str, contract: str, *, bucket: str = BUCKET, shards: int = 2, fifo: bool = False
) -> Topology:
    """The default pipeline of a contract, named after it (`[a-z0-9-]`, at most 40 characters).

    With `fifo` its queue is an SQS FIFO queue, and so is where its dead letters go.
    """
    prefix = f"millrace-{name}"
    kind = FIFO if fifo else ""
    environment = {
        "MILLRACE_BUCKET": bucket,
        "MILLRACE_CONTRACT": contract,
        "MILLRACE_HOT_TABLE": f"{prefix}-hot",
        "MILLRACE_LEDGER_TABLE": LEDGER,
        "MILLRACE_REPAIR_QUEUE": f"{prefix}-repair",
        "POWERTOOLS_SERVICE_NAME": prefix,
        "POWERTOOLS_METRICS_NAMESPACE": "Millrace",
    }
    ingest, stage = _ingest(prefix, environment), _stage(prefix, environment)
    repair = _repair(prefix, environment)
    return Topology(
        name=name,
        contract=contract,
        bucket=bucket,
        stream=Stream(name=prefix, shards=shards, retention_hours=168),
        queue=Queue(
            name=prefix + kind,
            visibility_seconds=VISIBILITY_FACTOR * ingest.timeout_seconds + 30,
            retention_seconds=4 * DAY_SECONDS,
            dead_letter=f"{prefix}-dead-letters{kind}",
            # What is handed back waits 1 s to 15 min, so that a day's outage takes 200 receives.
            max_receive_count=250,
        ),
        dead_letters=Queue(
            name=f"{prefix}-dead-letters{kind}",
            visibility_seconds=30,
            retention_seconds=14 * DAY_SECONDS,
        ),
        stream_mapping=StreamMapping(
            stream=prefix,
            function=ingest.name,
            batch_size=5_000,
            window_seconds=1,
            bisect=True,
            maximum_record_age_seconds=6 * DAY_SECONDS,  # a weekend's outage, under the retention
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
        upkeep=_upkeep(prefix, environment),
    )


def _ingest(prefix: str, environment: Environment) -> Function:
    """The function at the stream's mapping; at the queue's, only name and handler differ."""
    edge = {
        **environment,
        "MILLRACE_WORKFLOW": f"{prefix}-batch",
        "MILLRACE_TRANSFORM_SECONDS": str(TRANSFORM_SECONDS),
    }
    return Function(
        name=f"{prefix}-ingest-kinesis",
        handler="ingest.handlers.kinesis.handler",
        memory_mb=512,
        timeout_seconds=180,
        reserved_concurrency=20,
        environment=MappingProxyType(edge),
    )


def _stage(prefix: str, environment: Environment) -> Function:
    """Transform; Hot is the same with more time."""
    return Function(
        name=f"{prefix}-transform",
        handler="ingest.handlers.transform.handler",
        memory_mb=1769,  # one vCPU
        timeout_seconds=TRANSFORM_SECONDS,
        reserved_concurrency=40,
        environment=MappingProxyType(dict(environment)),
    )


def _repair(prefix: str, environment: Environment) -> Function:
    return Function(
        name=f"{prefix}-repair",
        handler="ingest.handlers.repair.handler",
        memory_mb=512,
        timeout_seconds=60,
        reserved_concurrency=2,
        environment=MappingProxyType(dict(environment)),
    )


def _upkeep(prefix: str, environment: Environment) -> Upkeep:
    """The lake's: one commit sorts five million rows in half a minute, and in two gigabytes."""
    compact = Function(
        name=f"{prefix}-compact",
        handler="ingest.handlers.compact.handler",
        memory_mb=3_538,  # two vCPUs
        timeout_seconds=900,
        reserved_concurrency=1,  # of two at once the slower would begin again
        environment=MappingProxyType(dict(environment)),
        storage_mb=10_240,
    )
    return Upkeep(
        name=f"{prefix}-upkeep",
        definition="compact.asl.json",
        every_minutes=15,
        orphans_every_minutes=24 * 60,
        timeout_seconds=6 * 3_600,
        compact=compact,
        publish=replace(
            compact,
            name=f"{prefix}-publish",
            handler="ingest.handlers.publish.handler",
            memory_mb=1_769,
            storage_mb=512,
        ),
    )
