"""The path of a few records through functions that run from their bundles alone."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from infra.bundles import MB, bundle, handlers, write
from loadtests.bench.local import Endpoint
from loadtests.bench.traffic import traffic

STARTED = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
module, _, name = sys.argv[2].rpartition(".")
payload = json.load(sys.stdin)
class Context:
    function_name = "bench"
    def get_remaining_time_in_millis(self):
        return 60_000
answer = getattr(importlib.import_module(module), name)(payload, Context())
files = [getattr(module, "__file__", None) or "" for module in sys.modules.values()]
assert not [file for file in files if "site-packages" in file]
print(json.dumps(answer))
"""
STANDARD = ("boto3", "botocore", "s3transfer", "jmespath", "python-dateutil", "six", "urllib3")
STANDARD += ("aws-lambda-powertools", "typing-extensions", "pyarrow", "pydantic", "pydantic-core")
STANDARD += ("annotated-types", "typing-inspection", "aws-kinesis-agg", "protobuf")


def make(folder: Path) -> dict[str, float]:
    """A bundle for each function; returns their sizes in MB."""
    packages = Path(sysconfig.get_path("platlib"))
    return write({name: bundle(one, packages) for name, one in handlers().items()}, folder)


def through(endpoint: Endpoint, folder: Path) -> dict[str, Any]:
    """A good and some bad records through ingest, Transform and Hot, each from its bundle alone."""
    event = json.loads(traffic(100, kpl=True, malformed=0.2).event)
    started(endpoint.environment, folder, "ingest-stream", event)
    state = endpoint.told()["state"]
    done = started(endpoint.environment, folder, "transform", state)
    state |= {"transform": done, "account": done["account"]}
    state["hot"] = started(endpoint.environment, folder, "hot", state)
    return state  # type: ignore[no-any-return]


def started(environment: Mapping[str, str], folder: Path, name: str, payload: Any) -> Any:
    """What a handler answers in a process that has the standard library and its bundle alone."""
    command = [sys.executable, "-I", "-S", "-c", STARTED, str(folder / name), handlers()[name]]
    done = subprocess.run(  # noqa: S603  our own
        command,
        env=dict(environment),
        cwd=folder,
        input=json.dumps(payload),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name} does not run from its bundle: {done.stderr[-2_000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def standard_mb() -> float:
    """What the baseline's distributions come to as they are installed, without bytecode."""
    files = (file for name in STANDARD for file in distribution(name).files or ())
    paths = (Path(str(file.locate())) for file in files if file.suffix != ".pyc")
    return round(sum(path.stat().st_size for path in paths if path.is_file()) / MB, 1)
