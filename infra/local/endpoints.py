"""What stands in for AWS here: the emulator, and the fast table where a state has one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from botocore.exceptions import BotoCoreError

from infra.local.emulator import Emulator, EmulatorError, client
from infra.local.fasttable.process import FastTable
from infra.local.resources import Client
from infra.local.state import FAST, State
from sinks.errors import SinkError

CONNECTIONS_MAX = 16


@dataclass(frozen=True)
class Endpoints:
    """What stands in for AWS: an emulator, and a table beside it where the state has one."""

    emulator: Emulator
    table: FastTable | None

    @property
    def table_url(self) -> str:
        """Where tables are; nothing where that is the emulator."""
        return self.table.url if self.table else ""

    @property
    def clients(self) -> Client:
        return clients_of(self.emulator.url, self.table_url)

    def dead(self) -> str:
        """The name of what has died, if something has."""
        if not self.emulator.alive():
            return "emulator"
        return "table" if self.table and not self.table.alive() else ""


@contextmanager
def endpoints_of(state: State, port: int = 0, wanted: str | None = None) -> Iterator[Endpoints]:
    """What a state has, started on it and stopped. `wanted` is the kind of its table, None any.

    Raises `EmulatorError`, `WrongTable`.
    """
    kind = state.table(wanted)
    emulator = Emulator(state.root, port)
    table: FastTable | None = None
    if kind != FAST:  # what a start that was cut short may have left
        shutil.rmtree(state.tables, ignore_errors=True)
    emulator.start()
    try:
        if kind == FAST:
            table = FastTable(state.tables, state / "logs" / "table.log", emulator.url)
            table.start()
        made = Endpoints(emulator, table)
        try:
            yield made
        except (SinkError, BotoCoreError) as error:
            if not (died := made.dead()):
                raise
            raise EmulatorError(f"the {died} has died; see {state / 'logs'}/{died}.log") from error
    finally:
        if table is not None:
            table.stop()
        emulator.stop()


def clients_of(url: str, table_url: str = "") -> Client:
    """Clients of the emulator, and of the table where that is another one."""
    return cache(
        lambda service: client(
            service,
            table_url if table_url and service == "dynamodb" else url,
            max_pool_connections=CONNECTIONS_MAX,
            parameter_validation=False,
        )
    )
