"""Every mistake in a contract file is answered with its line and how to mend it, all at once.

A case is a whole file in which the line of the mistake ends in `#!`; what follows is what the
answer must hold: what is wrong, and the fix. To add one, write it down; nothing else is needed.
"""

from __future__ import annotations

import pytest

from infra.contracts.mistakes import mistakes
from transform.contract_file import SHIPPED, ContractError, files_beside, parse_contract

FILE = "fleet.toml"
MARK = "#!"
TOP = """\
name = "fleet"
[identity]
device = "device"
event_time = "at"
[[field]]
name = "device"
type = "string"
[[field]]
name = "at"
type = "timestamp"
format = "iso8601"
"""
SIX = "one of string, int64, float64, bool, timestamp"


def field(*lines: str) -> str:
    """A third field, `x`; a mark in its name's place stands at its header."""
    return TOP + "[[field]]\n" + 'name = "x"\n' + "\n".join(lines) + "\n"


def example(*lines: str) -> str:
    return TOP + '[[example]]\nname = "one"\n' + "\n".join(lines) + "\n"


def top(old: str, new: str) -> str:
    assert old in TOP
    return TOP.replace(old, new, 1)


GOOD = """message = '{"device": "a", "at": "2026-11-24T10:00:00Z"}'"""

# What each says, by file: the words that the answer holds.
CASES: dict[str, tuple[str, ...]] = {
    # The file as such
    top('name = "fleet"', 'name = "fleet #!'): ("not a TOML document",),
    top("[identity]", "[identity  #!"): ("not a TOML document",),
    TOP + "[identity]  #!\n": ("not a TOML document",),
    TOP + '[[field]]\nname = "x"\nname = "y"  #!\n': ("not a TOML document",),
    TOP + '[[field]]\nname = "x"\ntype = int64  #!\n': ("not a TOML document",),
    "[identity]  #!!\n" + top('name = "fleet"\n', "").replace("[identity]\n", "", 1): (
        "name: is missing",
        "lower-case letters, digits and -",
    ),
    top('"fleet"', '"My Fleet"  #!'): ("'My Fleet'", "lower-case letters, digits and -"),
    TOP.replace("[identity]", "version = 0  #!\n[identity]"): ("version: 0", "1 to 9999"),
    TOP.replace("[identity]", 'version = "2"  #!\n[identity]'): ("wrong type", "1 to 9999"),
    TOP.replace("[identity]", 'nmae = "x"  #!\n[identity]'): ("no such key", "did you mean name"),
    TOP + "[limit]  #!\nmax_body_bytes = 1\n": ("no such key", "did you mean limits"),
    TOP + "[[fields]]  #!\n": ("no such key", "did you mean field"),
    # Identity
    top("device =", "devise =").replace('devise = "device"', 'devise = "device"  #!'): (
        "no such key",
        "did you mean device",
    ),
    top('"device"', '"devise"  #!'): ("no field 'devise'", "did you mean device", "one of device"),
    top('event_time = "at"', 'event_time = "device"  #!'): ("is a string", "one of at"),
    top('event_time = "at"', 'event_time = "at"\nrecord_id = "seq"  #!'): (
        "a list of field names",
    ),
    top('event_time = "at"', 'event_time = "at"\nrecord_id = ["seq"]  #!'): (
        "no field",
        "device, at",
    ),
    top('event_time = "at"', 'event_time = "at"\nrecord_id = []  #!'): ("is empty", "no list for"),
    top('event_time = "at"', 'event_time = "at"\nsequence = "device"  #!'): (
        "is a string",
        "an int64 field",
    ),
    top('event_time = "at"', 'event_time = "at"\nboot = "device"  #!'): (
        "there is no `sequence`",
        "a `sequence` beside it",
    ),
    top('event_time = "at"', 'event_time = "at"\nsequence = "n"\nboot = "v"  #!')
    + '[[field]]\nname = "n"\ntype = "int64"\n[[field]]\nname = "v"\ntype = "float64"\n': (
        "tells no boots apart",
        "one of device, at",
    ),
    TOP.replace('event_time = "at"\n', "").replace("[identity]", "[identity]  #!"): (
        "event_time: is missing",
        "one of at",
    ),
    top('type = "string"', 'type = "string"\ndefault = "a"  #!'): (
        "no default",
        "remove `default`",
    ),
    # Limits and hot
    TOP + "[limits]\nmax_body_bytes = 1_000_000  #!\n": ("1000000", "1 to 262144"),
    TOP + '[limits]\nmax_body_bytes = "64k"  #!\n': ("wrong type", "1 to 262144"),
    TOP + "[limits]\nmax_bytes = 1000  #!\n": ("no such key", "max_body_bytes"),
    TOP + "[limits]\nmax_future_seconds = -1  #!\n": ("-1", "0 to 31536000"),
    TOP + "[hot]\nttl_days = 0  #!\n": ("ttl_days: 0", "1 to 36500"),
    TOP + "[hot]\nttl = 7  #!\n": ("no such key", "one of fields, layout, ttl_days"),
    TOP + '[hot]\nlayout = "newest"  #!\n': ("layout: 'newest'", "one of reading, latest"),
    TOP + "[hot]\nlayout = 1  #!\n": ("layout: 1", "one of reading, latest"),
    # Fields
    TOP + '[[field]]  #!\ntype = "int64"\n': ("name: is missing", "a lower-case letter"),
    TOP + '[[field]]\nname = "airTemp"  #!\ntype = "int64"\n': ("'airTemp'", "lower-case letters"),
    TOP + '[[field]]\nname = "pk"  #!\ntype = "int64"\n': ("hot table's own", "another name"),
    TOP + '[[field]]\nname = "at"  #!\ntype = "int64"\n': ("already a field", "names differ"),
    TOP + '[[field]]  #!\nname = "x"\n': ("type: is missing", SIX),
    field('type = "int"  #!'): ("type: 'int'", "did you mean int64", SIX),
    field('type = "number"  #!'): ("type: 'number'", SIX),
    field('typ = "int64"', 'type = "int64"').replace('typ = "int64"', 'typ = "int64"  #!'): (
        "no such key",
        "did you mean type",
    ),
    TOP + '[[field]]  #!\nname = "x"\ntype = "timestamp"\n': ("format: is missing", "iso8601"),
    field('type = "timestamp"', 'format = "iso"  #!'): ("'iso'", "iso8601, epoch_seconds"),
    field('type = "string"', 'format = "iso8601"  #!'): ("only a timestamp has one", "remove it"),
    field('type = "int64"', 'required = "yes"  #!'): ("wrong type", "true or false"),
    field('type = "int64"', "required = true", "default = 0  #!"): (
        "drop `required` or `default`",
    ),
    field('type = "int64"', "default = 0.5  #!"): ("0.5 is not an int64", "field's own type"),
    field('type = "int64"', "min = 5  #!", "max = 1"): ("5 is above max 1", "min at most max"),
    field('type = "string"', "max = 10  #!"): ("has no range", "int64 and float64"),
    field('type = "float64"', "max = inf  #!"): ("not finite", "field's own type"),
    field('type = "float64"', "minimum = 0  #!"): ("no such key", "did you mean min"),
    field('type = "string"', 'allowed = "on"  #!'): ("wrong type", "a list of values"),
    field('type = "string"', "allowed = []  #!"): ("is empty", "at least one value"),
    field('type = "string"', 'allowed = ["on", 1]  #!'): ("1 is not a string", "string values"),
    field('type = "float64"', "allowed = [1.5]  #!"): ("no list of values", "string and int64"),
    field('type = "int64"', "default = 3  #!", "allowed = [1, 2]"): ("not allowed", "one of 1, 2"),
    field('type = "int64"', "path = 7  #!"): ("wrong type", "a list of keys"),
    field('type = "int64"', 'path = "a..b"  #!'): ("empty key", "a list of keys"),
    field('type = "int64"', 'path = "device"  #!'): ("lie on one path", "either a field or an obj"),
    field('type = "int64"', 'path = "device.x"  #!'): (
        "lie on one path",
        "either a field or an ob",
    ),
    field('type = "int64"', "unit = 7  #!"): ("wrong type", "text"),
    # Where values come from
    field('type = "int64"', 'path = "x"', 'expr = "1"  #!'): ("beside `path`", "one place"),
    field('type = "int64"', 'attribute = "x"', 'lookup = "y"  #!'): ("beside `attri", "one place"),
    field('type = "int64"', 'attribute = ""  #!'): ("it is empty", "a name"),
    field('type = "int64"', 'expr = "1"', 'aliases = ["y"]  #!'): (
        "beside `expr`",
        "with one of path",
    ),
    field('type = "int64"', 'column = "y"  #!'): ("beside `path`", "with one of lookup"),
    field('type = "int64"', 'expr = "1"', 'of = "reading"  #!'): ("beside `expr`", "one of path"),
    field('type = "int64"', 'aliases = "y"  #!'): ("wrong type", "a list of paths"),
    field('type = "int64"', 'aliases = ["a..b"]  #!'): ("empty key", "a list of keys"),
    field('type = "int64"', 'aliases = ["device"]  #!'): ("lie on one path", "either a field or"),
    field('type = "float64"', 'aliases = [{path = "y", units = "V"}]  #!'): (
        "no such key",
        "did you mean unit",
    ),
    field('type = "float64"', 'aliases = [{path = "y", unit = "V"}]  #!'): (
        "converted to what",
        "`unit`",
    ),
    field('type = "int64"', 'from_unit = "degF"  #!', 'unit = "Cel"'): ("not converted", "float64"),
    field('type = "float64"', 'from_unit = "degF"  #!'): ("converted to what", "`unit` says"),
    field('type = "float64"', 'from_unit = "degF"  #!', 'unit = "V"'): (
        "units of one kind",
        "UCUM",
    ),
    field('type = "float64"', 'from_unit = "fahrenhate"  #!', 'unit = "Cel"'): (
        "units of one kind",
    ),
    field('type = "int64"', 'privacy = "secret"  #!'): ("'secret'", "one of redact, hash"),
    field('type = "int64"', 'privacy = "hash"  #!'): ("is not hashed", "`hash` on a string field"),
    top('type = "string"', 'type = "string"\nprivacy = "redact"  #!'): ("not redacted", '"hash"'),
    field('type = "float64"', 'expr = "y * 2"  #!'): ("expr", "y"),
    field('type = "float64"', 'expr = "1 +"  #!'): ("expr", "operators, functions"),
    field('type = "float64"', 'expr = ""  #!'): ("it is empty", "an expression"),
    field('type = "float64"', "expr = 1  #!"): ("wrong type", "an expression"),
    field('type = "int64"', 'expr = "1.5"  #!'): ("it is a float64", '`type = "float64"`'),
    field('type = "timestamp"', 'format = "iso8601"  #!', 'expr = "at"'): (
        "a moment already",
        "remove",
    ),
    field('type = "float64"', 'expr = "z + 1"  #!')
    + '[[field]]\nname = "z"\ntype = "float64"\nexpr = "1.0"\n': (
        "made further down",
        "move it up",
    ),
    field('type = "string"', 'lookup = "sites"  #!'): ("no lookup is called", "[[lookup]] table"),
    TOP + '[[lookup]]  #!\nname = "sites"\non = "device"\n': ("file: is missing", ".csv, .ndjson"),
    TOP + '[[lookup]]\nname = "sites"\nfile = "../a.csv"  #!\non = "device"\n': ("own folder",),
    TOP + '[[lookup]]\nname = "sites"\nfile = "a.csv"\non = "devise"  #!\n': (
        "did you mean device",
    ),
    # What becomes of rows
    TOP + '[[filter]]\nname = "low"\nkeep = "device"  #!\n': ("it is a string", "true or false"),
    TOP + '[[filter]]\nname = "low"\nkeep = "devise == 1"  #!\n': ("devise",),
    TOP + '[[filter]]  #!\nname = "low"\n': ("one of `keep` and `drop`", "a condition"),
    TOP + '[[filter]]\nname = "sample"  #!\ndrop = "true"\n': ("is taken", "names differ"),
    TOP + '[hot]\nwhen = "device"  #!\n': ("it is a string", "true or false"),
    TOP + '[hot]\nfields = ["temp"]  #!\n': ("no field is called 'temp'", "one of device, at"),
    TOP + "[sample]\nkeep = 10  #!\n": ("keep: 10", "over 0 and under 1"),
    TOP + "[limits]\nmax_lateness_seconds = -1  #!\n": ("-1", "0 to"),
    # What messages are
    TOP.replace("[identity]", 'unknown = "ignore"  #!\n[identity]'): ("'ignore'", "rescue, drop"),
    TOP + '[envelope]\nbody = "csv"  #!\n': ("'csv'", "one of json, ndjson"),
    TOP + '[envelope]\nunwrap = ["sqs"]  #!\n': ("'sqs'", "did you mean sns", "sns, eventbridge"),
    TOP + '[envelope]\nunwrap = "sns"  #!\n': ("wrong type", "a list of one of sns"),
    TOP + '[explode]\npath = "list"  #!\n': ("no field is of a reading", '`of = "reading"`'),
    TOP + '[explode]  #!\nempty = "drop"\n': ("path: is missing", "a list of keys"),
    field('type = "int64"', 'of = "reading"  #!'): ("there is no list", "an [explode] table"),
    field('type = "int64"', 'of = "readings"  #!'): ("did you mean reading", "reading, message"),
    TOP + '[choose]  #!\npath = "kind"\n': ("case: there is none", "[[choose.case]]"),
    TOP + '[choose]  #!\n[[choose.case]]\nvalue = "a"\n': ("one of `path` and `attribute`",),
    TOP + '[choose]\npath = "k"\n[[choose.case]]  #!\n': ("value: is missing", "a list of values"),
    TOP + '[choose]\npath = "k"\n[[choose.case]]\nvalue = "a"\nfields = ["b"]  #!\n': ("no field",),
    TOP + '[choose]\npath = "k"\notherwise = "keep"  #!\n[[choose.case]]\nvalue = "a"\n': (
        "'keep'",
        "one of reject, drop",
    ),
    TOP + "[schema]  #!\n": ("one of `path` and `attribute`", "where the message says it"),
    # Examples
    TOP + "[[example]]  #!\n" + GOOD + "\nrows = 1\n": ("name: is missing", "text"),
    TOP + '[[example]]  #!\nname = "one"\nrows = 1\n': ("message: is missing", "as text, or as an"),
    TOP + '[[example]]  #!\nname = "one"\n' + GOOD + "\n": ("expects nothing", "rejected, dropped"),
    example("message = 7  #!", "rows = 1"): ("wrong type", "an inline table"),
    example("message = {at = 2026-11-24}  #!", "rows = 1"): ("not JSON", "times as text"),
    example(GOOD, 'rejected = "too_hot"  #!'): ("'too_hot'", "out_of_range"),
    example(GOOD, 'rejected = "out_of_rnge"  #!'): ("did you mean out_of_range",),
    example(GOOD, "rows = 1", 'field = "x"  #!'): ("nothing is rejected", "with `rejected`"),
    example(GOOD, 'rejected = "wrong_type"', "expect = {at = 1}  #!"): ("`expect`, or `rejected`",),
    example(GOOD, "expect = {temperature = 1}  #!"): ("no column 'temperature'", "device, at"),
    example(GOOD, "expect = {at = 2026-11-24T10:00:00}  #!"): ("no offset", "Z or +hh:mm"),
    example(GOOD, "rows = -1  #!"): ("-1", "0 to 1000000"),
    example(GOOD, "rows = 1", 'arrival = "noon"  #!'): ("not an ISO-8601 time", "with an offset"),
    example(GOOD, "rows = 1", "attributes = {a = 1}  #!"): ("1 is no text", "a table of texts"),
    example(GOOD, "row = 1  #!", "rows = 1"): ("no such key", "did you mean rows"),
}


def marked(text: str) -> tuple[bytes, int]:
    """The file without its mark, and the line of it."""
    lines = text.splitlines()
    [line] = [number for number, one in enumerate(lines, 1) if MARK in one]
    return text.replace(MARK + "!", "").replace(MARK, "").encode(), line


@pytest.mark.parametrize(("text", "words"), CASES.items(), ids=[c[0] for c in CASES.values()])
def test_a_mistake_is_told_with_its_line_and_the_fix(text, words):
    data, line = marked(text)
    with pytest.raises(ContractError) as caught:
        parse_contract(data, FILE)
    told = str(caught.value)
    assert told.startswith(f"{FILE}:{line}:"), told
    for word in words:
        assert word in told
    if "not a TOML document" not in told:
        assert [str(one) for one in mistakes(data, FILE)] == [told]


def test_the_cases_are_many():
    assert len(CASES) >= 40
    parse_contract(TOP.encode(), FILE)


def test_all_mistakes_are_told_at_once_in_the_order_of_their_lines():
    text = (
        top('"fleet"', '"Fleet"').replace('"iso8601"', '"iso"')
        + "[limits]\nmax_body = 1\nmax_future_seconds = -1\n"
        + '[[field]]\nname = "x"\ntype = "int"\nunit = 1\n'
        + '[[field]]\nname = "y"\ntype = "int64"\nmin = "a"\nmax = "b"\nunit = 1\n'
        + '[[field]]\nname = "z"\ntype = "bool"\ncolour = 1\n'
    )
    found = [(one.line, one.column, one.key) for one in mistakes(text.encode(), FILE)]
    assert found == [
        (1, 1, "name"),
        (11, 1, "field 'at': format"),
        (13, 1, "limits: max_body"),
        (14, 1, "limits: max_future_seconds"),
        (17, 1, "field 'x': type"),
        (22, 1, "field 'y': min"),
        (23, 1, "field 'y': max"),
        (24, 1, "field 'y': unit"),
        (28, 1, "field 'z': colour"),
    ]


def test_a_lookup_that_cannot_be_read_is_told_where_it_is_named(tmp_path):
    text = TOP + '[[lookup]]\nname = "sites"\nfile = "sites.csv"\non = "device"\n'
    text += '[[field]]\nname = "site"\ntype = "string"\nlookup = "sites"\n'
    files = files_beside(tmp_path / FILE)
    [told] = mistakes(text.encode(), FILE, files)
    assert (told.line, told.key) == (14, "lookup 'sites': file")
    assert "cannot be read" in told.wrong
    (tmp_path / "sites.csv").write_text("device,site\na,x\na,y\n")
    [told] = mistakes(text.encode(), FILE, files)
    assert (told.line, told.allowed) == (14, "one row for each key")


def test_what_only_follows_from_another_mistake_is_not_told():
    """A field without a type cannot be the event time, but that is not what is wrong."""
    text = TOP.replace('type = "timestamp"\n', "")
    assert [one.key for one in mistakes(text.encode(), FILE)] == ["field 'at': type"]


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.toml")), ids=lambda file: file.stem)
def test_a_good_contract_has_none(file):
    assert mistakes(file.read_bytes(), str(file)) == []


@pytest.mark.parametrize("data", [b"", b"name = 1", b"field = 1", b"field = [1]", b"identity = 1"])
def test_little_is_read_to_its_end(data):
    assert mistakes(data, FILE)
