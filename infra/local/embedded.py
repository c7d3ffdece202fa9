"""The embedded default as one thing: emulator, functions and mappings, started and stopped."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError

from infra.local import resources
from infra.local.chaos import VISIBILITY_SECONDS, Chaos
from infra.local.emulator import ENVIRONMENT
from infra.local.endpoints import Endpoints, clients_of, endpoints_of
from infra.local.invoke_api import LambdaError
from infra.local.lambdas import LocalLambda
from infra.local.mappings import Mappings, NotInvoked
from infra.local.proxy import Proxy
from infra.local.resources import Client
from infra.local.shard_driver import Park
from infra.local.state import Running, State, StateError
from infra.local.switches import Switches
from infra.topology import Function, Topology, pipeline
from sinks.bucket import Bucket
from sinks.errors import SinkError
from sinks.table import Table
from transform.contract import Contract
from transform.contract_file import load_contract

CODE = Path(__file__).resolve().parents[2]
STAGE_WORKERS = 2  # of Transform and of Hot each: what two cores keep busy
REPAIR_WORKERS = 1  # debts are rare here, and each worker is a process
DRAIN_SECONDS = 10.0  # for invocations in flight when everything stops


@dataclass(frozen=True)
class Pipeline:
    """A pipeline that runs on this machine, as producers and readers see it."""

    topology: Topology
    contract: Contract
    url: str
    client: Client

    @property
    def service(self) -> str:
        return self.topology.service

    @property
    def bucket(self) -> Bucket:
        return Bucket(self.client("s3"), self.topology.bucket)

    @property
    def hot_table(self) -> Table:
        return Table(self.client("dynamodb"), self.topology.hot_table.name)

    @property
    def ledger_table(self) -> Table:
        return Table(self.client("dynamodb"), self.topology.ledger_table.name)

    @property
    def queue_url(self) -> str:
        return resources.queue_url(self.client, self.topology.queue)

    @property
    def repair_queue_url(self) -> str:
        return resources.queue_url(self.client, self.topology.repair_queue)

    @property
    def dead_letters_url(self) -> str:
        return resources.queue_url(self.client, self.topology.dead_letters)


@dataclass(frozen=True)
class Embedded(Pipeline):
    """A pipeline that this process runs."""

    mappings: Mappings
    endpoints: Endpoints


@contextmanager
def embedded(  # noqa: PLR0913  each is a choice of who runs it
    state: State,
    contract: str,
    *,
    port: int = 0,
    chaos: Chaos | None = None,
    fifo: bool = False,
    table: str | None = None,
) -> Iterator[Embedded]:
    """Run a contract's pipeline on a state that is owned; all of it ends with the context.

    With `chaos` its functions run in bad weather; with `fifo` its queue is a FIFO queue. `table` is
    the kind of its tables, None that of the state.

    Raises `ContractError`, `EmulatorError`, `WrongTable`, or the error of the function that would
    not start.
    """
    rules, kept = state.keep_contract(contract)
    topology = pipeline(rules.name, str(kept), fifo=fifo)
    if chaos is not None:
        topology = chaos.over(topology)
    with ExitStack() as stack:
        endpoints = stack.enter_context(endpoints_of(state, port, table))
        told = stack.enter_context(_told(topology, endpoints, chaos))
        switches = Switches(state / "paused", topology)
        lambdas = stack.enter_context(_lambdas(topology, told, state, switches))
        if chaos is not None:
            chaos.kill = lambdas.kill
        clients, emulator = endpoints.clients, endpoints.emulator
        resources.create(topology, clients, lambdas.proxy_url)

        def invoke(name: str, payload: bytes) -> tuple[bytes, str | None]:
            if chaos is not None and chaos.refuses():
                raise NotInvoked(f"{name} was not invoked: Rate Exceeded.")
            try:
                invocation = lambdas.invoke(name, payload)
            except LambdaError as error:
                raise NotInvoked(f"{name} was not invoked: {error}") from error
            return invocation.payload, invocation.function_error

        mappings = Mappings(invoke, switches.enabled)
        stack.callback(mappings.stop, DRAIN_SECONDS)
        system = Embedded(topology, rules, emulator.url, clients, mappings, endpoints)
        mappings.poll_stream(
            clients("kinesis"),
            topology.stream_mapping,
            state / "checkpoints",
            _parking(topology, clients("s3")),
        )
        visibility_seconds, timeout_seconds = _patience(topology, chaos)
        mappings.poll_queue(
            clients("sqs"),
            topology.queue_mapping,
            system.queue_url,
            visibility_seconds=visibility_seconds,
            timeout_seconds=timeout_seconds,
        )
        mappings.poll_queue(
            clients("sqs"),
            topology.repair_mapping,
            system.repair_queue_url,
            visibility_seconds=topology.repair_queue.visibility_seconds,
            timeout_seconds=topology.repair.timeout_seconds,
            tally="repair",
        )
        state.announce(
            Running(
                os.getpid(), emulator.pid, emulator.url, topology.name, fifo, endpoints.table_url
            )
        )
        yield system


@contextmanager
def running(
    state: State, contract: str, *, fifo: bool | None = None, table: str | None = None
) -> Iterator[Pipeline]:
    """A contract's pipeline: the one that runs on this state already, or one started for us.

    `fifo` is the kind of its queue and `table` that of its tables, None any. Raises `StateError`
    where another contract runs there, or one with the other kind of queue or tables, besides what
    `embedded` raises.
    """
    there = state.running()
    if there is None:
        with state.owned(), embedded(state, contract, fifo=bool(fifo), table=table) as system:
            yield system
        return
    rules = load_contract(contract)
    kept = {known.name: known for known in state.contracts()}.get(rules.name)
    if there.pipeline != rules.name or kept is None or kept.source != rules.source:
        which = "another contract" if there.pipeline != rules.name else "another version of it"
        raise StateError(
            f"process {there.pid} runs {there.pipeline} on {state.root}, and {contract} is "
            f"{which}; stop that process, or use another --state"
        )
    if fifo not in (None, there.fifo):
        kinds = ("a standard queue", "a FIFO queue")
        raise StateError(
            f"process {there.pid} serves {kinds[there.fifo]} on {state.root}, not "
            f"{kinds[not there.fifo]}; stop that process, or use another --state"
        )
    state.table(table)
    kept_at = str(state / "contracts" / f"{rules.name}.toml")
    topology = pipeline(rules.name, kept_at, fifo=there.fifo)
    with _borrowed(state, there):
        yield Pipeline(topology, rules, there.url, clients_of(there.url, there.table_url))


@contextmanager
def served(state: State) -> Iterator[Client]:
    """Clients to read a state by: of the running pipeline, or of an emulator started for it."""
    there = state.running()
    if there is not None:
        with _borrowed(state, there):
            yield clients_of(there.url, there.table_url)
        return
    with state.owned(), endpoints_of(state) as endpoints:
        yield endpoints.clients


@contextmanager
def _borrowed(state: State, there: Running) -> Iterator[None]:
    """Use another process's pipeline, which may end at any time."""
    try:
        yield
    except (SinkError, BotoCoreError) as error:
        if state.running() == there:
            raise
        raise StateError(
            f"process {there.pid}, whose pipeline this used, has stopped it; try again"
        ) from error


def _parking(topology: Topology, s3: Any) -> Park | None:
    """How the stream's mapping writes to its on-failure destination."""
    prefix = topology.stream_mapping.on_failure_prefix
    if prefix is None:
        return None

    def park(key: str, data: bytes) -> None:
        s3.put_object(Bucket=topology.bucket, Key=prefix + key, Body=data)

    return park


@contextmanager
def _told(
    topology: Topology, endpoints: Endpoints, chaos: Chaos | None
) -> Iterator[Mapping[str, Mapping[str, str]]]:
    """Where each function finds AWS, as its environment says it: or what misbehaves before it."""
    urls = {"AWS_ENDPOINT_URL": endpoints.emulator.url}
    if endpoints.table is not None:
        urls["AWS_ENDPOINT_URL_DYNAMODB"] = endpoints.table.url
    if chaos is None:
        yield {function.name: urls for function in topology.functions}
        return
    with Proxy(endpoints.emulator.url, chaos.meddle) as proxy:
        yield {
            function.name: {
                name: proxy.url(chaos.role_of(function.name), url) for name, url in urls.items()
            }
            for function in topology.functions
        }


def _patience(topology: Topology, chaos: Chaos | None) -> tuple[float, float]:
    """How long the queue's mapping keeps a message to itself, and how long it lets ingest run."""
    if chaos is not None:
        return VISIBILITY_SECONDS, VISIBILITY_SECONDS / 2
    return topology.queue.visibility_seconds, topology.ingest_queue.timeout_seconds


def _lambdas(
    topology: Topology,
    told: Mapping[str, Mapping[str, str]],
    state: State,
    switches: Switches,
) -> LocalLambda:
    return LocalLambda(
        _wired(topology, told),
        workers={
            topology.ingest_stream.name: topology.stream.shards
            * topology.stream_mapping.parallelization_factor,
            topology.ingest_queue.name: topology.queue_mapping.maximum_concurrency,
            topology.transform.name: STAGE_WORKERS,
            topology.hot.name: STAGE_WORKERS,
            topology.repair.name: REPAIR_WORKERS,
        },
        environment=ENVIRONMENT,
        log_directory=state / "logs",
        root=CODE,
        switches=switches,
    )


def _wired(topology: Topology, told: Mapping[str, Mapping[str, str]]) -> list[Function]:
    """The functions, told what a deployment resolves for them: endpoints, their workflow's ARN."""
    arn = resources.workflow_arn(topology)
    wired = []
    for function in topology.functions:
        environment = {**function.environment, **told[function.name]}
        if "MILLRACE_WORKFLOW" in environment:
            environment["MILLRACE_WORKFLOW"] = arn
        wired.append(replace(function, environment=environment))
    return wired
