"""A Python module as a child process that ends with its parent, and is let finish when stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

STOP_SECONDS = 120.0  # saving a million items takes a while, and losing them would be worse
TAIL_LINES = 5

# Runs in the new process: the kernel sends SIGTERM, on which the state is saved, when the process
# that started it dies. The check is for a parent that died before the call.
BOOTSTRAP = """\
import ctypes, os, runpy, signal, sys
PR_SET_PDEATHSIG = 1
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
if os.getppid() != int(sys.argv.pop(1)):
    os._exit(1)
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""

INHERITED = ("PATH", "HOME", "LANG", "TMPDIR")


class Child:
    """One process, started when made. Its output is appended to `log`."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str] = (),
        *,
        environment: Mapping[str, str],
        log: Path,
        sockets: Sequence[int] = (),
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        with log.open("ab") as out:
            self._process = subprocess.Popen(  # noqa: S603  our own interpreter
                [sys.executable, "-c", BOOTSTRAP, str(os.getpid()), module, *arguments],
                env={**inherited, **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us; we then stop it
                pass_fds=sockets,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """Stop it and wait until its state is saved, whatever is pressed. Idempotent."""
        with _uninterrupted():
            with suppress(ProcessLookupError):
                self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-TAIL_LINES:])


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait, where they can be made to: what is half saved is lost."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = {number: signal.signal(number, signal.SIG_IGN) for number in held}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
