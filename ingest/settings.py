"""The environment, read once, and the clients made from it: the only wiring there is.

Every handler imports `wiring()`; importing this module does nothing.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Protocol

from ingest.breaker import Breaker, RejectLimits
from ingest.clients import Clients, Transport
from ingest.environment import Environment, SettingsError
from ingest.killers import KILLERS_MAX, PARTS, Parallel, Part, Ran
from ingest.seal_settings import SealSettings
from ingest.workflow import Workflow
from sinks import control, registry
from sinks.bucket import Bucket
from sinks.contracts import Contracts
from sinks.deadline import Clock, Deadline
from sinks.errors import translated
from sinks.queue import Queue
from sinks.registry import Index
from sinks.repair import Limits
from sinks.table import Table, Waiting
from transform.contract import Contract
from transform.contract_file import load_contract
from transform.pipeline import Transform
from transform.versions import clash

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_sqs import SQSClient

RULES_MAX = 8  # that one process remembers: epochs and versions change a few times a day
EPOCH_SECONDS = 30  # how long after an epoch was begun a process may still run under the one before


@dataclass(frozen=True)
class Settings:
    """What a function is told by its environment. `transform_seconds` is Transform's timeout."""

    pipeline: str
    bucket: str
    contract: str
    hot_table: str
    workflow: str
    transform_seconds: int = 0
    ledger_table: str = ""
    repair_queue: str = ""  # name or URL; without one, what the hot table refuses goes back
    repair: Limits = field(default_factory=Limits)
    breaker: RejectLimits = field(default_factory=RejectLimits)
    transport: Transport = "wire"
    seal: SealSettings = field(default_factory=SealSettings)

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Settings:
        """Raises `SettingsError` naming the first variable that is missing or wrong."""
        told = Environment(environment)
        need, number, share = told.need, told.number, told.share
        # Powertools reads it itself, but would miss it only when the work is done already.
        need("POWERTOOLS_METRICS_NAMESPACE")
        return cls(
            pipeline=need("POWERTOOLS_SERVICE_NAME"),
            bucket=need("MILLRACE_BUCKET"),
            contract=need("MILLRACE_CONTRACT"),
            hot_table=need("MILLRACE_HOT_TABLE"),
            workflow=told.text("MILLRACE_WORKFLOW"),
            transform_seconds=number("MILLRACE_TRANSFORM_SECONDS", 0),
            ledger_table=told.text("MILLRACE_LEDGER_TABLE"),
            repair_queue=told.text("MILLRACE_REPAIR_QUEUE"),
            repair=Limits(
                share("MILLRACE_REPAIR_SHARE_MAX", Limits.share_max),
                number("MILLRACE_REPAIR_ROWS_MAX", Limits.rows_max),
            ),
            breaker=RejectLimits(
                share("MILLRACE_REJECT_RATIO_MAX", RejectLimits.ratio_max),
                number("MILLRACE_REJECT_RECORDS_MIN", RejectLimits.records_min),
                number("MILLRACE_REJECT_KEYS_MIN", RejectLimits.keys_min),
            ),
            transport=_transport(told.text("MILLRACE_TRANSPORT", "wire")),
            seal=SealSettings.of(environment),
        )


class Context(Protocol):
    """What is used of Lambda's context object."""

    @property
    def function_name(self) -> str: ...

    def get_remaining_time_in_millis(self) -> int: ...


class Wiring:
    """Settings and what is made from them, each made when first used and then kept."""

    def __init__(self, settings: Settings, clock: Clock = time.time) -> None:
        self.settings = settings
        self.clock = clock
        self.waiting = Waiting(time.sleep, random.SystemRandom().uniform)
        self._epoch, self._epoch_read_at = 0, float("-inf")
        self._index, self._index_read_at = Index(), float("-inf")
        self._rules: dict[tuple[int, Index], Transform] = {}
        self.parallel: Parallel = in_threads
        self._queue_urls: dict[str, str] = {}
        self.contracts = Contracts()

    @cached_property
    def clients(self) -> Clients:
        return Clients(self.settings.transport, os.environ)

    @cached_property
    def bucket(self) -> Bucket:
        return self.clients.bucket(self.settings.bucket, self.waiting)

    @cached_property
    def hot_table(self) -> Table:
        return self.clients.table(self.settings.hot_table)

    @cached_property
    def ledger_table(self) -> Table:
        if not self.settings.ledger_table:
            raise SettingsError("the environment variable MILLRACE_LEDGER_TABLE is not set")
        return self.clients.table(self.settings.ledger_table)

    @cached_property
    def repair_queue(self) -> Queue | None:
        """Where refused hot rows become debts; None where they go back to the mapping."""
        if not self.settings.repair_queue:
            return None
        return Queue(self.sqs, self.settings.repair_queue)

    @cached_property
    def workflow(self) -> Workflow:
        if not self.settings.workflow:
            raise SettingsError("the environment variable MILLRACE_WORKFLOW is not set")
        return self.clients.workflow(self.settings.workflow)

    @cached_property
    def sqs(self) -> SQSClient:
        return self.clients.sqs()  # type: ignore[no-any-return]

    @cached_property
    def kinesis(self) -> KinesisClient:
        return self.clients.kinesis()  # type: ignore[no-any-return]

    @cached_property
    def cloudwatch(self) -> Any | None:
        """None where there is an endpoint for all services, as an emulator's: it has no metrics."""
        own = os.environ.get("AWS_ENDPOINT_URL_CLOUDWATCH")
        elsewhere = os.environ.get("AWS_ENDPOINT_URL") and not own
        return None if elsewhere else self.clients.cloudwatch()

    def queue_url(self, name: str) -> str:
        """A queue's URL, asked for once."""
        if name not in self._queue_urls:
            with translated(f"find queue {name}"):
                self._queue_urls[name] = self.sqs.get_queue_url(QueueName=name)["QueueUrl"]
        return self._queue_urls[name]

    @cached_property
    def breaker(self) -> Breaker:
        return Breaker(self.bucket, self.clients.lambdas(), self.settings.pipeline)

    def epoch(self) -> int:
        """The greatest epoch ever begun, as of `EPOCH_SECONDS` ago at most. It never goes back.

        Raises a `SinkError` rather than guess: under an old epoch a record's fate would not count.
        """
        if not 0 <= self.clock() - self._epoch_read_at < EPOCH_SECONDS:
            read_at = self.clock()
            self._epoch = max(self._epoch, control.epoch(self.bucket))
            self._epoch_read_at = read_at
        return self._epoch

    @property
    def contract(self) -> Contract:
        """The contract that the function carries."""
        return _contract(self.settings.contract)

    def transform(self, epoch: int) -> Transform:
        """The rules as of `EPOCH_SECONDS` ago at most: the function's contract, and the registry's.

        The newest published version reads what names none, unless the function carries a newer one.
        Raises a `SinkError`: which versions there are is never guessed.
        """
        if not 0 <= self.clock() - self._index_read_at < EPOCH_SECONDS:
            read_at = self.clock()
            self._index = registry.read(self.bucket, self.contract.name)
            self._index_read_at = read_at
        made = (epoch, self._index)
        if made not in self._rules:
            if len(self._rules) >= RULES_MAX:
                self._rules.clear()
            self._rules[made] = self._made(*made)
        return self._rules[made]

    def _made(self, epoch: int, index: Index) -> Transform:
        own = self.contract
        published = registry.load(self.bucket, own.name, index, self.contracts)
        versions = {c.version: c for c in (*published, own) if clash(own, c) is None}
        current = own if index.current <= own.version else versions.get(index.current, own)
        older = tuple(c for number, c in sorted(versions.items()) if number != current.version)
        hashes = any(f.privacy == "hash" for c in versions.values() for f in c.fields)
        return Transform(current, epoch, older, control.hash_key(self.bucket) if hashes else b"")

    def deadline(self, context: Context, keep_seconds: float) -> Deadline:
        """The end of this invocation's time, `keep_seconds` before Lambda would kill it."""
        left = context.get_remaining_time_in_millis() / 1000
        return Deadline(self.clock() + left - keep_seconds, self.clock)


def in_threads(work: Callable[[Part], Ran], parts: Iterable[Part]) -> list[Ran]:
    """`work` on each part, as many at once as a hunt can ask for."""
    with ThreadPoolExecutor(PARTS * KILLERS_MAX) as pool:
        return list(pool.map(work, parts))


@cache
def wiring() -> Wiring:
    """The process's one wiring, from the environment."""
    return Wiring(Settings.of(os.environ))


@cache
def _contract(contract: str) -> Contract:
    return load_contract(contract)


def _transport(name: str) -> Transport:
    match name:
        case "wire" | "boto3" as chosen:
            return chosen
    raise SettingsError(
        f"the environment variable MILLRACE_TRANSPORT is {name!r}, not wire or boto3"
    )
