"""What a sample shows of each path: how often, of which kinds, from where to where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from infra.contracts.naming import Path
from transform.field_types import INT64_MAX, INT64_MIN
from transform.timestamps import TimestampError, parse_timestamp

Kind = Literal["string", "int", "big_int", "float", "bool", "object", "list"]

DISTINCT_MAX = 10_000  # values of one path that are told apart
PATHS_MAX = 2_000  # of a sample; keys that are data (ids, dates) make more


@dataclass
class Seen:
    """One path in a sample."""

    path: Path
    first: int = 0
    present: int = 0
    nulls: int = 0
    kinds: Counter[Kind] = field(default_factory=Counter)
    low: float | int | None = None
    high: float | int | None = None
    longest: int = 0
    iso: int = 0
    digits: int = 0
    empty: int = 0
    values: Counter[Any] = field(default_factory=Counter)
    lists_of_objects: int = 0
    empty_lists: int = 0
    elements: int = 0

    @property
    def many(self) -> bool:
        """Whether there were too many values to tell them apart."""
        return len(self.values) >= DISTINCT_MAX

    @property
    def given(self) -> int:
        """How often it held a value."""
        return self.present - self.nulls

    def add(self, value: Any) -> None:
        self.present += 1
        if value is None:
            self.nulls += 1
            return
        kind = kind_of(value)
        self.kinds[kind] += 1
        if kind in ("int", "big_int", "float"):
            self.low = value if self.low is None else min(self.low, value)
            self.high = value if self.high is None else max(self.high, value)
        elif kind == "string":
            self._text(value)
        elif kind == "list":
            self.lists_of_objects += bool(value) and all(isinstance(one, dict) for one in value)
            self.empty_lists += not value
            self.elements += len(value)
        if kind not in ("object", "list") and not self.many:
            self.values[value] += 1

    def _text(self, value: str) -> None:
        self.longest = max(self.longest, len(value.encode()))
        self.empty += not value
        if self.iso == self.kinds["string"] - 1 and is_time(value, "iso8601"):
            self.iso += 1
        if self.digits == self.kinds["string"] - 1 and is_time(value, "epoch_seconds"):
            self.digits += 1


def observe(messages: Iterable[Mapping[str, Any]]) -> dict[Path, Seen]:
    """Every path of these messages, objects before what they hold, in the order of appearance."""
    found: dict[Path, Seen] = {}
    for number, message in enumerate(messages):
        for path, value in _paths(message, ()):
            if path not in found:
                if len(found) >= PATHS_MAX:
                    continue
                found[path] = Seen(path, first=number)
            found[path].add(value)
    return found


def kind_of(value: Any) -> Kind:
    match value:
        case bool():
            return "bool"
        case int():
            return "int" if INT64_MIN <= value <= INT64_MAX else "big_int"
        case float():
            return "float"
        case str():
            return "string"
        case dict():
            return "object"
    return "list"


def is_time(text: str, form: Any) -> bool:
    try:
        parse_timestamp(text, form)
    except TimestampError:
        return False
    return True


def _paths(message: Mapping[str, Any], above: Path) -> Iterator[tuple[Path, Any]]:
    for key, value in message.items():
        path = (*above, key)
        yield path, value
        if isinstance(value, dict):
            yield from _paths(value, path)
