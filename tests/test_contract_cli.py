"""`millrace contract`: what its commands print, and how they exit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from infra.cli.contract import contract
from tests.support import reading
from tests.test_contract_mistakes import TOP
from transform.contract_file import SHIPPED, ContractError, load_contract


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*arguments: str, stdin: bytes | None = None) -> Result:
    """As the command line runs it, but for signals and logging."""
    names = ["-h", "--help"]  # the group's own; a command keeps the first that it is asked for
    return CliRunner().invoke(contract, arguments, input=stdin, help_option_names=names)


def written(name: str, text: str | bytes) -> str:
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return name


def loaded(result: Result) -> Any:
    return json.loads(result.stdout)


SAMPLE = b"\n".join(reading(seq=number) for number in range(3))

# ---- new ----


def test_a_draft_is_printed_and_takes_its_sample():
    result = run("new", written("fleet.ndjson", SAMPLE))
    assert result.exit_code == 0
    assert "3 of 3 records of the sample would be delivered" in result.stderr
    file = written("fleet.toml", result.stdout)
    checked = run("check", file, "--sample", "fleet.ndjson")
    assert (checked.exit_code, checked.stdout) == (
        0,
        "fleet.toml: fleet 1, 4 fields\n3 records: 3 delivered\n",
    )


def test_a_draft_never_replaces_a_file():
    file = written("fleet.ndjson", SAMPLE)
    assert run("new", file, "--out", "a.toml", "--name", "mine").exit_code == 0
    assert load_contract("./a.toml").name == "mine"
    again = run("new", file, "--out", "a.toml")
    assert again.exit_code == 2
    assert "a.toml is there already" in again.stderr


def test_a_draft_as_json():
    told = loaded(run("new", "-", "--json", stdin=SAMPLE + b"\n{"))
    assert told["fields"] == ["device_id", "ts", "seq", "temperature"]
    assert told["sample"]["delivered"] == 3
    assert told["warnings"] == [
        "1 rejected: malformed_json, such as line 4: Input data was truncated"
    ]
    assert 'name = "fleet"' in told["contract"]


def test_a_name_that_no_contract_can_have():
    result = run("new", written("fleet.ndjson", SAMPLE), "--name", "My Fleet")
    assert result.exit_code == 2
    assert "lower-case letters, digits and -" in result.stderr


# ---- check ----


def test_every_mistake_is_printed():
    file = written("fleet.toml", TOP.replace('"iso8601"', '"iso"') + "[hot]\nttl = 1\n")
    result = run("check", file)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "fleet.toml:11:1: field 'at': format: 'iso'; did you mean iso8601?; allowed: one of "
        "iso8601, epoch_seconds, epoch_millis",
        "fleet.toml:13:1: hot: ttl: no such key; allowed: one of fields, layout, ttl_days, when",
        "millrace: fleet.toml has 2 mistakes",
    ]
    told = loaded(run("check", file, "--json"))
    assert [(one["line"], one["key"]) for one in told["mistakes"]] == [
        (11, "field 'at': format"),
        (13, "hot: ttl"),
    ]


def test_a_sample_is_told_by_reason_with_an_example_and_its_line():
    lines = [reading(), reading(readings={"temperature": 200}), b"{", reading(), reading(seq=1)]
    lines += [reading(status="ok")]
    result = run("check", "telemetry", "--sample", written("s.ndjson", b"\n".join(lines)))
    assert result.exit_code == 1
    told = result.stdout.splitlines()[1:]
    assert told == [
        "6 records: 4 delivered, 2 rejected",
        "  1 out_of_range (temperature)",
        "    line 2: readings.temperature is 200; the contract takes -60.0 to 125.0",
        f"    {lines[1].decode()}",
        "  1 malformed_json",
        "    line 3: Input data was truncated",
        "    {",
        "1 rows repeat others, byte for byte",
        "1 rows share their record id with a different one: identity.record_id does not tell them "
        "apart",
    ]
    as_json = loaded(run("check", "telemetry", "--sample", "s.ndjson", "--json"))
    assert as_json["sample"]["quarantined"] == 2
    assert as_json["mistakes"] == []


def test_a_sample_is_read_by_the_versions_that_its_records_name():
    versioned = 'version = 2\n\n[schema]\npath = "v"\n\n[identity]'
    new = (
        TOP.replace("[identity]", versioned)
        + '[[field]]\nname = "n"\ntype = "int64"\nrequired = true\n'
    )
    written("one.toml", TOP)
    written("two.toml", new)
    message = {"device": "a", "at": "2026-11-24T10:00:00Z"}
    lines = [json.dumps(message | more).encode() for more in ({"n": 1}, {"v": 1}, {"v": "fleet@1"})]
    sample = written("s.ndjson", b"\n".join(lines))
    alone = run("check", "two.toml", "--sample", sample)
    assert (alone.exit_code, alone.stdout.count("unknown_schema")) == (1, 1)
    beside = run("check", "two.toml", "--beside", "one.toml", "--sample", sample)
    assert (beside.exit_code, beside.stdout.splitlines()[1]) == (0, "3 records: 3 delivered")


def test_versions_that_cannot_be_in_use_at_once_are_no_sample_s_to_name():
    file, other = written("one.toml", TOP), TOP.replace("[identity]", "version = 2\n\n[identity]")
    twice = run("check", file, "--beside", written("same.toml", TOP))
    assert isinstance(twice.exception, ContractError)
    assert str(twice.exception) == "same.toml: version 1 is there twice"
    clashing = written("two.toml", other.replace('name = "fleet"', 'name = "float"'))
    result = run("check", file, "--beside", clashing)
    assert isinstance(result.exception, ContractError)
    assert "name is fleet in version 1, float in 2" in str(result.exception)


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.toml")))
def test_shipped_contracts_are_right_and_their_examples_hold(name):
    assert run("check", name).exit_code == 0
    result = run("test", name)
    assert result.exit_code == 0, result.stdout
    assert "FAIL" not in result.stdout


# ---- test ----

EXAMPLES = """\
[[field]]
name = "v"
type = "float64"
max = 10
[[example]]
name = "good"
message = {device = "a", at = "2026-11-24T10:00:00Z", v = 1}
rows = 1
expect = {v = 1.0, at = "2026-11-24T11:00:00+01:00"}
[[example]]
name = "wrong value"
message = {device = "a", at = "2026-11-24T10:00:00Z", v = 1}
expect = {v = 2.0, device = "a"}
[[example]]
name = "not rejected"
message = {device = "a", at = "2026-11-24T10:00:00Z", v = 1}
rejected = "out_of_range"
[[example]]
name = "another field"
message = {device = "a", at = "2026-11-24T10:00:00Z", v = 11}
rejected = "out_of_range"
field = "at"
[[example]]
name = "not delivered"
message = "{"
expect = {v = 1.0}
[[example]]
name = "none"
message = "{"
rows = 1
"""


def test_examples_that_do_not_hold_are_told_with_what_is():
    result = run("test", written("fleet.toml", TOP + EXAMPLES))
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "pass  good",
        "FAIL  wrong value",
        "      v",
        "        - 2.0",
        "        + 1.0",
        "FAIL  not rejected",
        "      rejected",
        "        - out_of_range",
        "        + delivered",
        "FAIL  another field",
        "      field",
        "        - at",
        "        + v",
        "FAIL  not delivered",
        "      fate",
        "        - delivered",
        "        + rejected: malformed_json: Input data was truncated",
        "FAIL  none",
        "      rows",
        "        - 1",
        "        + 0",
        "1 of 6 examples hold",
    ]
    told = loaded(run("test", "fleet.toml", "--json"))
    assert [one["holds"] for one in told] == [True, *[False] * 5]
    assert told[1]["differences"] == [{"what": "v", "expected": 2.0, "found": 1.0}]


def test_an_example_may_say_when_it_arrives():
    more = """[[example]]
name = "early"
message = {device = "a", at = "2026-11-24T10:06:00Z"}
arrival = 2026-11-24T10:00:00Z
rejected = "future_time"
[[example]]
name = "in time"
message = {device = "a", at = "2026-11-24T10:06:00Z"}
arrival = "2026-11-24T10:01:00Z"
expect = {at = 2026-11-24T10:06:00Z, _arrival = 2026-11-24T10:01:00Z}
"""
    assert run("test", written("fleet.toml", TOP + more)).exit_code == 0


def test_a_contract_without_examples():
    result = run("test", written("fleet.toml", TOP))
    assert result.exit_code == 2
    assert "has no [[example]]" in result.stderr


# ---- schema, diff ----


@pytest.mark.parametrize("form", ["json-schema", "arrow", "glue", "dynamodb", "markdown"])
def test_schemas_for_people_and_machines(form):
    text = run("schema", "telemetry", "--format", form)
    assert text.exit_code == 0
    assert "temperature" in text.stdout
    assert loaded(run("schema", "telemetry", "--format", form, "--json"))


def test_a_diff_exits_by_what_it_finds():
    written("a.toml", TOP)
    written("b.toml", TOP + '[[field]]\nname = "x"\ntype = "int64"\n')
    assert run("diff", "a.toml", "a.toml").stdout == "No rule differs.\n"
    added = run("diff", "a.toml", "b.toml")
    assert added.exit_code == 0
    assert added.stdout.splitlines()[0] == "safe      field 'x': none -> x"
    removed = run("diff", "b.toml", "a.toml")
    assert removed.exit_code == 1
    assert "2 changes, 2 breaking" in removed.stdout
    assert loaded(run("diff", "b.toml", "a.toml", "--json"))[0]["whom"] == [
        "analysts",
        "hot readers",
    ]
