"""Where each key of a TOML document stands: tomllib says what a document holds, but not where.

The scanner relies on tomllib having read the text before, so it only has to find its way.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""The way to a value: keys of tables, numbers in arrays, such as `("field", 2, "min")`."""


@dataclass(frozen=True)
class Place:
    """Offsets into the text, in characters; a table's value is its header, `[[field]]`."""

    key: int
    value: int
    stop: int


@dataclass
class Places:
    """A document's text, and the place of each table, key and array element in it by its path."""

    text: str
    by_path: dict[Path, Place] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str) -> Places:
        """Scan a valid document."""
        places = cls(text)
        scanner = _Scanner(text, places.by_path)
        scanner.document()
        return places

    def position(self, path: Path) -> tuple[int, int]:
        """Line and column, from 1, of this path or of the nearest above it that is written."""
        while path and path not in self.by_path:
            path = path[:-1]
        offset = self.by_path[path].key if path else 0
        return self.text.count("\n", 0, offset) + 1, offset - self.text.rfind("\n", 0, offset)


class _Scanner:
    """One pass over the text; `at` is where it is."""

    def __init__(self, text: str, found: dict[Path, Place]) -> None:
        self.text, self.found, self.at = text, found, 0
        self.tables: dict[Path, int] = {}  # arrays of tables, and how many each has so far

    def document(self) -> None:
        base: Path = ()
        while self._skip() < len(self.text):
            if self.text[self.at] == "[":
                base = self._header()
            else:
                self._pair(base)

    def _header(self) -> Path:
        """The path of the table that `[a.b]` or `[[a.b]]` begins."""
        start = self.at
        many = self.text.startswith("[[", start)
        self.at += 2 if many else 1
        *above, last = self._keys()
        path: Path = ()
        for key in above:
            path = self._newest((*path, key))
        path = (*path, last)
        if many:
            self.tables[path] = self.tables.get(path, 0) + 1
            self.found.setdefault(path, Place(start, start, start))
        path = self._newest(path)
        self.at = self.text.index("]]" if many else "]", self.at) + (2 if many else 1)
        self.found[path] = Place(start, start, self.at)
        return path

    def _newest(self, path: Path) -> Path:
        """Where this key leads to now: an array of tables to its last one."""
        return (*path, self.tables[path] - 1) if path in self.tables else path

    def _pair(self, base: Path) -> None:
        """`a.b = value`."""
        start = self.at
        path = base
        for key in self._keys():
            path = (*path, key)
            self.found.setdefault(path, Place(start, start, start))
        self.at = self.text.index("=", self.at) + 1
        value = self._skip()
        self._value(path)
        self.found[path] = Place(start, value, self.at)

    def _keys(self) -> list[str]:
        keys = []
        while match := _KEY.match(self.text, self._skip()):
            self.at = match.end()
            written = match.group(1)
            keys.append(tomllib.loads(f"k = {written}")["k"] if written[0] in "\"'" else written)
            if not match.group(2):
                break
        return keys

    def _value(self, path: Path) -> None:
        if self.text[self.at] == "[":
            self._array(path)
        elif self.text[self.at] == "{":
            self._inline(path)
        else:
            match = _SCALAR.match(self.text, self.at)
            assert match is not None  # noqa: S101  the document is valid
            self.at = match.end()

    def _array(self, path: Path) -> None:
        self.at += 1
        number = 0
        while self.text[self._skip()] != "]":
            start = self.at
            self._value((*path, number))
            self.found[*path, number] = Place(start, start, self.at)
            number += 1
            self._comma()
        self.at += 1

    def _inline(self, path: Path) -> None:
        self.at += 1
        while self.text[self._skip()] != "}":
            self._pair(path)
            self._comma()
        self.at += 1

    def _comma(self) -> None:
        if self.text[self._skip()] == ",":
            self.at += 1

    def _skip(self) -> int:
        """Go past white space and comments; says where it is then."""
        match = _BLANK.match(self.text, self.at)
        self.at = match.end() if match else self.at
        return self.at


_BLANK = re.compile(r"(?:\s|#[^\n]*)*")
_QUOTED = r'"(?:\\.|[^"\\])*"' + r"|'[^']*'"
_KEY = re.compile(rf"([A-Za-z0-9_-]+|{_QUOTED})[ \t]*(\.)?")
_SCALAR = re.compile(
    r'"""(?:\\.|[^\\])*?""""{0,2}'
    rf"|'''.*?''''{{0,2}}|{_QUOTED}"
    r"|\d{4}-\d\d-\d\d \d\d:\d\d[^\s,\]}#]*|[^\s,\]}#]+",
    re.DOTALL,
)
