"""An all-bad file pauses its source; `millrace resume` goes on, and no record is lost (law 9)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import reading

ROOT = Path(__file__).parent.parent
SECONDS = 120.0
COMMAND = (sys.executable, "-m", "infra.cli")


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def millrace(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=home,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


def rows(home: Path, sql: str) -> list[dict[str, Any]]:
    return list(json.loads(millrace(home, "query", sql, "--json").stdout))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    now = int(time.time()) * 1_000_000
    bad = [reading(f"d-{n % 10}", now, n, ts="soon") for n in range(200)]
    (tmp_path / "bad.ndjson").write_bytes(b"\n".join(bad))
    good = [reading(f"d-{n % 10}", now, n) for n in range(20)]
    (tmp_path / "good.ndjson").write_bytes(b"\n".join(good))
    return tmp_path


@pytest.fixture
def up(home: Path) -> Iterator[subprocess.Popen[str]]:
    """`millrace up`, until its test is done. What it says goes to a file."""
    with (
        (home / "up.out").open("w") as out,
        subprocess.Popen([*COMMAND, "up"], cwd=home, env=environment(), stdout=out) as running,
    ):
        until(lambda: "Ctrl-C stops it" in (home / "up.out").read_text())
        yield running
        stop(running)


def until(true: Any) -> None:
    limit = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < limit, "it never came to that"
        time.sleep(0.2)


def stop(running: subprocess.Popen[str]) -> None:
    if running.poll() is None:
        running.send_signal(signal.SIGINT)
    running.wait(SECONDS)


def ingested(home: Path, name: str) -> subprocess.CompletedProcess[str]:
    return millrace(home, "ingest", name, "--contract", "telemetry")


WHY = "200 of 200 records break contract telemetry, most for bad_timestamp (event_time)"


def test_an_all_bad_file_pauses_what_runs_until_it_is_accepted(
    home: Path, up: subprocess.Popen[str]
):
    for name in ("bad.ndjson", "good.ndjson"):
        done = ingested(home, name)
        assert done.returncode == 5
        assert WHY in done.stderr
        assert "`millrace resume --accept telemetry --until TIME`" in done.stderr
    until(lambda: "is paused" in (home / "up.out").read_text())
    assert rows(home, "SELECT * FROM quarantine") == []
    done = millrace(home, "resume", "--accept", "telemetry", "--until", "2100-01-01")
    assert (done.returncode, done.stderr) == (0, "")
    assert WHY in done.stdout
    assert "stream/millrace-telemetry" in done.stdout
    until(lambda: rows(home, "SELECT count(*) n FROM quarantine") == [{"n": 200}])
    assert ingested(home, "good.ndjson").returncode == 0
    stop(up)
    assert millrace(home, "verify").returncode == 0
    assert millrace(home, "resume").stdout == "Nothing was paused.\n"


def test_a_paused_state_is_resumed_where_nothing_runs(home: Path):
    assert ingested(home, "bad.ndjson").returncode == 5
    assert millrace(home, "verify").returncode == 0
    assert ingested(home, "good.ndjson").returncode == 5
    assert "Resumed" in millrace(home, "resume").stdout
    done = ingested(home, "good.ndjson")
    assert done.returncode == 5, "the same records stop it again"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--accept", "telemetry"), "--accept and --until go together"),
        (("--until", "2030-01-01"), "--accept and --until go together"),
        (("--accept", "telemetry", "--until", "soon"), "--until: "),
        ((), "holds no records yet"),
    ],
)
def test_what_resume_cannot_do(tmp_path: Path, arguments: tuple[str, ...], says: str):
    done = millrace(tmp_path, "resume", *arguments)
    assert done.returncode in (2, 4)
    assert says in done.stderr
