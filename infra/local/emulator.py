"""The AWS endpoint of the embedded default: `ministack` as a child process on loopback.

Its state lives in memory and is saved under the state directory when it is stopped; after a kill
only S3's objects remain. It is asked to stop, and so saves, also when its parent is killed.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import urllib.request
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.utils import parse_timestamp

from infra.local.child import STOP_SECONDS, Child

HOST = "127.0.0.1"
REGION = "us-east-1"
ACCOUNT = "000000000000"
START_SECONDS = 30.0
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


class EmulatorError(RuntimeError):
    """The emulator cannot be started or has died; the message says what to do."""


class Emulator:
    """One emulator over one state directory. `start` and `stop` come once each."""

    def __init__(self, state: Path, port: int = 0) -> None:
        self._state = state
        self._wanted = port
        self._process: Child | None = None
        self.url = ""

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start on the wanted port, or a free one, and return when it answers.

        Raises `EmulatorError`: the port is taken, or the process ended with its log's last lines.
        """
        port = _bindable(self._wanted)
        self._process = Child(
            "ministack",
            environment={
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
            log=self._state / "logs" / "emulator.log",
        )
        self.url = f"http://{HOST}:{port}"
        try:
            (self._state / PID_FILE).write_text(str(self._process.pid))
            self._await()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop it and wait until its state is saved, whatever is pressed. Idempotent."""
        if self._process is not None:
            self._process.stop()
            self._process = None
            (self._state / PID_FILE).unlink(missing_ok=True)

    def alive(self) -> bool:
        return self._process is not None and self._process.alive()

    def _await(self) -> None:
        until = time.monotonic() + START_SECONDS
        while not is_healthy(self.url):
            if self._process is None or not self.alive() or time.monotonic() > until:
                words = self._process.last_words() if self._process else ""
                raise EmulatorError(f"the emulator did not start; its log ends:\n{words}")
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
    session = botocore.session.Session(unread)
    parsers = session.get_component("response_parser_factory")
    parsers.set_parser_defaults(timestamp_parser=_moment)
    return boto3.Session(botocore_session=session)


def _moment(value: Any) -> datetime:
    """A time in UTC. In the local zone it costs two thirds of reading a record from Kinesis."""
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    return parse_timestamp(value)


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
