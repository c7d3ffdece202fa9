"""`millrace replay` and `millrace reprocess` on the embedded default, as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.edge import HOT, WIDER, rules
from tests.support import reading

ROOT = Path(__file__).parent.parent


def test_a_reject_is_mended_replayed_and_its_day_reprocessed(tmp_path) -> None:
    file, state = tmp_path / "readings.ndjson", str(tmp_path / "state")
    file.write_bytes(b"\n".join([reading(seq=1, ts=1), reading(seq=2, ts=2, **HOT), b"no"]))

    def millrace(*arguments: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "infra.cli", *arguments, "--state", state, "--json"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert millrace("ingest", str(file), "--contract", "telemetry")["quarantined"]["total"] == 2
    mended = rules(tmp_path, WIDER)
    told = millrace("replay", "--contract", mended, "--dry-run")
    assert (told["would_pass"], told["would_fail"]) == (1, 1)
    first = millrace("replay", "--contract", mended, "--run-id", "mine")
    assert (first["delivered"], first["quarantined"]) == (1, 1)
    shown = millrace("quarantine", "show", "--all")
    assert {row["_replay"] for row in shown} == {"mine", None}
    span = ("--from", today, "--to", "2100-01-01", "--contract", mended)
    report = millrace("reprocess", *span)
    assert (report["epoch"], report["complete"], report["after"]["delivered"]) == (1, True, 2)
    millrace("verify")  # exits with 0: every record still has exactly one place
