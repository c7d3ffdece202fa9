"""What a function is told that seals hours: its sources by name, and how long it waits for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ingest.environment import Environment


@dataclass(frozen=True)
class SealSettings:
    """A pipeline's stream and queue by name, how its mapping works, and how patient a seal is.

    `lanes` is the mapping's parallelization factor; with more than one a record may be on its way
    for `margin_seconds` before anything is heard of it. An hour stays open for `lateness_seconds`
    after its end; markers are waited for `marker_seconds` at most.
    """

    stream: str = ""
    lanes: int = 1
    margin_seconds: int = 0
    on_failure_prefix: str = ""  # none without an on-failure destination
    queue: str = ""
    dead_letters: str = ""
    lateness_seconds: int = 600
    marker_seconds: int = 60

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> SealSettings:
        """Raises `SettingsError` naming the first variable that is wrong."""
        told = Environment(variables)
        return cls(
            stream=told.text("MILLRACE_STREAM"),
            lanes=told.number("MILLRACE_LANES", cls.lanes),
            margin_seconds=told.number("MILLRACE_MARGIN_SECONDS", cls.margin_seconds),
            on_failure_prefix=told.text("MILLRACE_ON_FAILURE_PREFIX"),
            queue=told.text("MILLRACE_QUEUE"),
            dead_letters=told.text("MILLRACE_DEAD_LETTERS"),
            lateness_seconds=told.number("MILLRACE_LATENESS_SECONDS", cls.lateness_seconds),
            marker_seconds=told.number("MILLRACE_MARKER_SECONDS", cls.marker_seconds),
        )
