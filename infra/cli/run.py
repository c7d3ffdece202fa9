"""What all commands share: options, exit codes, and errors that end in one clear message."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from botocore.exceptions import BotoCoreError, ClientError

from infra.charts import ChartError, NoCharts
from infra.cli import INTERRUPTED
from infra.contracts.samples import SampleError
from infra.erasing.erase import CannotErase
from infra.lake import QueryError
from infra.local import preflight
from infra.local.emulator import EmulatorError
from infra.local.invoke_api import LambdaError
from infra.local.state import DEFAULT, TABLES, State, StateError, WrongTable
from ingest.producer import ProducerError
from sinks.errors import Refused, SinkError
from sinks.lake.columns import Clash
from sinks.lake.manifest import Raced
from transform.contract_file import ContractError

OK, UNACCOUNTED, WRONG_INPUT, TIMED_OUT, CANNOT_RUN, PAUSED = 0, 1, 2, 3, 4, 5


class Paused(RuntimeError):
    """The breaker has stopped what the command waits for; the message says why and what to do."""


WRONG = (
    CannotErase,
    ChartError,
    Clash,
    ContractError,
    QueryError,
    ProducerError,
    SampleError,
    WrongTable,
)
UNABLE = (
    EmulatorError,
    LambdaError,
    NoCharts,
    StateError,
    SinkError,
    preflight.PreflightError,
    BotoCoreError,
    ClientError,
    Raced,
    Refused,
)

F = TypeVar("F", bound=Callable[..., Any])


class Group(click.Group):
    """A command group whose known errors are one message and an exit code, never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        logging.disable(logging.WARNING)
        # SIGINT too: a shell that starts us in the background has it ignored.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _interrupt)
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # else somebody said nohup
            signal.signal(signal.SIGHUP, _interrupt)
        try:
            return super().invoke(ctx)
        except WRONG as error:
            fail(str(error), WRONG_INPUT)
        except Paused as error:
            fail(str(error), PAUSED)
        except UNABLE as error:
            fail(str(error), CANNOT_RUN)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left is to leave
            fail("interrupted; everything that was started is stopped", INTERRUPTED)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(OK)
        except OSError as error:
            fail(f"{error.filename or 'a system call'}: {error.strerror}", CANNOT_RUN)


def fail(message: str, code: int) -> None:
    """Say what is wrong on stderr and exit."""
    click.echo(f"millrace: {message}", err=True)
    sys.exit(code)


def state_option(function: F) -> F:
    """`--state DIR`, as a `State`."""
    return click.option(
        "--state",
        "state",
        metavar="DIR",
        default=str(DEFAULT),
        show_default=True,
        callback=lambda _ctx, _param, value: State(Path(value)),
        help="Directory that holds the pipeline's state.",
    )(function)


def table_option(function: F) -> F:
    """`--table`, None where it is not said."""
    return click.option(
        "--table",
        type=click.Choice(TABLES),
        help=(
            "Who serves the hot table: the emulator, or a table of our own that is not the "
            "bottleneck.  [default: what the state was begun with, else emulator]"
        ),
    )(function)


def state_hint(state: State) -> str:
    """What to add to a command to mean this state: nothing where it is the default."""
    return "" if state.root == DEFAULT.absolute() else f" --state {shlex.quote(str(state.root))}"


def json_option(function: F) -> F:
    """`--json`, for machines."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON for machines; progress goes to stderr."
    )(function)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
