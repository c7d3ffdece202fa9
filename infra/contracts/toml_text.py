"""TOML as people write it: values, paths and comments as text."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any

PLAIN_KEY = re.compile(r"[^.\s\[\]]+")
COMMENT_COLUMNS = 96


def value(given: Any) -> str:
    """A value that a contract can hold."""
    match given:
        case bool():
            return "true" if given else "false"
        case str():
            return text(given)
        case int():
            return str(given)
        case float():
            return repr(given) if math.isfinite(given) else str(given)
        case list() | tuple():
            return "[" + ", ".join(map(value, given)) + "]"
        case dict():
            return "{" + ", ".join(f"{key} = {value(inner)}" for key, inner in given.items()) + "}"
    raise TypeError(f"{given!r} has no place in a contract")


def text(given: str) -> str:
    """A basic string: what JSON escapes, TOML reads, but for DEL, which it wants escaped too."""
    return json.dumps(given, ensure_ascii=False).replace("\x7f", "\\u007f")


def path(keys: Sequence[str]) -> str:
    """A path as `a.b`, or as a list where a key holds a dot, a space or a bracket."""
    if all(PLAIN_KEY.fullmatch(key) for key in keys):
        return text(".".join(keys))
    return value(list(keys))


def shown(given: Any) -> str:
    """A value within a comment: on one line, and short."""
    told = json.dumps(given, ensure_ascii=False) if isinstance(given, str) else str(given)
    told = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in told)
    return told if len(told) <= 40 else told[:37] + "..."  # noqa: PLR2004  half a line


def comment(*sentences: str) -> Iterator[str]:
    """Comment lines of these sentences."""
    for line in wrap(" ".join(filter(None, sentences)), COMMENT_COLUMNS):
        yield f"# {line}"
