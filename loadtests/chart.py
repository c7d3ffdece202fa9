"""Bars as SVG: CPU a record by stage, one stack for each contestant and batch size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

COLORS = ("#8d99ae", "#457b9d", "#e9a03b", "#c8553d", "#588157", "#6d597a", "#2a9d8f", "#b56576")
LEFT, TOP, WIDTH, BAR, GAP, GROUP_GAP, LINE = 190, 54, 520, 18, 5, 16, 16


@dataclass(frozen=True)
class Bar:
    """One stack: its name, its parts in their order, and what stands behind it."""

    name: str
    parts: Mapping[str, float]
    note: str = ""

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def svg(title: str, groups: Sequence[tuple[str, Sequence[Bar]]], unit: str) -> str:
    """Groups of horizontal bars on one scale, with a legend of all parts."""
    names = list(dict.fromkeys(part for _, bars in groups for bar in bars for part in bar.parts))
    colors = {name: COLORS[n % len(COLORS)] for n, name in enumerate(names)}
    scale = WIDTH / max(bar.total for _, bars in groups for bar in bars)
    body, y = list[str](), TOP
    for name, bars in groups:
        body.append(_text(12, y + 13, name, "font-weight='bold'"))
        y += LINE + GAP
        for bar in bars:
            body += _bar(bar, y, scale, colors)
            y += BAR + GAP
        y += GROUP_GAP
    body += _legend(names, colors, y)
    height = y + LINE * len(names) + GAP
    head = _text(12, 22, title, "font-size='15' font-weight='bold'") + _text(12, 40, unit, "")
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{LEFT + WIDTH + 190}' height='{height}' "
        "font-family='sans-serif' font-size='12'><rect width='100%' height='100%' fill='white'/>"
        f"{head}{''.join(body)}</svg>\n"
    )


def _bar(bar: Bar, y: int, scale: float, colors: Mapping[str, str]) -> Iterator[str]:
    yield _text(LEFT - 8, y + 13, bar.name, "text-anchor='end'")
    x = float(LEFT)
    for part, value in bar.parts.items():
        tip = f"<title>{escape(part)}: {value:.1f}</title>"
        yield (
            f"<rect x='{x:.1f}' y='{y}' width='{value * scale:.1f}' height='{BAR}' "
            f"fill='{colors[part]}'>{tip}</rect>"
        )
        x += value * scale
    yield _text(int(x) + 6, y + 13, f"{bar.total:.1f}{bar.note}", "")


def _legend(names: Iterable[str], colors: Mapping[str, str], y: int) -> Iterator[str]:
    for number, name in enumerate(names):
        at = y + number * LINE
        yield f"<rect x='{LEFT}' y='{at}' width='10' height='10' fill='{colors[name]}'/>"
        yield _text(LEFT + 16, at + 10, name, "")


def _text(x: int, y: int, text: str, style: str) -> str:
    return f"<text x='{x}' y='{y}' fill='#222' {style}>{escape(text)}</text>"
