"""README's reference of contracts is whole: every key, reason and function has its place."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from transform.contract_file import ContractError, parse_contract
from transform.expression_functions import NAMES
from transform.records import Reason
from transform.wrapped import Wrapper

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
CONTRACTS = README[README.index("## Contracts") : README.index("## Tell producers")]
NAMED = set(re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", CONTRACTS, flags=re.DOTALL)))
SOUND = """
name = "fleet"
[identity]
device = "id"
event_time = "at"
[[field]]
name = "id"
type = "string"
[[field]]
name = "at"
type = "timestamp"
format = "epoch_millis"
"""


def keys_of(text: str) -> list[str]:
    """The keys that a table knows, as the complaint about an unknown one lists them."""
    with pytest.raises(ContractError, match="no such key") as told:
        parse_contract(text.encode(), "fleet.toml")
    return str(told.value).partition("allowed: one of ")[2].split(", ")


def test_every_key_of_a_contract_is_told():
    told = {name.partition(".")[0].strip("[]") for name in NAMED}
    assert set(keys_of(f"zzz = 1\n{SOUND}")) - {"field"} <= told
    assert "[[field]]" in NAMED


def test_every_key_of_a_field_is_told():
    assert set(keys_of(f"{SOUND}zzz = 1\n")) <= NAMED


@pytest.mark.parametrize("table", ["limits", "hot", "envelope"])
def test_every_key_of_a_table_is_told(table):
    keys = {f"{table}.{key}" for key in keys_of(f"{SOUND}[{table}]\nzzz = 1\n")}
    assert keys <= NAMED


def test_every_reason_function_and_wrapper_is_told():
    assert set(get_args(Reason)) <= NAMED
    assert set(NAMES) - {"field"} <= NAMED
    assert set(get_args(Wrapper)) <= NAMED


def test_what_is_shown_as_a_contract_can_be_read():
    blocks = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    whole = next(block for block in blocks if block.startswith("name = "))
    contract = parse_contract(whole.encode(), "README.md")
    assert contract.name == "fleet"
    for block in blocks:
        tomllib.loads(block)
    examples = next(block for block in blocks if "[[example]]" in block)
    made = parse_contract(f"{whole}\n{examples}".encode(), "README.md")
    assert [example.name for example in made.examples] == [
        "an ordinary reading",
        "hotter than the sensor can be",
    ]
    verbs = next(block for block in blocks if "dew_point" in block)
    more = '[[field]]\nname = "humidity"\ntype = "float64"\n'
    assert parse_contract(f"{whole}\n{more}\n{verbs}".encode(), "README.md").filters
