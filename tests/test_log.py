"""A log line is what Powertools' Logger would write, and is written at the levels it would."""

from __future__ import annotations

import inspect
import io
import json
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aws_lambda_powertools import Logger

from ingest import log

TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
FIELDS: dict[str, Any] = {"stream": "fleet", "raw_key": "raw/é", "received": 2, "millis": 1.5}

Says = Callable[[Any], None]
"""Says something by Powertools' Logger, or by `log`."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in (*log.SETTINGS, "_X_AMZN_TRACE_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "fleet")
    monkeypatch.setattr(logging.root.manager, "disable", 0)  # commands in this process set it
    log._least.cache_clear()
    yield
    log._least.cache_clear()


def lines(says: Says, capsys: pytest.CaptureFixture[str]) -> tuple[list[str], list[str]]:
    """What Powertools writes, and what `log` does."""
    out = io.StringIO()
    says(Logger(service=f"fleet-{next(SERVICES)}", stream=out))
    capsys.readouterr()
    says(log)
    theirs = out.getvalue().splitlines()
    return theirs, capsys.readouterr().out.splitlines()


SERVICES = iter(range(1_000_000))  # Powertools' loggers of one service share their first stream


def info(logger: Any) -> None:
    logger.info("delivery settled", **FIELDS)


def warning(logger: Any) -> None:
    logger.warning("delivery not settled", **FIELDS)


def error(logger: Any) -> None:
    logger.error("delivery not settled")


def exception(logger: Any) -> None:
    try:
        json.loads("{")
    except ValueError:
        logger.exception("debt cannot be paid", **FIELDS)


@pytest.mark.parametrize("trace", ["", TRACE])
@pytest.mark.parametrize("says", [info, warning, error, exception])
def test_a_line_is_powertools_own(
    says: Says, trace: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    if trace:
        monkeypatch.setenv("_X_AMZN_TRACE_ID", trace)
    (theirs,), (ours,) = ([json.loads(line) for line in some] for some in lines(says, capsys))
    assert list(ours) == list(theirs)
    assert len(ours["timestamp"]) == len(theirs["timestamp"])
    assert ours["timestamp"][:10] <= max(theirs["timestamp"][:10], ours["timestamp"][:10])
    assert theirs["service"].startswith(ours["service"])
    for line in (ours, theirs):
        del line["timestamp"], line["service"]
    assert ours == theirs


def test_the_location_is_that_of_the_caller(capsys: pytest.CaptureFixture[str]):
    _, (line,) = lines(info, capsys)
    assert json.loads(line)["location"] == f"info:{inspect.getsourcelines(info)[1] + 1}"


@pytest.mark.parametrize(
    ("name", "level"),
    [
        *(("AWS_LAMBDA_LOG_LEVEL", level) for level in ("DEBUG", "INFO", "WARN", "ERROR", "FATAL")),
        *(("POWERTOOLS_LOG_LEVEL", level) for level in ("debug", "INFO", "WARNING", "CRITICAL")),
        ("LOG_LEVEL", "ERROR"),
    ],
)
@pytest.mark.parametrize("says", [info, warning, error])
def test_what_is_below_the_level_is_not_written(
    name: str,
    level: str,
    says: Says,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv(name, level)
    theirs, ours = lines(says, capsys)
    assert len(ours) == len(theirs)


def test_a_level_that_is_none_is_passed_over(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LOG_LEVEL", "loud")
    log.info("delivery settled")
    assert capsys.readouterr().out


def test_lambdas_level_comes_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("POWERTOOLS_LOG_LEVEL", "CRITICAL")
    monkeypatch.setenv("AWS_LAMBDA_LOG_LEVEL", "INFO")
    theirs, ours = lines(info, capsys)
    assert len(ours) == len(theirs) == 1


@pytest.mark.parametrize("odd", ["half \ud800", 2**70, os])
def test_what_orjson_refuses_is_written_all_the_same(odd: Any, capsys: pytest.CaptureFixture[str]):
    log.info("odd", value=odd)
    said = json.loads(capsys.readouterr().out)["value"]
    assert said == (odd if isinstance(odd, (str, int)) else str(odd))
