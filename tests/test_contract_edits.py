"""Edits of a contract's text change one key and leave all else as it is."""

from __future__ import annotations

import tomllib

import pytest

from infra.contracts import toml_text
from infra.contracts.edits import field_table, unified, with_key, with_lines, without_key
from transform.contract_file import SHIPPED, load_contract, parse_contract

TEXT = """\
# head
name = "x" # the name

[limits] # of size
max_body_bytes = 1_000 # enough

[[field]]
name = "a"
allowed = [ # these
  "x",
]
required = true
[[field]]
name = "b"
"""


@pytest.mark.parametrize(
    ("table", "key", "value", "old", "new"),
    [
        (("limits",), "max_body_bytes", 5, "1_000 # enough", "5 # enough"),
        (("limits",), "more", True, "# enough\n", "# enough\nmore = true\n"),
        (("field", 0), "allowed", ["y"], '[ # these\n  "x",\n]', '["y"]'),
        (("field", 0), "min", 0.5, "required = true\n", "required = true\nmin = 0.5\n"),
        (("field", 1), "unit", "°", 'name = "b"\n', 'name = "b"\nunit = "°"\n'),
        ((), "version", 2, "# the name\n", "# the name\nversion = 2\n"),
        (("hot",), "ttl_days", 1, 'name = "b"\n', 'name = "b"\n\n[hot]\nttl_days = 1\n'),
    ],
)
def test_a_key_is_set_and_all_else_stays(table, key, value, old, new):
    text = with_key(TEXT, table, key, value)
    assert text == TEXT.replace(old, new)
    holder = tomllib.loads(text)
    for step in table:
        holder = holder[step]
    assert holder[key] == value


def test_a_key_is_taken_out_with_its_line():
    assert without_key(TEXT, ("field", 0, "required")) == TEXT.replace("required = true\n", "")
    assert without_key(TEXT, ("field", 1, "required")) == TEXT


def test_a_paragraph_is_added():
    assert with_lines(TEXT, ["a", "b"]) == TEXT + "\na\nb\n"
    assert with_lines("x", ["a"]) == "x\n\na\n"


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.toml")))
def test_every_field_of_a_shipped_contract_can_be_edited(name):
    contract = load_contract(name)
    text = contract.source.decode()
    for field in contract.fields:
        text = with_key(text, field_table(contract, field.name), "description", 'It\'s "new"\x7f')
    changed = parse_contract(text.encode(), name)
    assert {field.description for field in changed.fields} == {'It\'s "new"\x7f'}
    assert [field.name for field in changed.fields] == [field.name for field in contract.fields]


def test_a_patch_names_its_file():
    patch = unified("a\nb\n", "a\nc\n", "fleet.toml")
    assert patch.splitlines()[:2] == ["--- a/fleet.toml", "+++ b/fleet.toml"]
    assert patch.splitlines()[3:] == [" a", "-b", "+c"]


@pytest.mark.parametrize(
    "value", ["x", '\x00\x7f\\"\N{SNOWMAN}\U0001f600', True, 2**62, 0.1, [1, "a"], {"a": 1.5}]
)
def test_what_is_written_is_read_again(value):
    assert tomllib.loads(f"v = {toml_text.value(value)}") == {"v": value}


@pytest.mark.parametrize("keys", [("a",), ("a", "b"), ("a.b", "c"), ("a b",), ('"',)])
def test_a_path_is_text_or_a_list(keys):
    written = tomllib.loads(f"p = {toml_text.path(keys)}")["p"]
    assert tuple(written.split(".") if isinstance(written, str) else written) == keys


def test_a_comment_is_wrapped_and_commands_no_terminal():
    lines = list(toml_text.comment("word " * 60, "end"))
    assert all(line.startswith("# ") and len(line) <= 100 for line in lines)
    assert toml_text.shown("\x1b[2J\n") == '"\\u001b[2J\\n"'
