"""The embedded default as one thing: emulator, functions and mappings, started and stopped together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from infra.local import resources
from infra.local.emulator import ENVIRONMENT, Emulator, client
from infra.local.lambdas import LocalLambda
from infra.local.mappings import Mappings
from infra.local.resources import Addresses, Client
from infra.local.state import Running, State
from infra.topology import Topology, pipeline
from transform.contract import Contract

CODE = Path(__file__).resolve().parents[2]
STAGE_WORKERS = 2  # of Transform and Hot: as many as the machine this was measured on has cores
CONNECTIONS_MAX = 16
DRAIN_SECONDS = 10.0  # for invocations in flight when everything stops


@dataclass(frozen=True)
class Endpoint:
    """An AWS endpoint that a state is served on: of a running pipeline, or started to read it."""

    url: str
    client: Client


@dataclass(frozen=True)
class Embedded:
    """A running pipeline."""

    topology: Topology
    contract: Contract
    endpoint: Endpoint
    addresses: Addresses
    mappings: Mappings
    emulator: Emulator

    @property
    def url(self) -> str:
        return self.endpoint.url

    @property
    def client(self) -> Client:
        return self.endpoint.client

    @property
    def queue_url(self) -> str:
        return self.addresses.queues[self.topology.queue.name]


@contextmanager
def embedded(state: State, contract: str, *, port: int = 0) -> Iterator[Embedded]:
    """Run a contract's pipeline on a state that is owned; all of it ends with the context.

    Raises `ContractError`, `EmulatorError`, or the error of the function that would not start.
    """
    rules, kept = state.keep_contract(contract)
    topology = pipeline(rules.name, str(kept))
    with ExitStack() as stack:
        endpoint, emulator = stack.enter_context(_emulator(state, port))
        lambdas = LocalLambda(
            _wired(topology),
            workers={
                topology.ingest_stream.name: topology.stream.shards,
                topology.ingest_queue.name: topology.queue_mapping.maximum_concurrency,
                topology.transform.name: STAGE_WORKERS,
                topology.hot.name: STAGE_WORKERS,
            },
            environment={**ENVIRONMENT, "AWS_ENDPOINT_URL": endpoint.url},
            log_directory=state / "logs",
            root=CODE,
        )
        stack.enter_context(lambdas)
        addresses = resources.create(topology, endpoint.client, lambdas.proxy_url)

        def invoke(name: str, payload: bytes) -> tuple[bytes, str | None]:
            invocation = lambdas.invoke(name, payload)
            return invocation.payload, invocation.function_error

        mappings = Mappings(invoke)
        stack.callback(mappings.stop, DRAIN_SECONDS)
        kinesis, sqs = endpoint.client("kinesis"), endpoint.client("sqs")
        mappings.poll_stream(kinesis, topology.stream_mapping, state / "checkpoints")
        queue_url = addresses.queues[topology.queue.name]
        mappings.poll_queue(sqs, topology.queue_mapping, queue_url)
        system = Embedded(topology, rules, endpoint, addresses, mappings, emulator)
        state.announce(
            Running(os.getpid(), emulator.pid, endpoint.url, topology.name)
        )
        yield system


@contextmanager
def served(state: State) -> Iterator[Endpoint]:
    """An endpoint to read a state by: the running pipeline's, or an emulator's started for it."""
    running = state.running()
    if running is not None:
        yield Endpoint(running.url, _clients(running.url))
        return
    with state.owned(), _emulator(state, 0) as (endpoint, _):
        yield endpoint


@contextmanager
def _emulator(state: State, port: int) -> Iterator[tuple[Endpoint, Emulator]]:
    emulator = Emulator(state.root, port)
    emulator.start()
    try:
        yield Endpoint(emulator.url, _clients(emulator.url)), emulator
    finally:
        emulator.stop()


def _clients(url: str) -> Callable[[str], Any]:
    return cache(lambda service: client(service, url, max_pool_connections=CONNECTIONS_MAX))


def _wired(topology: Topology) -> list[Any]:
    """The functions, told the ARN of their workflow: what a deployment resolves for them."""
    arn = resources.workflow_arn(topology)
    return [
        replace(function, environment={**function.environment, "MILLRACE_WORKFLOW": arn})
        if "MILLRACE_WORKFLOW" in function.environment
        else function
        for function in topology.functions
    ]


