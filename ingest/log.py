"""Log lines: a constant message and fields, as one JSON object on standard output.

Keys, their order and the levels are those of Powertools' Logger, for which operators have queries
(a test compares them). Logger itself takes as long for a line as two records take on all the path.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Mapping
from functools import cache
from typing import Any

import orjson

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
SAME = {"TRACE": "DEBUG", "WARN": "WARNING", "FATAL": "CRITICAL"}  # other names, some are Lambda's
SETTINGS = ("AWS_LAMBDA_LOG_LEVEL", "POWERTOOLS_LOG_LEVEL", "LOG_LEVEL")  # the first one counts


def info(message: str, **fields: Any) -> None:
    _say("INFO", message, fields)


def warning(message: str, **fields: Any) -> None:
    _say("WARNING", message, fields)


def error(message: str, **fields: Any) -> None:
    _say("ERROR", message, fields)


def exception(message: str, **fields: Any) -> None:
    """An error, with the exception that is being handled."""
    _say("ERROR", message, fields | _handled())


def write(line: Mapping[str, Any]) -> None:
    """Write one line, at once: a record of metrics is such a line as well."""
    try:
        text = orjson.dumps(line).decode()
    except orjson.JSONEncodeError:  # half a surrogate pair, or a number beyond 64 bits
        text = json.dumps(line, default=str)
    sys.stdout.write(text + "\n")


def _say(level: str, message: str, fields: Mapping[str, Any]) -> None:
    if LEVELS.index(level) < _least():
        return
    caller = sys._getframe(2)  # noqa: SLF001  as logging finds it
    now = time.time()
    line = {
        "level": level,
        "location": f"{caller.f_code.co_name}:{caller.f_lineno}",
        "message": message,
        "timestamp": time.strftime(
            f"%Y-%m-%d %H:%M:%S,{int(now % 1 * 1000):03}%z", time.localtime(now)
        ),
        "service": os.environ.get("POWERTOOLS_SERVICE_NAME", "service_undefined"),
        **fields,
    }
    if trace := os.environ.get("_X_AMZN_TRACE_ID"):
        line["xray_trace_id"] = trace.partition(";")[0].removeprefix("Root=")
    write(line)


@cache
def _least() -> int:
    """The least level that is written; unless the environment says another, INFO."""
    asked = (os.environ.get(name, "").upper() for name in SETTINGS)
    known = (LEVELS.index(level) for name in asked if (level := SAME.get(name, name)) in LEVELS)
    return next(known, LEVELS.index("INFO"))


def _handled() -> dict[str, Any]:
    kind, value, trace = sys.exc_info()
    if kind is None:
        return {}
    frames = [
        {"file": f.filename, "line": f.lineno, "function": f.name, "statement": f.line}
        for f in traceback.extract_tb(trace)
    ]
    told = {
        "type": kind.__name__,
        "value": str(value),
        "module": kind.__module__,
        "frames": frames,
    }
    return {
        "exception": "".join(traceback.format_exception(value)).rstrip("\n"),
        "exception_name": kind.__name__,
        "stack_trace": told,
    }
