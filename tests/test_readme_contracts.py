"""What README shows of contracts can be read. The reference has its own tests."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from transform.contract_file import parse_contract

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_file_that_is_linked_is_there():
    files = re.findall(r"\]\(([^):#]+)(?:#[^)]*)?\)", README)
    assert [file for file in files if not (ROOT / file).exists()] == []


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
