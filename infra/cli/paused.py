"""What commands say of a pipeline that its breaker stopped (law 9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from infra.cli import run
from infra.local.embedded import Pipeline
from infra.local.state import State
from ingest import breaker
from ingest.breaker import Tripped
from sinks.bucket import Bucket

SOURCES = ("kinesis", "sqs")

T = TypeVar("T")


def stops(bucket: Bucket, pipeline: str) -> list[Tripped]:
    """What stopped the pipeline's mappings, each until it is resumed."""
    found = (breaker.tripped(bucket, pipeline, source) for source in SOURCES)
    return [stop for stop in found if stop is not None]


def said(stop: Tripped, state: State) -> str:
    """What was found, and what to do about it."""
    where = run.state_hint(state)
    return (
        f"{stop.stream} is paused: its breaker stopped {stop.source} at {stop.at}, because "
        f"{stop.finding}. They wait in the source and nothing of them was set aside. Mend the "
        f"cause and `millrace resume{where}`; or, if the records are what is wrong, "
        f"`millrace resume --accept {stop.finding.contract} --until TIME{where}`"
    )


def require_running(system: Pipeline, source: str, state: State) -> None:
    """Raise `Paused` where the breaker has stopped this source."""
    stop = breaker.tripped(system.bucket, system.service, source)
    if stop is not None:
        raise run.Paused(said(stop, state))


def watched(
    progress: Callable[[T], None], system: Pipeline, source: str, state: State
) -> Callable[[T], None]:
    """`progress`, which raises `Paused` as soon as the breaker has stopped this source."""

    def watch(what: T) -> None:
        progress(what)
        require_running(system, source, state)

    return watch
