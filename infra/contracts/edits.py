"""Changes to a contract's text that leave its comments and all else as they are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from infra.contracts import toml_text
from transform.contract import Contract
from transform.toml_places import Path, Places


def with_key(text: str, table: Path, key: str, value: Any) -> str:
    """The text with `key = value` in a table, which is made if it is not there."""
    places = Places.of(text)
    written = toml_text.value(value)
    place = places.by_path.get((*table, key))
    if place is not None:
        return text[: place.value] + written + text[place.stop :]
    if table and table not in places.by_path:
        return with_lines(text, [f"[{'.'.join(map(str, table))}]", f"{key} = {written}"])
    end = _line_end(text, _last_of(places, table))
    return f"{text[:end]}\n{key} = {written}{text[end:]}"


def without_key(text: str, path: Path) -> str:
    """The text without the line of a key; as it is, if the key is not there."""
    place = Places.of(text).by_path.get(path)
    if place is None:
        return text
    start = text.rfind("\n", 0, place.key) + 1
    return text[:start] + text[_line_end(text, place.stop) + 1 :]


def with_lines(text: str, lines: Iterable[str]) -> str:
    """The text with a paragraph more at its end."""
    return text.rstrip("\n") + "\n\n" + "\n".join(lines) + "\n"


def field_table(contract: Contract, name: str) -> Path:
    """The path of a field's table."""
    return "field", [field.name for field in contract.fields].index(name)


def unified(old: str, new: str, file: str) -> str:
    """The change as a patch of one file, which `patch` and `git apply` take."""
    lines = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), f"a/{file}", f"b/{file}"
    )
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def _last_of(places: Places, table: Path) -> int:
    """Where the last key of a table ends, or its header."""
    own = [
        place.stop
        for path, place in places.by_path.items()
        if path[:-1] == table and not places.text.startswith("[", place.key)
    ]
    header = places.by_path.get(table)
    return max([*own, header.stop if header else 0])


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end
