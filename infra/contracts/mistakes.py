"""Every mistake of a contract file at once, each where it stands.

A contract is read until its first mistake. Here what is wrong is taken out (or replaced, where
nothing can be read without it) and the rest is read again, so that one look at a file shows all
there is to mend. A mistake that only follows from what was taken out is not told.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from transform.contract_file import contract_of, parse_document
from transform.contract_rules import Files
from transform.toml_places import Path, Places
from transform.toml_reader import Mistake


@dataclass(frozen=True)
class Told:
    """A mistake with its place, line and column from 1."""

    file: str
    line: int
    column: int
    key: str
    wrong: str
    allowed: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}"
        return f"{place}: {self.key}: {self.wrong}; allowed: {self.allowed}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def mistakes(data: bytes, file: str, files: Files | None = None) -> list[Told]:
    """Every mistake, in the order of their lines; `files` reads its lookups, if they are judged.

    Raises `ContractError` where it is no TOML document at all.
    """
    remains = _Remains(parse_document(data, file))
    places = Places.of(data.decode())
    found: list[Told] = []
    while mistake := _first(remains.document, data, files):
        at = remains.written(mistake.at)
        if not remains.explains(mistake, at):
            line, column = places.position(at)
            found.append(Told(file, line, column, mistake.key, mistake.wrong, mistake.allowed))
        if not remains.without(mistake.at, at):
            break
    return sorted(found, key=lambda told: (told.line, told.column))


def _first(document: dict[str, Any], data: bytes, files: Files | None) -> Mistake | None:
    try:
        contract_of(document, data, files)
    except Mistake as mistake:
        return mistake
    return None


class _Remains:
    """A document, less of it after each mistake."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._lists: dict[int, list[Any]] = {}  # as they were, by the identity of what is left
        self._remember(document)
        self._names = self._table_names()
        self._gone: set[Path] = set()
        self._stands_in = {"name": self._name, "identity": self._whole, "field": self._whole}

    def written(self, at: Path) -> Path:
        """The path that this one had before anything was taken out."""
        value: Any = self.document
        path: Path = ()
        for key in at:
            element = _member(value, key)
            if isinstance(value, list) and isinstance(element, dict):
                path += (_index(self._lists[id(value)], element),)
            else:
                path += (key,)
            value = element
        return path

    def explains(self, mistake: Mistake, written: Path) -> bool:
        """Whether a mistake only follows from what was taken out before.

        It does if it names a lost field or lookup, or misses something where one was taken out.
        """
        lost = self._names - self._table_names()
        if any(repr(name) in mistake.wrong for name in lost):
            return True
        missing = _at(self.document, mistake.at) in (None, [])
        return missing and any(
            gone[:-1] == written[:-1] or gone[: len(written)] == written for gone in self._gone
        )

    def without(self, at: Path, written: Path) -> bool:
        """Take out what stands there, or the nearest above it; False if nothing is left to do."""
        for depth in range(len(at), 0, -1):
            holder, key = _at(self.document, at[: depth - 1]), at[depth - 1]
            element = _member(holder, key)
            if element is not None and (isinstance(holder, dict) or isinstance(element, dict)):
                del holder[key]
                self._gone.add(written[:depth])
                return True
        stand_in = self._stands_in.pop(str(at[0]), None)
        if stand_in is not None:
            stand_in()
        return stand_in is not None

    def _name(self) -> None:
        self.document["name"] = "stand-in"

    def _whole(self) -> None:
        """Two fields and an identity of them, whatever else there is."""
        fields = self.document.setdefault("field", [])
        fields.append({"name": "stand_in_device", "type": "string"})
        fields.append({"name": "stand_in_time", "type": "timestamp", "format": "iso8601"})
        self.document["identity"] = {"device": "stand_in_device", "event_time": "stand_in_time"}

    def _table_names(self) -> set[Any]:
        lists = (self.document.get(key) for key in ("field", "lookup"))
        tables = [table for one in lists if isinstance(one, list) for table in one]
        names = (table.get("name") for table in tables if isinstance(table, dict))
        return {name for name in names if isinstance(name, str)}

    def _remember(self, value: Any) -> None:
        if isinstance(value, list):
            self._lists[id(value)] = list(value)
        for inner in value.values() if isinstance(value, dict) else value:
            if isinstance(inner, (dict, list)):
                self._remember(inner)


def _at(value: Any, path: Path) -> Any:
    """What stands at a path; None where nothing does."""
    for key in path:
        value = _member(value, key)
    return value


def _member(holder: Any, key: str | int) -> Any:
    """What a table or list holds under this key; None where there is no such thing."""
    if isinstance(holder, dict):
        return holder.get(str(key))
    if isinstance(holder, list) and isinstance(key, int) and key < len(holder):
        return holder[key]
    return None


def _index(elements: list[Any], one: Any) -> int:
    return next(number for number, element in enumerate(elements) if element is one)
