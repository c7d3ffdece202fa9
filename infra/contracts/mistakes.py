"""Every mistake of a contract file at once, each where it stands.

A contract is read until its first mistake. Here what is wrong is taken out and the rest is read
again, so that one look at a file shows all there is to mend. A mistake that only follows from what
was taken out is not told.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from transform.contract_file import contract_of, parse_document
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


def mistakes(data: bytes, file: str) -> list[Told]:
    """Every mistake, in the order of their lines.

    Raises `ContractError` where it is no TOML document at all.
    """
    remains = _Remains(parse_document(data, file))
    places = Places.of(data.decode())
    found: list[Told] = []
    while mistake := _first(remains.document, data):
        at = remains.written(mistake.at)
        if not remains.explains(at, mistake.wrong):
            line, column = places.position(at)
            found.append(Told(file, line, column, mistake.key, mistake.wrong, mistake.allowed))
        if not remains.without(mistake.at, at):
            break
    return sorted(found, key=lambda told: (told.line, told.column))


def _first(document: dict[str, Any], data: bytes) -> Mistake | None:
    try:
        contract_of(document, data)
    except Mistake as mistake:
        return mistake
    return None


class _Remains:
    """A document, less of it after each mistake."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._lists: dict[int, list[Any]] = {}  # as they were, by the identity of what is left
        self._remember(document)
        self._names = self._field_names()
        self._gone: set[Path] = set()

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

    def explains(self, at: Path, wrong: str) -> bool:
        """Whether a mistake only follows from what was taken out before."""
        lost = self._names - self._field_names()
        return any(gone[: len(at)] == at for gone in self._gone) or any(
            repr(name) in wrong for name in lost
        )

    def without(self, at: Path, written: Path) -> bool:
        """Take out what stands there, or the nearest above it; False if only all would be left."""
        while at:
            holder: Any = self.document
            for key in at[:-1]:
                holder = _member(holder, key)
            element = _member(holder, at[-1])
            if element is not None and (isinstance(holder, dict) or isinstance(element, dict)):
                del holder[at[-1]]
                self._gone.add(written[: len(at)])
                return True
            at = at[:-1]
        return False

    def _field_names(self) -> set[Any]:
        fields = self.document.get("field")
        tables = fields if isinstance(fields, list) else []
        names = (table.get("name") for table in tables if isinstance(table, dict))
        return {name for name in names if isinstance(name, str)}

    def _remember(self, value: Any) -> None:
        if isinstance(value, list):
            self._lists[id(value)] = list(value)
        for inner in value.values() if isinstance(value, dict) else value:
            if isinstance(inner, (dict, list)):
                self._remember(inner)


def _member(holder: Any, key: str | int) -> Any:
    """What a table or list holds under this key; None where there is no such thing."""
    if isinstance(holder, dict):
        return holder.get(str(key))
    if isinstance(holder, list) and isinstance(key, int) and key < len(holder):
        return holder[key]
    return None


def _index(elements: list[Any], one: Any) -> int:
    return next(number for number, element in enumerate(elements) if element is one)
