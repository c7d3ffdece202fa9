"""Handlers that test_local_lambdas.py runs in real worker processes."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any


class NotToday(Exception):
    """An exception of the function's own."""


def echo(event: Any, _context: Any) -> Any:
    return event


def fail(_event: Any, _context: Any) -> Any:
    raise NotToday("no sun")


def act(event: dict[str, Any], context: Any) -> Any:
    """Do what the event names."""
    match event["do"]:
        case "describe":
            return {
                "pid": os.getpid(),
                "environment": dict(os.environ),
                "directory": str(Path.cwd()),
                "request_id": context.aws_request_id,
                "arn": context.invoked_function_arn,
                "memory_mb": context.memory_limit_in_mb,
                "remaining_ms": context.get_remaining_time_in_millis(),
            }
        case "sleep":
            if "sign" in event:
                Path(event["sign"]).touch()
            started = time.monotonic()  # one clock for all processes of a machine
            time.sleep(event["seconds"])
            return {"pid": os.getpid(), "from": started, "to": time.monotonic()}
        case "hold":
            Path(event["sign"]).touch()
            while Path(event["sign"]).exists():
                time.sleep(0.01)
        case "exit":
            os._exit(event["status"])
        case "respond":
            return "x" * (event["bytes"] - 2)  # and the quotes
        case "spawn":
            return {"pid": subprocess.Popen(["sleep", "60"]).pid}
        case "fail":
            raise NotToday(event["message"])
    return {"pid": os.getpid()}
