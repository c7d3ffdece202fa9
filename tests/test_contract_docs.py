"""The reference of contracts: every block is read, every row comes out as it says, all is there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import pytest

from infra.contracts.examples import verdicts
from transform import markers
from transform.contract import ROW_MARKS, Contract
from transform.contract_file import ContractError, parse_contract
from transform.contract_rules import OWN_RULES
from transform.expression_compiler import COMPARISONS
from transform.expression_functions import ARITHMETIC, NAMES
from transform.field_types import FieldType
from transform.pipeline import Transform
from transform.records import ROW_FIELDS, Delivery, Reason, Step
from transform.timestamps import TimestampFormat, parse_timestamp
from transform.units import known

ROOT = Path(__file__).parent.parent
FILE = "transform/contracts/README.md"
TEXT = (ROOT / FILE).read_text(encoding="utf-8")

NAME = 'name = "fleet"\n'
IDENTITY = '[identity]\ndevice = "device"\nevent_time = "taken_at"\n'
DEVICE = '[[field]]\nname = "device"\ntype = "string"\n'
TIME = '[[field]]\nname = "taken_at"\npath = "at"\ntype = "timestamp"\nformat = "iso8601"\n'
AT = 'path = "at"'
BASE = {"device": "s-17", "at": "2026-11-24T10:00:00Z"}
ARRIVAL = parse_timestamp("2026-11-24T10:00:10Z", "iso8601")
ARROW, WITH, LINE_END = "→", " with {", "↵"


@dataclass
class Section:
    """Everything between two headings."""

    title: str
    lines: list[str] = field(default_factory=list)

    def blocks(self, language: str) -> list[str]:
        return re.findall(
            rf"^```{language}\n(.*?)^```", "\n".join(self.lines), re.MULTILINE | re.DOTALL
        )

    def first_cells(self, head: str) -> list[str]:
        """What is in backticks in the first cells of the table whose head begins so."""
        return [name for row in self.rows(head) for name in re.findall(r"`([^`]+)`", row[0])]

    def rows(self, head: str) -> list[list[str]]:
        lines = iter(self.lines)
        for line in lines:
            if line.startswith(f"| {head} |"):
                next(lines)
                return [
                    re.split(r"(?<!\\)\|", row)[1:-1]
                    for row in _while(lines, lambda row: row.startswith("|"))
                ]
        raise AssertionError(f"no table {head!r} in {self.title!r}")


def _while(lines: Iterator[str], test: Any) -> Iterator[str]:
    for line in lines:
        if not test(line):
            return
        yield line


def sections() -> dict[str, Section]:
    found = {"": Section("")}
    fenced = False
    for line in TEXT.splitlines():
        fenced ^= line.startswith("```")
        if line.startswith("#") and not fenced:
            title = line.lstrip("# ")
            assert title not in found
            found[title] = Section(title)
        else:
            list(found.values())[-1].lines.append(line)
    return found


SECTIONS = sections()
FRAGMENTS = {title: one for title, one in SECTIONS.items() if one.blocks("toml")}


def whole(fragment: str) -> str:
    """A fragment with what it leaves out."""
    if fragment.startswith(NAME):
        return fragment
    identity = "" if "[identity]" in fragment else IDENTITY
    return f"{NAME}{fragment}\n{identity}{DEVICE}{'' if AT in fragment else TIME}"


def contract_of(section: Section) -> Contract:
    (fragment,) = section.blocks("toml")
    (table,) = section.blocks("csv") or [""]
    return parse_contract(whole(fragment).encode(), FILE, lambda _: table.encode())


def applied(contract: Contract, text: str, attributes: str | None) -> list[dict[str, Any]]:
    """What a message comes to: rows, rejects and marks, in the order of their places."""
    body = text.replace(LINE_END, "\n").strip()
    try:
        message = json.loads(body)
    except ValueError:
        message = None
    if isinstance(message, dict) and "specversion" not in message:
        missing = {key: value for key, value in BASE.items() if key not in message}
        added = json.dumps(missing)[1:-1]
        body = "{" + ", ".join(filter(None, (added, body[1:-1].strip()))) + "}"
    told = None
    if attributes is not None:
        given = json.loads(attributes).items()
        told = json.dumps({k: {"stringValue": v, "dataType": "String"} for k, v in given})
    delivery = Delivery("sqs", "q", [""], ["1"], [None], [ARRIVAL], [told], [body.encode()])
    batch = Transform(contract, hash_key=b"docs").apply(delivery.table(), "raw/x")
    found = [one for of in (batch.rows, batch.rejects, batch.drops) for one in of.to_pylist()]
    return sorted(found, key=lambda one: (one["_sub"], one["_child"]))


def told(row: dict[str, Any], as_told: str) -> str:
    """A row in the words of the reference, as far as they go."""
    if "_reason" in row:
        field = f" {row['_field']}" if row["_field"] else ""
        return f"rejected {row['_reason']}{field}"
    if "_rule" in row:
        return f"dropped {row['_rule']}"
    names = json.loads(as_told) if as_told.startswith("{") else row
    values = {name: row[name] for name in names}
    return json.dumps({k: _plain(v, names[k]) for k, v in values.items()}, ensure_ascii=False)


def _plain(value: Any, as_told: Any) -> Any:
    if isinstance(value, datetime):
        text = value.isoformat().replace("+00:00", "Z")
        return re.sub(r"(\.\d*?)0+Z", r"\1Z", text)
    return int(value) if isinstance(value, float) and isinstance(as_told, int) else value


def cases() -> Iterator[Any]:
    """Each message of the reference, with the outcomes behind its arrows."""
    for title, section in FRAGMENTS.items():
        message, outcomes = "", []
        for line in "".join(section.blocks("text")).splitlines():
            left, _, right = line.partition(ARROW)
            if left.strip():
                if outcomes:
                    yield pytest.param(title, message, outcomes, id=f"{title}: {message[:40]}")
                message, outcomes = left.strip(), []
            outcomes.append(right.strip())
        if outcomes:
            yield pytest.param(title, message, outcomes, id=f"{title}: {message[:40]}")


@pytest.mark.parametrize(("title", "message", "outcomes"), list(cases()))
def test_what_the_reference_says_of_a_message(title, message, outcomes):
    text, _, attributes = message.partition(WITH)
    found = applied(contract_of(FRAGMENTS[title]), text, "{" + attributes if attributes else None)
    assert len(found) == len(outcomes)
    assert [told(*pair) for pair in zip(found, outcomes, strict=True)] == outcomes


@pytest.mark.parametrize("title", FRAGMENTS)
def test_a_block_is_a_contract_and_its_examples_hold(title):
    contract = contract_of(FRAGMENTS[title])
    for verdict in verdicts(contract, ARRIVAL):
        assert verdict.holds, verdict


def test_every_section_of_a_verb_shows_what_it_does():
    silent = {"The file", "Hot", "Examples in the file"}
    assert {t for t, one in FRAGMENTS.items() if not one.blocks("text")} == silent
    assert len(list(cases())) > 60


def test_every_link_leads_somewhere():
    anchors = {
        re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in SECTIONS
    }
    assert set(re.findall(r"\]\(#([^)]*)\)", TEXT)) <= anchors
    files = re.findall(r"\]\(([^#:)]*)\)", TEXT)
    assert [file for file in files if not (ROOT / FILE).parent.joinpath(file).exists()] == []
    shapes = {file.stem for file in (ROOT / "tests" / "shapes").glob("*.toml")}
    assert shapes <= {Path(file).stem for file in files}


# Nothing is left out

MISTAKEN = "zzz = 1\n"
BOTH = "[[field]]\nname = 'r'\ntype = 'bool'\nof = 'reading'\n"
CASE = "[[choose.case]]\nvalue = 'a'\n"
TABLES = {
    ("The file", "key"): MISTAKEN + IDENTITY,
    ("Identity", "key"): IDENTITY + MISTAKEN,
    ("Limits", "key"): f"[limits]\n{MISTAKEN}",
    ("Fields", "key"): f"[[field]]\nname = 'x'\ntype = 'bool'\n{MISTAKEN}",
    ("Aliases", "alias key"): (
        "[[field]]\nname = 'x'\ntype = 'bool'\naliases = [{ path = 'y', zzz = 1 }]\n"
    ),
    ("Envelopes", "key"): f"[envelope]\n{MISTAKEN}",
    ("Explode", "key"): f"[explode]\npath = 'l'\n{MISTAKEN}{BOTH}",
    ("Choose", "key"): f"[choose]\npath = 'k'\n{MISTAKEN}{CASE}",
    ("Choose", "case key"): f"[choose]\npath = 'k'\n{CASE}{MISTAKEN}",
    ("Lookup", "key"): f"[[lookup]]\nname = 'l'\nfile = 'l.csv'\non = 'device'\n{MISTAKEN}",
    ("Filter", "key"): f"[[filter]]\nname = 'f'\nkeep = 'True'\n{MISTAKEN}",
    ("Sample", "key"): f"[sample]\nkeep = 0.5\n{MISTAKEN}",
    ("Hot", "key"): f"[hot]\n{MISTAKEN}",
    ("Versions", "key"): f"[schema]\npath = 'v'\n{MISTAKEN}",
    (
        "Examples in the file",
        "key",
    ): f"[[example]]\nname = 'e'\nmessage = '{{}}'\nrows = 1\n{MISTAKEN}",
}


def allowed(fragment: str) -> set[str]:
    """What the readers say is allowed where a contract has something else."""
    more = "" if IDENTITY in fragment else IDENTITY
    with pytest.raises(ContractError) as caught:
        parse_contract(f"{NAME}{fragment}{more}{DEVICE}{TIME}".encode(), FILE)
    says = str(caught.value)
    return set(says.partition("allowed: one of ")[2].split(", "))


@pytest.mark.parametrize(("title", "head"), TABLES)
def test_every_key_has_its_row(title, head):
    names = {name.strip("[]").removeprefix("choose.") for name in SECTIONS[title].first_cells(head)}
    assert names == allowed(TABLES[title, head])


def test_every_type_format_and_column_has_its_row():
    types = SECTIONS["Types"]
    assert types.first_cells("type") == list(get_args(FieldType))
    assert types.first_cells("format") == list(get_args(TimestampFormat))
    columns = [one.name for one in (*ROW_MARKS, *ROW_FIELDS)]
    assert sorted(SECTIONS["The row"].first_cells("column")) == sorted(columns)


def test_every_reason_and_rule_has_its_row():
    rows = SECTIONS["Rejected"].rows("reason")
    assert [row[0].strip().strip("`") for row in rows] == list(get_args(Reason))
    assert {row[1].strip() for row in rows} == set(get_args(Step))
    assert set(SECTIONS["Dropped"].first_cells("rule")) == {*OWN_RULES, markers.RULE}


def test_every_envelope_has_its_row():
    body = next(row for row in SECTIONS["Envelopes"].rows("key") if "`body`" in row[0])
    assert set(re.findall(r"`(\w+)`", body[1])) == allowed("[envelope]\nbody = 'zzz'\n")
    wrappers = set(SECTIONS["Wrappers"].first_cells("wrapper"))
    assert wrappers == allowed("[envelope]\nunwrap = ['zzz']\n")
    unknown = set(SECTIONS["Unknown fields"].first_cells("`unknown`"))
    assert unknown == allowed("unknown = 'zzz'\n")


def test_every_function_and_operator_has_its_row():
    functions = SECTIONS["Expressions"].first_cells("function")
    assert {name.partition("(")[0] for name in functions} == set(NAMES)
    operators = SECTIONS["Expressions"].first_cells("operators")
    assert len(operators) == len(ARITHMETIC) + len(COMPARISONS) + len(
        ["in", "not in", "and", "or", "not", "is None", "is not None", "a if c else b"]
    )
    assert set(ARITHMETIC) < set(operators)


def test_every_lookup_format_and_unit_is_one():
    says = str(_lookup_error("devices.xlsx"))
    formats = re.findall(r"`\.(\w+)`", "".join(SECTIONS["Lookup"].lines))
    assert f"read are {', '.join(sorted(set(formats)))};" in says
    units = SECTIONS["Units"].first_cells("spelling")
    assert len(units) > 30
    assert [unit for unit in units if not known(unit)] == []


def _lookup_error(file: str) -> ContractError:
    fragment = f"[[lookup]]\nname = 'l'\nfile = '{file}'\non = 'device'\n"
    with pytest.raises(ContractError) as caught:
        parse_contract(whole(fragment).encode(), FILE, lambda _: b"")
    return caught.value
