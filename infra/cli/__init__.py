"""`millrace`, the command line. One file per command; what they share is in `shown` and `run`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130  # as shells report a process that SIGINT ended


def main() -> None:
    """The console script. Commands are imported inside, so that Ctrl-C is quiet from the start."""
    try:
        with _interrupts_held():
            from infra.cli.commands import group  # noqa: PLC0415  a second of imports

        group(prog_name="millrace")
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough
        sys.stderr.write("millrace: interrupted\n")
        sys.exit(INTERRUPTED)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let a Ctrl-C wait for the end: one in the midst of a native module's import is not quiet."""
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        raise KeyboardInterrupt
