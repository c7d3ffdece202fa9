"""How far sources are, for people and machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.markup import escape

from infra.cli import shown
from infra.partitions import text
from sinks.lake.watermark import Watermark


def told(watermarks: Sequence[Watermark]) -> list[dict[str, Any]]:
    """Watermarks as JSON."""
    return [
        {
            "source": one.source,
            "until": None if one.until is None else text(one.until),
            "exact": one.exact,
            "ended": one.ended,
            "why": one.why,
        }
        for one in watermarks
    ]


def print_watermarks(watermarks: Sequence[dict[str, Any]]) -> None:
    """A line for each source that still counts."""
    for one in watermarks:
        if not one["ended"]:
            about = "" if one["exact"] else "about "
            until = one["until"] or "not known"
            line = f"  {one['source']}: {about}{until} ({one['why']})"
            shown.out.print(escape(line), soft_wrap=True)
