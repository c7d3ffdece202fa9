"""Names of fields from the keys of messages: snake_case, short, and never twice."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from transform.contract_fields import HOT_KEYS

NAME_MAX_CHARACTERS = 64
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

Path = tuple[str, ...]


def snake(key: str) -> str:
    """`deviceId`, `Device-ID` and `device id` as `device_id`; empty where no letter is left."""
    plain = unicodedata.normalize("NFKD", key).encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z0-9]+", "_", _HUMP.sub("_", plain).lower())
    return words.strip("_")


def names(paths: Sequence[Path]) -> dict[Path, str]:
    """A name for each path: its last key, with those above it where two would be the same."""
    depth = dict.fromkeys(paths, 1)
    for _ in range(max((len(path) for path in paths), default=0)):
        counts = Counter(_name(path, depth[path]) for path in paths)
        again = [p for p in paths if counts[_name(p, depth[p])] > 1 and depth[p] < len(p)]
        if not again:
            break
        for path in again:
            depth[path] += 1
    return _numbered({path: _name(path, depth[path]) for path in paths})


def words(path: Iterable[str]) -> list[str]:
    """The words of a path, lower-case."""
    return [word for key in path for word in snake(key).split("_") if word]


def _name(path: Path, depth: int) -> str:
    name = "_".join(filter(None, map(snake, path[-depth:])))
    if not name[:1].isalpha():
        name = f"field_{name}".rstrip("_")
    if name in HOT_KEYS:
        name = f"own_{name}"
    return name[:NAME_MAX_CHARACTERS].rstrip("_")


def _numbered(given: dict[Path, str]) -> dict[Path, str]:
    """Names that are still the same, told apart by a number."""
    taken: set[str] = set()
    told: dict[Path, str] = {}
    for path, name in given.items():
        number, fresh = 1, name
        while fresh in taken or (number > 1 and fresh in given.values()):
            number += 1
            fresh = f"{name[: NAME_MAX_CHARACTERS - 5]}_{number}"
        taken.add(fresh)
        told[path] = fresh
    return told
