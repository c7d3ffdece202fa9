"""`millrace compact`, `seal` and `partitions` on the embedded default, as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.support import SECOND, reading

ROOT = Path(__file__).parent.parent
HOUR = 3_600 * SECOND


def test_an_hour_of_a_stopped_state_is_sealed_and_shown(tmp_path) -> None:
    file, state = tmp_path / "readings.ndjson", str(tmp_path / "state")
    hour = int(time.time()) * SECOND // HOUR * HOUR - 2 * HOUR
    moments = {n: hour + n * SECOND for n in (0, 1, 2, 4)}
    file.write_bytes(b"\n".join(reading(moment=at, seq=n) for n, at in moments.items()))

    def millrace(*arguments: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "infra.cli", *arguments, "--state", state],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    millrace("ingest", str(file), "--contract", "telemetry")
    millrace("compact")
    [done] = millrace("seal", "--lateness", "1s", "--json")
    assert (done["newly"], done["sealed"], done["missing"]) == (1, 1, 0)
    assert all(one["until"] and one["exact"] for one in done["watermarks"])
    [told] = millrace("partitions", "--sealed", "--json")
    [after] = told["partitions"]
    assert (after["rows"], after["ids"], after["conflicts"]) == (4, 4, 0)
    assert after["completeness"] == {"seen": 4, "counted": 5}
    assert after["sealed"] == {
        "as_of": done["as_of"],
        "sealed_at": after["sealed"]["sealed_at"],
        "exact": True,
        "missing": 0,
    }
    assert f"sealed as of {done['as_of']}" in millrace("partitions")
    millrace("verify")  # exits with 0: markers are accounted for
