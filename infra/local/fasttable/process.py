"""The fast table as a process beside the emulator, started and stopped."""

from __future__ import annotations

import socket
import time
import urllib.request
from pathlib import Path

import infra
from infra.local.child import Child
from infra.local.emulator import ENVIRONMENT, HOST, EmulatorError
from infra.local.fasttable import server
from infra.topology import LEDGER

START_SECONDS = 120.0  # a million items are read anew
POLL_SECONDS = 0.02
CODE = Path(infra.__file__).resolve().parents[1]


class FastTable:
    """Serves the tables under `directory`, but for the ledger, which the emulator keeps.

    What a workflow writes, the emulator writes within itself. `start` and `stop` come once each.
    """

    def __init__(self, directory: Path, log: Path, emulator_url: str) -> None:
        self._directory, self._log, self._emulator_url = directory, log, emulator_url
        self._process: Child | None = None
        self.url = ""

    def start(self) -> None:
        """Return when it answers. Raises `EmulatorError` with the end of its log."""
        with socket.create_server((HOST, 0), backlog=1_024) as listener:
            self.url = f"http://{HOST}:{listener.getsockname()[1]}"
            arguments = (str(listener.fileno()), str(self._directory), self._emulator_url, LEDGER)
            self._process = Child(
                server.__name__,
                arguments,
                environment={**ENVIRONMENT, "PYTHONPATH": str(CODE)},
                log=self._log,
                sockets=[listener.fileno()],
            )
        try:
            self._await()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Idempotent."""
        if self._process is not None:
            self._process.stop()

    def alive(self) -> bool:
        return self._process is not None and self._process.alive()

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def _await(self) -> None:
        until = time.monotonic() + START_SECONDS
        while not is_healthy(self.url):
            if self._process is None or not self.alive() or time.monotonic() > until:
                words = self._process.last_words() if self._process else ""
                raise EmulatorError(f"the fast table did not start; its log ends:\n{words}")
            time.sleep(POLL_SECONDS)


def is_healthy(url: str) -> bool:
    """Whether a fast table answers there."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=POLL_SECONDS * 50) as answer:
            return bool(answer.read() == server.HEALTHY)
    except OSError:
        return False
