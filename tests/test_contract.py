"""A contract file is either usable or refused with file, key, what is wrong and what is allowed."""

import hashlib
import re

import pyarrow as pa
import pytest

from transform.contract import ROW_MARKS, Field
from transform.contract_fields import FIELDS_MAX
from transform.contract_file import (
    DEFAULT_BODY_BYTES,
    DEFAULT_FUTURE_SECONDS,
    SHIPPED,
    ContractError,
    load_contract,
    parse_contract,
)
from transform.contract_paths import PATH_KEYS_MAX
from transform.records import ROW_FIELDS, UTC_MICROS

FILE = "probe.toml"

ROOT = 'name = "probe"'
IDENTITY = '[identity]\ndevice = "id"\nevent_time = "at"'
FIELDS = """
[[field]]
name = "id"
type = "string"
[[field]]
name = "at"
type = "timestamp"
format = "epoch_millis"
"""


def document(root=ROOT, identity=IDENTITY, fields=FIELDS, more=""):
    return f"{root}\n{identity}\n{fields}\n{more}\n"


def with_field(lines):
    """A document with a third field, `x`."""
    return document(more=f'[[field]]\nname = "x"\n{lines}')


def parse(text):
    return parse_contract(text.encode(), FILE)


# Each maps what is written to how the answer to it begins.
MISTAKES = {
    document(root=""): "name: is missing; allowed: lower-case letters, digits and -, at most 40",
    document(root="name = 1"): "name: 1 is of the wrong type; allowed: lower-case letters",
    document(root='name = "Probe"'): "name: 'Probe'; allowed: lower-case letters",
    document(root=f'name = "{"a" * 41}"'): f"name: '{'a' * 41}'; allowed: lower-case letters",
    document(root='name = "a\\n"'): "name: 'a\\n'; allowed: lower-case letters",
    document(root=f'{ROOT}\nversion = "1"'): (
        "version: '1' is of the wrong type; allowed: 1 to 9999"
    ),
    document(root=f"{ROOT}\nversion = true"): (
        "version: True is of the wrong type; allowed: 1 to 9999"
    ),
    document(root=f"{ROOT}\nversion = 0"): "version: 0; allowed: 1 to 9999",
    document(root=f"{ROOT}\nversion = 10000"): "version: 10000; allowed: 1 to 9999",
    document(root=f"{ROOT}\ndescription = []"): (
        "description: [] is of the wrong type; allowed: text"
    ),
    document(root=f"{ROOT}\ncolour = 1"): (
        "colour: no such key; allowed: one of choose, description, envelope, example, explode"
    ),
    document(root=f"{ROOT}\npinned = 1"): "pinned: no such key; allowed: one of choose, desc",
    document(fields=""): "field: there is none; allowed: describe each field in a [[field]] table",
    document(root=f"{ROOT}\nfield = []", fields=""): "field: there is none; allowed: describe",
    document(root=f"{ROOT}\nfield = [1]", fields=""): (
        "field: not a list of tables; allowed: describe each field in a [[field]] table"
    ),
    document(fields='[field]\nname = "id"'): (
        "field: {'name': 'id'} is of the wrong type; allowed: at least one [[field]] table"
    ),
    document(more='[[field]]\nname = "x"\n' * (FIELDS_MAX - 1)): (
        f"field: {FIELDS_MAX + 1} fields; allowed: at most {FIELDS_MAX}"
    ),
    document(identity=""): "identity: is missing; allowed: a table [identity]",
    document(root=f"{ROOT}\nidentity = 1", identity=""): (
        "identity: 1 is of the wrong type; allowed: a table [identity]"
    ),
    document(identity=f"{IDENTITY}\nversion = 1"): (
        "identity: version: no such key; allowed: one of boot, device, event_time, record_id, "
        "sequence"
    ),
    document(identity='[identity]\nevent_time = "at"'): (
        "identity: device: is missing; allowed: a string field, one of id"
    ),
    document(fields=FIELDS.replace('"string"', '"int64"')): (
        "identity: device: 'id' is an int64; allowed: a string field"
    ),
    document(identity=IDENTITY.replace('"id"', '"di"')): (
        "identity: device: no field 'di'; allowed: a string field, one of id"
    ),
    document(identity=IDENTITY.replace('"id"', '"at"')): (
        "identity: device: 'at' is a timestamp; allowed: a string field, one of id"
    ),
    document(identity=IDENTITY.replace('"id"', "7")): (
        "identity: device: 7 is of the wrong type; allowed: a string field, one of id"
    ),
    document(identity='[identity]\ndevice = "id"'): (
        "identity: event_time: is missing; allowed: a timestamp field, one of at"
    ),
    document(identity=IDENTITY.replace('"at"', '"id"')): (
        "identity: event_time: 'id' is a string; allowed: a timestamp field, one of at"
    ),
    document(identity=f'{IDENTITY}\nrecord_id = "id"'): (
        "identity: record_id: 'id' is of the wrong type; allowed: a list of field names"
    ),
    document(identity=f"{IDENTITY}\nrecord_id = []"): (
        "identity: record_id: the list is empty; allowed: field names, or no list for identity"
    ),
    document(identity=f'{IDENTITY}\nrecord_id = ["id", "seq"]'): (
        "identity: record_id: no field is called 'seq'; allowed: one of id, at"
    ),
    document(identity=f'{IDENTITY}\nrecord_id = [["id"]]'): (
        "identity: record_id: no field is called ['id']; allowed: one of id, at"
    ),
    document(
        identity=f'{IDENTITY}\nrecord_id = ["part"]',
        more='[[field]]\nname = "part"\ntype = "float64"',
    ): "identity: record_id: 'part' is a float64; allowed: use string, int64, bool or timestamp",
    document(fields=FIELDS.replace('type = "string"', 'type = "string"\ndefault = ""')): (
        "identity: id: an identity field takes no default; allowed: remove `default`"
    ),
    document(root=f"{ROOT}\nlimits = 1"): (
        "limits: 1 is of the wrong type; allowed: a table [limits]"
    ),
    document(more="[limits]\nmax_rows = 1"): (
        "limits: max_rows: no such key; allowed: one of max_body_bytes, max_future_seconds"
    ),
    document(more="[limits]\nmax_body_bytes = 0"): (
        "limits: max_body_bytes: 0; allowed: 1 to 262144"
    ),
    document(more="[limits]\nmax_body_bytes = 262145"): (
        "limits: max_body_bytes: 262145; allowed: 1 to 262144"
    ),
    document(more="[limits]\nmax_body_bytes = 1.5"): (
        "limits: max_body_bytes: 1.5 is of the wrong type; allowed: 1 to 262144"
    ),
    document(more="[limits]\nmax_future_seconds = -1"): (
        "limits: max_future_seconds: -1; allowed: 0 to 31536000"
    ),
    document(root=f"{ROOT}\nhot = 1"): "hot: 1 is of the wrong type; allowed: a table [hot]",
    document(
        more="[hot]\nttl = 1"
    ): "hot: ttl: no such key; allowed: one of fields, layout, ttl_days, when",
    document(more="[hot]\nttl_days = 0"): "hot: ttl_days: 0; allowed: 1 to 36500",
    document(more='[[field]]\ntype = "bool"'): (
        "field 3: name: is missing; allowed: a lower-case letter, then lower-case letters"
    ),
    document(more='[[field]]\nname = "_record_id"\ntype = "bool"'): (
        "field 3: name: '_record_id'; allowed: a lower-case letter, then lower-case letters"
    ),
    document(more=f'[[field]]\nname = "{"a" * 65}"\ntype = "bool"'): (
        f"field 3: name: '{'a' * 65}'; allowed: a lower-case letter"
    ),
    document(more='[[field]]\nname = "pk"\ntype = "bool"'): (
        "field 'pk': name: 'pk' is the hot table's own; allowed: another name"
    ),
    document(more='[[field]]\nname = "id"\ntype = "bool"\npath = "other"'): (
        "field 'id': name: 'id' is already a field; allowed: names differ"
    ),
    document(
        more='[[field]]\nname = "y"\ntype = "bool"\npath = "a.b"\n'
        '[[field]]\nname = "x"\ntype = "bool"\npath = "a"'
    ): "field 'x': path: 'a' and 'y' ('a.b') lie on one path; allowed: a value is either a field",
}

TOO_DEEP = '"a", ' * (PATH_KEYS_MAX + 1)
OWN_TYPE = "allowed: a value of the field's own type"
FIELD_MISTAKES = {
    "": "type: is missing; allowed: one of string, int64, float64, bool, timestamp",
    'type = "int32"': "type: 'int32'; did you mean int64?; allowed: one of string, int64,",
    'type = "bool"\nnullable = 1': "nullable: no such key; allowed: one of aliases, allowed, attr",
    'type = "timestamp"': (
        "format: is missing; allowed: one of iso8601, epoch_seconds, epoch_millis"
    ),
    'type = "timestamp"\nformat = "epoch"': (
        "format: 'epoch'; allowed: one of iso8601, epoch_seconds, epoch_millis"
    ),
    'type = "int64"\nformat = "iso8601"': (
        "format: only a timestamp has one, this is an int64; allowed: remove it"
    ),
    'type = "int64"\nrequired = 1': ("required: 1 is of the wrong type; allowed: true or false"),
    'type = "int64"\nrequired = true\ndefault = 1': (
        "default: a required field has none; allowed: drop `required` or `default`"
    ),
    'type = "int64"\ndescription = 1': "description: 1 is of the wrong type; allowed: text",
    'type = "int64"\nunit = 1': "unit: 1 is of the wrong type; allowed: text",
    'type = "bool"\npath = 1': "path: 1 is of the wrong type; allowed: `a.b`, or a list of keys",
    'type = "bool"\npath = ""': "path: '' has an empty key; allowed: `a.b`, or a list of keys",
    'type = "bool"\npath = []': "path: [] has an empty key; allowed: `a.b`, or a list of keys",
    'type = "bool"\npath = "a..b"': "path: 'a..b' has an empty key; allowed: `a.b`",
    'type = "bool"\npath = [["a"]]': "path: [['a']] has an empty key; allowed: `a.b`",
    'type = "bool"\npath = [1]': "path: it begins with a place; allowed: a message is an object",
    'type = "bool"\npath = ["a", -1]': "path: the place -1; allowed: 0 to 99",
    'type = "bool"\npath = ["a", true]': "path: ['a', True] has an empty key",
    'type = "bool"\npath = "a[0].b"': (
        'path: \'a[0].b\' has a place in a list; allowed: `["a", 0, "b"]`'
    ),
    f'type = "bool"\npath = [{TOO_DEEP}]': (
        f"path: {PATH_KEYS_MAX + 1} keys; allowed: at most {PATH_KEYS_MAX}"
    ),
    "type = 'bool'\npath = ['a\"b']": "path: the key 'a\"b'; allowed: no quotes",
    "type = 'bool'\npath = ['a\\b']": "path: the key 'a\\\\b'; allowed: no quotes, \\ or",
    'type = "bool"\npath = ["a\\u0000b"]': (
        "path: the key 'a\\x00b'; allowed: no quotes, \\ or control characters"
    ),
    'type = "bool"\npath = "id"': (
        "path: 'id' and 'id' ('id') lie on one path; allowed: a value is either a field or"
    ),
    'type = "bool"\npath = "id.flag"': (
        "path: 'id.flag' and 'id' ('id') lie on one path; allowed: a value is either a field or"
    ),
    'type = "int64"\ndefault = "1"': f"default: '1' is not an int64; {OWN_TYPE}",
    'type = "int64"\ndefault = true': f"default: True is not an int64; {OWN_TYPE}",
    'type = "bool"\ndefault = 1': f"default: 1 is not a bool; {OWN_TYPE}",
    'type = "int64"\ndefault = 1.0': f"default: 1.0 is not an int64; {OWN_TYPE}",
    f'type = "int64"\ndefault = {2**63}': (f"default: {2**63} does not fit an int64; {OWN_TYPE}"),
    f'type = "float64"\ndefault = {10**400}': (
        f"default: int too large to convert to float; {OWN_TYPE}"
    ),
    'type = "float64"\ndefault = nan': f"default: nan is not finite; {OWN_TYPE}",
    'type = "timestamp"\nformat = "iso8601"\ndefault = "today"': (
        f"default: 'today' is not an ISO-8601 time; {OWN_TYPE}"
    ),
    'type = "timestamp"\nformat = "iso8601"\ndefault = 2026-01-01': (
        f"default: datetime.date(2026, 1, 1) is not a timestamp; {OWN_TYPE}"
    ),
    'type = "int64"\nmin = 1\ndefault = 0': (
        "default: 0 is out of range; allowed: a default in the range"
    ),
    'type = "float64"\nmax = 1\ndefault = 1.5': (
        "default: 1.5 is out of range; allowed: a default in the range"
    ),
    'type = "string"\nallowed = ["a", "b"]\ndefault = "c"': (
        "default: 'c' is not allowed; allowed: one of a, b"
    ),
    'type = "string"\nmin = "a"': (
        "min: a string has no range; allowed: int64 and float64 fields have one"
    ),
    'type = "timestamp"\nformat = "iso8601"\nmax = "2026-01-01T00:00Z"': (
        "max: a timestamp has no range; allowed: int64 and float64 fields have one"
    ),
    'type = "int64"\nmin = 0.5': f"min: 0.5 is not an int64; {OWN_TYPE}",
    'type = "float64"\nmax = inf': f"max: inf is not finite; {OWN_TYPE}",
    f'type = "float64"\nmin = {-(10**400)}': (
        f"min: int too large to convert to float; {OWN_TYPE}"
    ),
    'type = "float64"\nmin = 2\nmax = 1': ("min: 2.0 is above max 1.0; allowed: min at most max"),
    'type = "string"\nallowed = "a"': (
        "allowed: 'a' is of the wrong type; allowed: a list of values"
    ),
    'type = "float64"\nallowed = [1.0]': (
        "allowed: a float64 has no list of values; allowed: string and int64 have"
    ),
    'type = "string"\nallowed = []': ("allowed: the list is empty; allowed: at least one value"),
    'type = "int64"\nallowed = [1, "2"]': ("allowed: '2' is not an int64; allowed: int64 values"),
    'type = "int64"\nallowed = [true]': "allowed: True is not an int64; allowed: int64 values",
    'type = "int64"\nmax = 4\nallowed = [1, 5]': (
        "allowed: 5 is out of range; allowed: values in the range"
    ),
}

EVERY_MISTAKE = MISTAKES | {
    with_field(lines): f"field 'x': {answer}" for lines, answer in FIELD_MISTAKES.items()
}


@pytest.mark.parametrize(
    ("text", "answer"),
    EVERY_MISTAKE.items(),
    ids=[answer.partition(";")[0] for answer in EVERY_MISTAKE.values()],
)
def test_a_mistake_is_named_with_file_key_and_what_is_allowed(text, answer):
    with pytest.raises(ContractError) as caught:
        parse(text)
    assert re.match(rf"{FILE}:\d+:\d+: {re.escape(answer)}", str(caught.value))


@pytest.mark.parametrize(
    "data",
    [b"name = ", b"\xff", b"n = 1" + b"0" * 5_000, b"n = " + b"[" * 5_000],
    ids=["cut off", "not UTF-8", "an endless integer", "an endless nest"],
)
def test_what_is_not_toml_is_refused_with_its_file(data):
    with pytest.raises(ContractError, match=r"^probe.toml(:\d+:\d+)?: not a TOML document: ."):
        parse_contract(data, FILE)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ContractError, match=r"'fridges'; shipped are environment-sensors, telem"):
        load_contract("fridges")


@pytest.mark.parametrize("path", ["missing.toml", "some/folder/"])
def test_an_unreadable_file_is_named(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ContractError, match=rf"^{path.rstrip('/')}: cannot be read: No such file"):
        load_contract(path)


@pytest.mark.parametrize("name", ["environment-sensors", "telemetry"])
def test_a_shipped_contract_loads_by_name_and_by_path(name):
    path = SHIPPED / f"{name}.toml"
    contract = load_contract(name)
    assert contract == load_contract(str(path))
    assert contract.name == name
    assert contract.version == 1
    assert contract.description
    assert contract.source == path.read_bytes()
    assert contract.digest == hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
    assert contract.record_id[:2] == (contract.device, contract.event_time)
    assert all(field.description for field in contract.fields)


def test_every_shipped_contract_is_tested_here():
    assert sorted(path.stem for path in SHIPPED.glob("*.toml")) == [
        "environment-sensors",
        "telemetry",
    ]


def test_what_a_contract_leaves_out_has_a_default():
    contract = parse(document())
    assert contract.version == 1
    assert contract.description == ""
    assert contract.max_body_bytes == DEFAULT_BODY_BYTES
    assert contract.max_future_seconds == DEFAULT_FUTURE_SECONDS
    assert contract.hot_ttl_seconds is None
    assert contract.record_id == ()
    assert contract.fields == (
        Field(name="id", path=("id",), type="string", required=True),
        Field(name="at", path=("at",), type="timestamp", format="epoch_millis", required=True),
    )


def test_what_a_contract_says_is_kept():
    contract = parse(
        document(
            root=f'{ROOT}\nversion = 9999\ndescription = "Probes"',
            identity=f'{IDENTITY}\nrecord_id = ["x", "at", "x"]',
            more="[limits]\nmax_body_bytes = 262144\nmax_future_seconds = 0\n[hot]\nttl_days = 2\n"
            '[[field]]\nname = "x"\npath = ["a", "b.c"]\ntype = "int64"\nallowed = [7, 7, 8]\n'
            "min = -9223372036854775808\nmax = 9223372036854775807\n"
            'unit = "V"\ndescription = "Ex"',
        )
    )
    assert (contract.version, contract.description) == (9_999, "Probes")
    assert (contract.max_body_bytes, contract.max_future_seconds) == (262_144, 0)
    assert contract.hot_ttl_seconds == 2 * 86_400
    assert contract.record_id == ("id", "at", "x")
    assert contract.field("x") == Field(
        name="x",
        path=("a", "b.c"),
        type="int64",
        required=True,  # because it is in the record id
        minimum=-(2**63),
        maximum=2**63 - 1,
        allowed=(7, 8),
        description="Ex",
        unit="V",
    )


@pytest.mark.parametrize(
    ("lines", "default"),
    [
        ('type = "string"\ndefault = ""', ""),
        ('type = "string"\nallowed = ["a", ""]\ndefault = ""', ""),
        ('type = "int64"\ndefault = -9223372036854775808', -(2**63)),
        ('type = "int64"\nmin = 0\nmax = 0\ndefault = 0', 0),
        ('type = "float64"\ndefault = 1', 1.0),
        ('type = "bool"\ndefault = false', False),
        ('type = "timestamp"\nformat = "epoch_seconds"\ndefault = 1', 1_000_000),
        ('type = "timestamp"\nformat = "epoch_seconds"\ndefault = "1.5"', 1_500_000),
        ('type = "timestamp"\nformat = "iso8601"\ndefault = "1970-01-01T00:00:01Z"', 1_000_000),
    ],
)
def test_a_default_is_held_in_the_type_of_its_column(lines, default):
    found = parse(with_field(lines)).field("x").default
    assert found == default
    assert type(found) is type(default)


def test_without_a_record_id_the_position_is_the_identity():
    assert parse(document()).record_id == ()
    assert parse(document(identity=f'{IDENTITY}\nrecord_id = ["id"]')).record_id == ("id", "at")


def test_any_change_of_the_file_changes_the_digest():
    assert parse(document()).digest != parse(document() + "# a comment\n").digest


def test_the_landing_schema_is_the_fields_then_what_every_row_carries():
    contract = parse(
        with_field(
            'type = "float64"\nunit = "V"\ndescription = "Ex"\n'
            '[[field]]\nname = "b"\ntype = "bool"\ndefault = false\n'
            '[[field]]\nname = "i"\ntype = "int64"\nrequired = true\n'
            '[[field]]\nname = "t"\ntype = "timestamp"\nformat = "iso8601"'
        )
    )
    schema = contract.landing_schema()
    own = [(field.name, field.type, field.nullable) for field in schema][: len(contract.fields)]
    assert own == [
        ("id", pa.string(), False),
        ("at", UTC_MICROS, False),
        ("x", pa.float64(), True),
        ("b", pa.bool_(), False),
        ("i", pa.int64(), False),
        ("t", UTC_MICROS, True),
    ]
    rest = [*schema][len(contract.fields) :]
    assert rest == [*ROW_MARKS, *ROW_FIELDS]
    assert schema.field("x").metadata == {b"description": b"Ex", b"unit": b"V"}


@pytest.mark.parametrize("name", ["environment-sensors", "telemetry"])
def test_the_landing_schema_of_a_shipped_contract_names_each_column_once(name):
    names = load_contract(name).landing_schema().names
    assert len(names) == len(set(names))
