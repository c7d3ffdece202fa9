"""Fresh processes of functions: what a cold start costs, and how much memory an event takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.bench.local import Endpoint
from loadtests.bench.traffic import traffic
from loadtests.machine import CLIENT_CORE, ROOT

BASELINE = "baseline"
FUNCTIONS = {
    BASELINE: "loadtests.bench.baseline",
    "ingest": "ingest.handlers.kinesis",
    "transform": "ingest.handlers.transform",
    "hot": "ingest.handlers.hot",
}
CLIENTS = {"ingest": "bucket,workflow", "transform": "bucket", "hot": "bucket,hot_table"}
"""What of the wiring a function makes for its first record; the baseline's are made on import."""

ORDINARY = "ordinary records"


@dataclass(frozen=True)
class Started:
    """What a process said, its CPU milliseconds from start to end, its peak of resident memory."""

    answer: Any
    millis: float
    peak_mb: float


def start(environment: Mapping[str, str], *arguments: str) -> Started:
    """Run `fresh` to its end, on the client's core."""
    command = [sys.executable, "-m", "loadtests.bench.fresh", *arguments]
    with subprocess.Popen(  # noqa: S603  our own
        command,
        cwd=ROOT,
        env=dict(environment),
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {CLIENT_CORE}),  # noqa: PLW1509  no threads
    ) as process:
        assert process.stdout is not None  # noqa: S101  it is a pipe
        told = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{arguments} ended with {process.returncode}")
    found = json.loads(told.rstrip().rpartition("\n")[2])
    return Started(found["answer"], (usage.ru_utime + usage.ru_stime) * 1_000, found["peak_mb"])


def cold(endpoint: Endpoint, folder: Path, rounds: int) -> dict[str, dict[str, list[float]]]:
    """CPU milliseconds before the first record (`ready`) and with it (`first`), less a bare start.

    Functions take turns. Bytecode is there, as in a bundle that was compiled.
    """
    environment = endpoint.environment
    event = folder / "one.json"
    event.write_bytes(traffic(1, kpl=False).event)
    payloads = {name: file for name, file, _ in _through(endpoint, environment, event)}
    payloads[BASELINE] = event
    found: dict[str, dict[str, list[float]]] = {n: {"ready": [], "first": []} for n in FUNCTIONS}
    start(environment, FUNCTIONS[BASELINE])  # bytecode; ours was made on the way to the payloads
    for _ in range(rounds):
        bare = start(environment).millis
        for name, module in FUNCTIONS.items():
            ready = start(environment, module, *([CLIENTS[name]] if name in CLIENTS else []))
            first = start(environment, module, "handler", str(payloads[name]))
            found[name]["ready"].append(ready.millis - bare)
            found[name]["first"].append(first.millis - bare)
    return found


def peaks(
    endpoint: Endpoint, folder: Path, records: int, shapes: Sequence[str]
) -> dict[str, dict[str, float]]:
    """MB by shape of the event and stage: an ordinary event, and worst shapes of the tests."""
    event = folder / "event.json"
    event.write_bytes(traffic(records, kpl=False).event)
    events = {ORDINARY: (event, endpoint.environment)} | _worst(endpoint, folder, shapes)
    found = {}
    for shape, (file, environment) in events.items():
        endpoint.set()
        told = _through(endpoint, environment, file)
        found[shape] = {name: started.peak_mb for name, _, started in told}
    endpoint.set()
    base = start(endpoint.environment, FUNCTIONS[BASELINE], "handler", str(event))
    return {ORDINARY: found.pop(ORDINARY) | {BASELINE: base.peak_mb}} | found


def _through(
    endpoint: Endpoint, environment: Mapping[str, str], event: Path
) -> Iterator[tuple[str, Path, Started]]:
    """An event through each function in a fresh process: its name, its payload, how it went."""
    started = start(environment, FUNCTIONS["ingest"], "handler", str(event))
    yield "ingest", event, started
    state = endpoint.told()["state"]
    file = event.with_suffix(".transform")
    file.write_text(json.dumps(state))
    started = start(environment, FUNCTIONS["transform"], "handler", str(file))
    yield "transform", file, started
    state |= {"transform": started.answer, "account": started.answer["account"]}
    if not started.answer["hot_rows"]:
        return
    file = event.with_suffix(".hot")
    file.write_text(json.dumps(state))
    yield "hot", file, start(environment, FUNCTIONS["hot"], "handler", str(file))


def _worst(
    endpoint: Endpoint, folder: Path, shapes: Sequence[str]
) -> dict[str, tuple[Path, dict[str, str]]]:
    """Events of the tests' worst shapes, and the environment with their contract."""
    if not shapes:
        return {}
    worst = folder / "worst"
    command = [sys.executable, "-m", "tests.worst_shapes", "--write", str(worst), *shapes]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)  # noqa: S603  our own
    environment = endpoint.environment | {"MILLRACE_CONTRACT": str(worst / "contract.toml")}
    return {shape: (worst / f"{n}.json", environment) for n, shape in enumerate(shapes)}
