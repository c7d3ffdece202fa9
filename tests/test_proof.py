"""The proof on the embedded pipeline, through the command line: what is taken away is named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.local.embedded import served
from infra.local.state import State
from infra.topology import LEDGER

ROOT = Path(__file__).parent.parent
MOMENT = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=1)


def reading(device: str, celsius: float) -> str:
    message = {"device_id": device, "ts": int(MOMENT.timestamp()) * 1_000, "seq": 1}
    return json.dumps(message | {"readings": {"temperature": celsius}})


LINES = [reading("d-1", 21.5), reading("d-2", 999), reading("d-3", 998), "[1]\x1b[2J"]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Home:
    state: Path

    def run(self, *arguments: str) -> Done:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "COLUMNS"))}
        done = subprocess.run(
            [sys.executable, "-m", "infra.cli", *arguments, "--state", str(self.state)],
            env={**inherited, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").out.splitlines()[-1])

    def objects(self, prefix: str) -> list[Path]:
        return sorted((self.state / "s3").glob(f"*/millrace/{prefix}/**/*.parquet"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """A stopped state of a few records by both sources."""
    folder = tmp_path_factory.mktemp("proof")
    file = folder / "records.ndjson"
    file.write_text("\n".join(LINES))
    home = Home(folder / "state")
    done = home.run("ingest", str(file), "--contract", "telemetry", "--timeout", "60")
    assert done.code == 0, done.err
    return home.state


@pytest.fixture
def home(kept: Path, tmp_path: Path) -> Home:
    shutil.copytree(kept, tmp_path / "state")
    return Home(tmp_path / "state")


def test_a_state_is_proven_and_a_deleted_object_is_named(home: Home):
    whole = home.run("verify")
    assert whole.code == 0, whole.out
    assert "Proven in" in whole.out
    assert "stream millrace-telemetry: read again" in whole.out
    [landed] = home.objects("landing")
    landed.unlink()
    broken = home.run("verify")
    assert broken.code == 1
    assert f"landing/{landed.relative_to(landed.parents[3])}" in broken.out.replace("\n", "")
    assert "missing: record (1)" in broken.out
    assert "things are wrong" in broken.out


def test_a_sweep_finds_nothing_that_is_not_owed(home: Home):
    assert home.json("sweep") == {
        "telemetry": {"debts": 0, "rows": 0, "left": 0, "objects": []},
    }
    assert home.run("sweep", "--dry-run").out == (
        "telemetry: 0 hot rows would be owed, in 0 debts\n"
    )


def test_a_deleted_ledger_item_is_named(home: Home):
    state = State(home.state)
    with served(state) as client:
        dynamodb = client("dynamodb")
        item = dynamodb.scan(TableName=LEDGER)["Items"][0]
        dynamodb.delete_item(TableName=LEDGER, Key={name: item[name] for name in ("pk", "sk")})
    done = home.run("verify", "--json")
    report = json.loads(done.out.splitlines()[-1])
    assert (done.code, report["proven"]) == (1, False)
    assert [(f["check"], f["name"]) for f in report["findings"]] == [
        ("ledger", item["raw_key"]["S"])
    ]


def test_the_quarantine_and_one_records_story(home: Home):
    groups = home.json("quarantine", "list")
    assert {(g["_reason"], g["rejects"]) for g in groups} == {
        ("out_of_range", 2),
        ("malformed_json", 1),
    }
    one = next(g["fingerprint"] for g in groups if g["_reason"] == "malformed_json")
    shown = home.run("quarantine", "show", one)
    assert r"[1]\x1b[2J" in shown.out
    assert "millrace replay --dry-run" in shown.out.replace("\n", " ")
    [row] = home.json("quarantine", "show", one)
    assert row["_open"]
    position = f"{row['_stream']}/{row['_shard']}/{row['_sequence']}"
    [story] = home.json("why", position)
    assert (story["fate"], story["elements"][0]["verdict"]) == ("quarantined", "malformed_json")
    told = home.run("why", f"d-1/{MOMENT:%Y-%m-%dT%H:%M:%S}.000000Z/1")
    assert "element 0/0 of 1 delivered" in told.out
    assert f"hot       d-1#{MOMENT:%Y-%m-%d}" in told.out
