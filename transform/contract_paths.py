"""Paths of a contract: where something is, by the keys of objects and the places in lists."""

from __future__ import annotations

import re

from transform.contract import Path
from transform.toml_reader import Reader

PATH_KEYS_MAX = 32  # the depth of a path; well under the nesting that the decoder reads
PLACE_MAX = 99  # in a list: a message that says more by places than by names is a list of readings
PLACE_IN_TEXT = re.compile(r"\[(\d+)\]")  # as other languages have it
KEY = re.compile(r'[^"\\\x00-\x1f]+')  # msgspec matches keys as text that JSON need not escape
PATH = '`a.b`, or a list of keys and places: ["a", "b.c", 0]'


def read_path(reader: Reader, key: str, default: str | None = None, *, places: bool = True) -> Path:
    """Where something is in a message; through lists only with `places`. Raises a `Mistake`."""
    more = {} if default is None else {"default": default}
    path = reader.take(key, (str, list), PATH, **more)
    if isinstance(path, str) and PLACE_IN_TEXT.search(path):
        raise reader.error(key, f"{path!r} has a place in a list", f"`{_with_places(path)}`")
    keys = path.split(".") if isinstance(path, str) else path
    if not keys or not all(type(part) in {str, int} and part != "" for part in keys):
        raise reader.error(key, f"{path!r} has an empty key", PATH)
    if len(keys) > PATH_KEYS_MAX:
        raise reader.error(key, f"{len(keys)} keys", f"at most {PATH_KEYS_MAX}")
    if isinstance(keys[0], int):
        raise reader.error(key, "it begins with a place", "a message is an object: its key first")
    for part in keys:
        if isinstance(part, str) and not KEY.fullmatch(part):
            raise reader.error(key, f"the key {part!r}", "no quotes, \\ or control characters")
        if isinstance(part, int) and not places:
            raise reader.error(key, f"the place {part}", "keys of objects, not places in lists")
        if isinstance(part, int) and not 0 <= part <= PLACE_MAX:
            raise reader.error(key, f"the place {part}", f"0 to {PLACE_MAX}")
    return tuple(keys)


def _with_places(path: str) -> str:
    """`a[0].b` as a contract has it."""
    keys = PLACE_IN_TEXT.sub(r".\1.", path).replace("..", ".").strip(".").split(".")
    return "[" + ", ".join(k if k.isdecimal() else f'"{k}"' for k in keys) + "]"


def clash(one: Path, other: Path) -> bool:
    """Whether two paths cannot both lead to something.

    One leads through the other, or into a list where the other goes into an object.
    """
    for mine, theirs in zip(one, other, strict=False):
        if type(mine) is not type(theirs):
            return True
        if mine != theirs:
            return False
    return True
