"""The AWS endpoint of the embedded default: `ministack` as a child process on loopback.

Its state lives in memory and is saved under the state directory when it is stopped; after a kill
only S3's objects remain. It is asked to stop, and so saves, also when its parent is killed.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import botocore.session
from botocore.config import Config

HOST = "127.0.0.1"
REGION = "us-east-1"
ACCOUNT = "000000000000"
START_SECONDS = 30.0
STOP_SECONDS = 120.0  # saving a million items takes a while, and losing them would be worse
POLL_SECONDS = 0.05
PID_FILE = "emulator.pid"

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",  # or StartSyncExecution asks for sync-127.0.0.1
}
"""What any AWS SDK needs beside the endpoint. The emulator checks no signature."""

NOT_ASKED_FOR = {
    "IOT_MTLS_ENABLED": "0",  # it would listen on all interfaces
    "SFTP_ENABLED": "0",
    "DOCKER_HOST": "unix:///dev/null/none",  # it would stop containers that it takes for its own
}
"""What the emulator does unless told not to."""

# Runs in the new process: the kernel sends SIGTERM, on which the state is saved, when the process
# that started it dies. The check is for a parent that died before the call.
BOOTSTRAP = """\
import ctypes, os, runpy, signal, sys
PR_SET_PDEATHSIG = 1
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
if os.getppid() != int(sys.argv.pop()):
    os._exit(1)
runpy.run_module("ministack", run_name="__main__")
"""


class EmulatorError(RuntimeError):
    """The emulator cannot be started or has died; the message says what to do."""


class Emulator:
    """One emulator over one state directory. `start` and `stop` come once each."""

    def __init__(self, state: Path, port: int = 0) -> None:
        self._state = state
        self._wanted = port
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start on the wanted port, or a free one, and return when it answers.

        Raises `EmulatorError`: the port is taken, or the process ended with its log's last lines.
        """
        port = _bindable(self._wanted)
        log = self._state / "logs" / "emulator.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        inherited = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR")}
        with log.open("ab") as out:
            self._process = subprocess.Popen(  # noqa: S603  our own interpreter
                [sys.executable, "-c", BOOTSTRAP, str(os.getpid())],
                env={
                    **inherited,
                    **ENVIRONMENT,
                    "BIND_HOST": HOST,
                    "GATEWAY_PORT": str(port),
                    "PERSIST_STATE": "1",
                    "STATE_DIR": str(self._state / "emulator"),
                    "S3_PERSIST": "1",
                    "S3_DATA_DIR": str(self._state / "s3"),
                    "LOG_LEVEL": "WARNING",
                    "NO_PROXY": "*",
                    **NOT_ASKED_FOR,
                },
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us; we then stop it
            )
        self.url = f"http://{HOST}:{port}"
        try:
            (self._state / PID_FILE).write_text(str(self._process.pid))
            self._await(log)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop it and wait until its state is saved, whatever is pressed. Idempotent."""
        if self._process is None:
            return
        with _uninterrupted():
            with suppress(ProcessLookupError):
                self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
            (self._state / PID_FILE).unlink(missing_ok=True)

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _await(self, log: Path) -> None:
        until = time.monotonic() + START_SECONDS
        while not is_healthy(self.url):
            if not self.alive() or time.monotonic() > until:
                tail = log.read_text(errors="replace").splitlines()[-5:]
                raise EmulatorError("the emulator did not start; its log ends:\n" + "\n".join(tail))
            time.sleep(POLL_SECONDS)


def client(service: str, url: str, **config: Any) -> Any:
    """A boto3 client of the emulator, blind to the caller's own profile, region and proxies."""
    return _session().client(
        service,
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
        config=Config(
            **{
                "inject_host_prefix": False,
                "proxies": {},
                "retries": {"mode": "standard", "total_max_attempts": 3},
                **config,
            }
        ),
    )


@cache
def _session() -> Any:
    """A session that reads none of the caller's files: a broken one is not our affair."""
    unread = {
        "profile": (None, None, None, None),
        "config_file": (None, None, os.devnull, None),
        "credentials_file": (None, None, os.devnull, None),
    }
    return boto3.Session(botocore_session=botocore.session.Session(unread))


def is_healthy(url: str) -> bool:
    """Whether a ministack answers there."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/_ministack/health", timeout=5) as answer:
            return "services" in json.load(answer)
    except (OSError, ValueError):
        return False


def stop_stale(state: Path) -> bool:
    """Stop this state's emulator if it outlived whoever started it; whether there was one.

    It is waited for: a new one must not read the state before the old one has saved it.
    """
    try:
        pid = int((state / PID_FILE).read_text())
    except (OSError, ValueError):
        return False
    if not serves(pid, state):
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + STOP_SECONDS
    while serves(pid, state):
        if time.monotonic() > until:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)
    return True


def serves(pid: int, state: Path) -> bool:
    """Whether this process is an emulator over this state; a zombie has no environment."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"STATE_DIR={state / 'emulator'}".encode() in environment


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


def _bindable(port: int) -> int:
    """The port, proven free, or any free one for 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise EmulatorError(
                f"port {port} of {HOST} is taken ({error.strerror}); stop what listens there, or "
                "leave out --port for a free one"
            ) from None
        return int(probe.getsockname()[1])
