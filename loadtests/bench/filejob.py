"""The file job: the same NDJSON file through Millrace and through its peers, in turns on one core.

A peer runs in an environment of its own. One that cannot be had is told and left out. DuckDB is a
dependency of Millrace anyway.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from loadtests.bench.equality import plain_value
from loadtests.bench.traffic import messages
from loadtests.environments import Environment
from loadtests.machine import CLIENT_CORE, ROOT
from loadtests.spread import Spread

OURS, DUCKDB = "millrace", "DuckDB"
DROPPED_FOR = (None, "out_of_range", "not_allowed")  # what is good, and what every peer can judge
BAD_SHARE = 0.01
PEERS = Path(__file__).parent / "peers"
JOB_SECONDS_MAX = 300
TIME_CHARACTERS = len("2026-11-24T12:00:00.000000Z")


@dataclass(frozen=True)
class Peer:
    """A way to do the job: its script, and its environment where it has its own."""

    name: str
    script: str
    environment: Environment | None = None

    @property
    def python(self) -> Path:
        return self.environment.python if self.environment else Path(sys.executable)


CONTENDERS = (
    Peer(OURS, "millrace"),
    Peer(DUCKDB, "duckdb_sql"),
    Peer("polars", "polars_lazy", Environment("polars")),
    Peer("bytewax", "bytewax_flow", Environment("bytewax")),
    Peer("pathway", "pathway_table", Environment("pathway")),
    Peer("dlt", "dlt_pipeline", Environment("dlt")),
)


@dataclass
class Job:
    """What a contender needed, CPU microseconds a record by round, and whether its output is ours.

    `absent` says why it was not measured.
    """

    rounds: list[float] = field(default_factory=list)
    items: bool | None = None
    rows: bool | None = None
    absent: str = ""

    @property
    def spread(self) -> Spread:
        return Spread.of(self.rounds)


def measure(
    folder: Path, records: int, rounds: int, peer_rounds: int, *, install: bool
) -> dict[str, Job]:
    """Every contender that is there, or can be installed if that is wanted.

    `peer_rounds` are of those that have environments of their own; of 0 none is measured.
    """
    lines = folder / "lines.ndjson"
    count = write_lines(lines, records)
    jobs = {peer.name: Job() for peer in CONTENDERS}
    present = list(_present(jobs, install=install, peers=peer_rounds > 0))
    for number in range(rounds):
        for peer in tuple(present):
            if peer.environment and number >= peer_rounds:
                continue
            rest = folder / peer.script
            shutil.rmtree(rest, ignore_errors=True)
            rest.mkdir()
            told = _run(peer, lines, rest)
            if isinstance(told, str):
                jobs[peer.name].absent = told
                present.remove(peer)
                continue
            jobs[peer.name].rounds.append(told["cpu"] / count * 1e6)
            if not number:
                _compare(jobs[peer.name], folder / OURS, rest)
    return jobs


def ratio(jobs: dict[str, Job], over: str) -> Spread:
    """Millrace's CPU over a peer's, round by round."""
    pairs = zip(jobs[OURS].rounds, jobs[over].rounds, strict=True)
    return Spread.of([ours / theirs for ours, theirs in pairs])


def write_lines(file: Path, records: int) -> int:
    """About so many lines, a few of them with values that the contract does not take."""
    made = [m.body for m in messages(records, BAD_SHARE) if m.planted in DROPPED_FOR]
    file.write_bytes(b"".join(body + b"\n" for body in made))
    return len(made)


def _present(jobs: dict[str, Job], *, install: bool, peers: bool) -> Iterator[Peer]:
    for peer in CONTENDERS:
        why = ""
        if peer.environment:
            why = peer.environment.lack(install=install) if peers else "not asked for"
        if why:
            jobs[peer.name].absent = why
        else:
            yield peer


def _run(peer: Peer, lines: Path, rest: Path) -> dict[str, float] | str:
    """What the job took, or why it was not done."""
    own = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    own |= {"POLARS_MAX_THREADS": "1", "PATHWAY_THREADS": "1"}
    if not peer.environment:
        own["PYTHONPATH"] = str(ROOT)
    command = [peer.python, PEERS / f"{peer.script}.py", lines, rest]
    try:
        done = subprocess.run(  # noqa: S603  our own scripts
            command,
            env=own,
            cwd=rest,
            capture_output=True,
            text=True,
            check=False,
            timeout=JOB_SECONDS_MAX,
            preexec_fn=lambda: os.sched_setaffinity(0, {CLIENT_CORE}),
        )
    except subprocess.TimeoutExpired:
        return f"not done within {JOB_SECONDS_MAX} s"
    if done.returncode:
        return "failed: " + done.stderr.strip().rpartition("\n")[2][:200]
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def _compare(job: Job, ours: Path, theirs: Path) -> None:
    """Whether their output is ours; None where there is none."""
    items, rows = items_of(theirs), rows_of(theirs)
    job.items = items == items_of(ours) if items else None
    job.rows = rows.equals(rows_of(ours)) if rows is not None else None


def items_of(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Items by device's day, time and sequence, whatever else a sort key holds."""
    files = [*folder.glob("items.json"), *folder.glob("items/job/items/*.jsonl")]
    found = {}
    for file in files:
        for line in file.read_bytes().splitlines():
            item = {k: v for k, v in _item(orjson.loads(line)).items() if k[:4] != "_dlt"}
            plain = {name: plain_value(value) for name, value in item.items()}
            plain["sk"] = f"{plain['sk'][:TIME_CHARACTERS]}#{plain['sequence']}"
            found[plain["pk"], plain["sk"]] = plain
    return found


def _item(line: dict[str, Any]) -> dict[str, Any]:
    if "PutRequest" in line:
        return line["PutRequest"]["Item"]  # type: ignore[no-any-return]
    return orjson.loads(line["item"]) if isinstance(line.get("item"), str) else line  # type: ignore[no-any-return]


def rows_of(folder: Path) -> pa.Table | None:
    """The contract's fields of all rows, by device and sequence, in the types of the contract."""
    files = sorted([*folder.glob("rows*.parquet"), *folder.glob("rows/job/rows/*.parquet")])
    if not files:
        return None
    tables = [pq.ParquetFile(file).read(columns=FIELDS.names).cast(FIELDS) for file in files]
    order = [("device_id", "ascending"), ("sequence", "ascending")]
    return pa.concat_tables(tables).sort_by(order).combine_chunks()


FIELDS = pa.schema(
    [
        *((name, pa.string()) for name in ("device_id", "firmware", "status")),
        ("event_time", pa.timestamp("us", tz="UTC")),
        *((name, pa.int64()) for name in ("sequence", "signal")),
        *((name, pa.float64()) for name in ("temperature", "humidity", "pressure", "wind_speed")),
        *((name, pa.float64()) for name in ("wind_direction", "rain", "battery")),
        *((name, pa.float64()) for name in ("latitude", "longitude")),
        ("charging", pa.bool_()),
    ]
)


def told(jobs: dict[str, Job]) -> Sequence[str]:
    """Contenders whose output is not ours, in words."""
    return [
        f"{name}: {what} differ"
        for name, job in jobs.items()
        for what, same in (("items", job.items), ("rows", job.rows))
        if same is False
    ]
