"""`millrace export` and `millrace erase` on the embedded default, as a user types them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

from tests.edge import HOT
from tests.support import SECOND, reading

ROOT = Path(__file__).parent.parent
IT = "a-device-to-forget"
SPAN = ("--from", "1970-01-01", "--to", "2100-01-01")


def test_a_device_is_exported_and_erased(tmp_path: Path) -> None:
    file, out = tmp_path / "readings.ndjson", tmp_path / "it.csv"
    now = int(time.time()) * SECOND
    it = [reading(IT, now + n * SECOND, seq=n) for n in range(4)]
    others = [reading("other", now, seq=n) for n in range(3)]
    file.write_bytes(b"\n".join([*it, *others, it[0], reading(IT, now, seq=9, **HOT)]))

    def millrace(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "infra.cli", *arguments, "--state", str(tmp_path / "state")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    millrace("ingest", str(file), "--contract", "telemetry", "--aggregate")
    millrace("compact", "--iceberg")
    millrace("export", "--device", IT, *SPAN, "--out", str(out))
    with out.open(newline="") as lines:
        assert [row["sequence"] for row in csv.DictReader(lines)] == ["0", "1", "2", "3"]
    told = json.loads(millrace("erase", "--device", IT, "--yes", "--json"))
    assert told["counts"].pop("raw") > 0  # however it was aggregated
    counts = {"landing": 5, "quarantine": 1, "lake": 4, "lake_repeats": 1, "hot": 4}
    assert (told["erased"], told["counts"]) == (True, counts)
    proof = json.loads(millrace("verify", "--json"))
    assert proof["proven"]
    assert (proof["counts"]["landing_rows"], proof["counts"]["hot_items"]) == (3, 3)
    objects = [one for one in (tmp_path / "state" / "s3").rglob("*") if one.is_file()]
    assert not [one for one in objects if IT.encode() in one.read_bytes()]
    tables = [one for one in objects if one.match("telemetry/iceberg/metadata/*.metadata.json")]
    newest = json.loads(max(tables, key=lambda one: one.stat().st_mtime).read_bytes())
    [shown] = newest["snapshots"]
    assert shown["summary"]["millrace.version"] == "2"
