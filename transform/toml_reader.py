"""One TOML table of a contract, read key by key, and the mistake in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, cast

from transform.contract import Field
from transform.field_types import FieldType, Value
from transform.toml_places import Path


class Mistake(ValueError):
    """One mistake in a contract: what is wrong with a key, and what would be right.

    `at` is where in the document; `key` is for people, such as `field 'temperature': min`.
    """

    def __init__(self, at: Path, key: str, wrong: str, allowed: str) -> None:
        super().__init__(f"{key}: {wrong}; allowed: {allowed}")
        self.at, self.key, self.wrong, self.allowed = at, key, wrong, allowed


class Reader:
    """One TOML table, read key by key; every complaint names the key and what is allowed.

    `at` is the table's place in the document, `key` what people call it.
    """

    def __init__(self, at: Path, key: str, table: dict[str, Any]) -> None:
        self.at, self.key, self.table_ = at, key, table
        self.known: set[str] = set()

    def may_have(self, *keys: str) -> None:
        """Keys that are read only where they are needed; a mistake names them among the others."""
        self.known.update(keys)

    def error(self, key: str, wrong: str, allowed: str) -> Mistake:
        where = f"{self.key}: {key}" if self.key else key
        return Mistake((*self.at, key), where, wrong, allowed)

    def take(self, key: str, kind: Any, allowed: str, **default: Any) -> Any:
        self.known.add(key)
        if key not in self.table_:
            if "default" in default:
                return default["default"]
            for written in get_close_matches(key, set(self.table_) - self.known, 1):
                raise self.error(written, f"no such key; did you mean {key}?", f"{key}, {allowed}")
            raise self.error(key, "is missing", allowed)
        value = self.table_[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise self.error(key, f"{value!r} is of the wrong type", allowed)
        return value

    def text(
        self,
        key: str,
        pattern: re.Pattern[str] | None = None,
        allowed: str = "text",
        **default: str,
    ) -> str:
        value = self.take(key, str, allowed, **default)
        if pattern and not pattern.fullmatch(value):
            raise self.error(key, f"{value!r}", allowed)
        return cast("str", value)

    def integer(self, key: str, low: int, high: int, *, default: int) -> int:
        value = self.take(key, int, f"{low} to {high}", default=None)
        if value is None:
            return default
        if not low <= value <= high:
            raise self.error(key, f"{value}", f"{low} to {high}")
        return cast("int", value)

    def choice(self, key: str, values: tuple[str, ...], **default: str) -> str:
        value: str = self.take(key, str, one_of(values), **default)
        if key in self.table_ and value not in values:
            raise self.error(key, f"{value!r}{near(value, values)}", one_of(values))
        return value

    def value(self, key: str, read: Callable[[Any], Value]) -> Value | None:
        self.known.add(key)
        if key not in self.table_:
            return None
        try:
            return read(self.table_[key])
        except (ValueError, OverflowError) as error:
            raise self.error(key, str(error), "a value of the field's own type") from None

    def reference(self, key: str, fields: Mapping[str, Field], kind: FieldType) -> str:
        fitting = [field.name for field in fields.values() if field.type == kind]
        allowed = f"{a_(kind)} field" + (f", {one_of(fitting)}" if fitting else "")
        name = self.text(key, allowed=allowed)
        if name not in fields:
            raise self.error(key, f"no field {name!r}{near(name, fields)}", allowed)
        if name not in fitting:
            raise self.error(key, f"{name!r} is {a_(fields[name].type)}", allowed)
        return name

    def table(self, key: str, *, required: bool = False) -> Reader:
        allowed = f"a table [{key}]"
        default: dict[str, Any] = {} if required else {"default": {}}
        return Reader((*self.at, key), key, self.take(key, dict, allowed, **default))

    def tables(self, key: str) -> Iterator[Reader]:
        """A reader for each `[[key]]` table, if there are any."""
        tables = self.take(key, list, f"[[{key}]] tables", default=[])
        for number, table in enumerate(tables):
            if not isinstance(table, dict):
                raise self.error(key, "not a list of tables", f"[[{key}]] tables")
            yield Reader((*self.at, key, number), f"{key} {number + 1}", table)

    def finish(self) -> None:
        unknown = sorted(set(self.table_) - self.known)
        if unknown:
            wrong = f"no such key{near(unknown[0], self.known)}"
            raise self.error(unknown[0], wrong, one_of(sorted(self.known)))


def a_(kind: FieldType) -> str:
    return f"an {kind}" if kind == "int64" else f"a {kind}"


def near(word: str, words: Iterable[str]) -> str:
    """A question after what may have been meant, if anything is like it."""
    meant = get_close_matches(word, list(words), 1)
    return f"; did you mean {meant[0]}?" if meant else ""


def one_of(values: Iterable[object]) -> str:
    return "one of " + ", ".join(str(value) for value in values)
