"""Each key of a TOML document is found where it stands."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import SOME
from transform.contract_file import SHIPPED
from transform.toml_places import Path, Places

HEADER = re.compile(r"\[\[?[a-z.]+\]?\]")

DOCUMENT = r"""
# [not] a = header
name = "a # b"
'quoted key' = 1 # x = 2
a.b."c.d" = 1979-05-27 07:32:00Z
text = QQQ
[[field]]
x = "1" \QQQ still"QQQ
raw = '''it's
]''''
list = [ # [
  1, "]", [2, {x = "}", y.z = [3,]}],
]

[limits]
max = 1

[[field]]
name = "one"
[field.more]
deep = true
[[field.part]]
n = 1
[[field.part]]
n = 2
[[field]]
  name = 'two'
aliases = [{path = "x", unit = "y"}, "z"]
""".replace("QQQ", '"' * 3)


def values(value: Any, path: Path = ()) -> dict[Path, Any]:
    """Every value of a document by its path."""
    found = {path: value}
    inner = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        inner = enumerate(value)
    for key, below in inner:
        found |= values(below, (*path, key))
    return found


def check(text: str) -> Places:
    """Every path is found, and what stands there is its value, or its table's header."""
    places = Places.of(text)
    every = values(tomllib.loads(text))
    del every[()]
    assert set(places.by_path) == set(every)
    for path, value in every.items():
        place = places.by_path[path]
        written = text[place.value : place.stop]
        if written and not HEADER.fullmatch(written):
            assert tomllib.loads(f"v = {written}")["v"] == value
    return places


def test_everything_is_where_it_stands():
    places = check(DOCUMENT)
    assert places.position(("field", 1, "name")) == (27, 3)
    assert places.position(("field", 0, "part", 1, "n")) == (25, 1)
    assert places.position(("field", 1, "aliases", 0, "unit")) == (28, 25)
    assert places.position(("limits", "max")) == (16, 1)
    assert places.position(("a", "b", "c.d")) == (5, 1)


@pytest.mark.parametrize(
    ("path", "position"),
    [(("field", 1, "min"), (26, 1)), (("hot",), (1, 1)), ((), (1, 1)), (("limits", "x"), (15, 1))],
)
def test_what_is_not_written_is_told_at_its_table(path, position):
    assert Places.of(DOCUMENT).position(path) == position


def test_lines_may_end_as_on_windows():
    places = check(DOCUMENT.replace("\n", "\r\n"))
    assert places.position(("field", 1, "name")) == (27, 3)


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.toml")), ids=lambda file: file.stem)
def test_shipped_contracts(file):
    check(file.read_text())


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=5)
KEYS = st.one_of(st.from_regex(r"[a-z0-9-]{1,3}", fullmatch=True), TEXT)
SCALARS = st.one_of(st.integers(), st.booleans(), st.floats(allow_nan=False), TEXT)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
)


@given(st.dictionaries(KEYS, VALUES, max_size=4), st.sampled_from([" ", "\t", ""]))
@SOME
def test_any_document(document, space):
    check("".join(f"{quoted(key)}{space}={space}{written(v)}\n" for key, v in document.items()))


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def written(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return quoted(value)
        case list():
            return "[" + ",\n".join(map(written, value)) + "]"
        case dict():
            pairs = (f"{quoted(key)} = {written(inner)}" for key, inner in value.items())
            return "{" + ", ".join(pairs) + "}"
    return repr(value)
