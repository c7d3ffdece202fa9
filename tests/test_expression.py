"""The expression language: what it gives, and what it says to a mistake."""

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from tests import expression_oracle as oracle
from transform.expression import ExpressionError, parse
from transform.expression_kernels import TEXT_MAX_BYTES
from transform.field_types import ARROW_TYPES
from transform.records import UTC_MICROS

TYPES = {"a": "int64", "x": "float64", "s": "string", "t": "timestamp", "ok": "bool"}
ROWS = {
    "a": pa.array([1, -7, None, 2**63 - 1]),
    "x": pa.array([1.5, None, -0.5, 1e308]),
    "s": pa.array(["Ab c", None, "", "ß1.5"]),
    "t": pa.array([0, None, 1_732_500_000_123_456, 2**62], UTC_MICROS),
    "ok": pa.array([True, None, False, True]),
}


def value(text, rows=ROWS):
    return parse(text, TYPES).evaluate(rows, 4).to_pylist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a + 1", [2, -6, None, None]),
        ("a // 2", [0, -4, None, 2**62 - 1]),
        ("a % -4", [-3, -3, None, -1]),
        ("a / 0", [None] * 4),
        ("x * 10", [15.0, None, -5.0, None]),
        ("x ** 0.5", [1.5**0.5, None, None, 1e154]),
        ("a if ok else None", [1, None, None, 2**63 - 1]),
        ("0 < a < 5 or x < 0", [True, None, True, False]),
        ("s in ('', 'Ab c')", [True, None, True, False]),
        ("substring(s, -2)", [" c", None, "", ".5"]),
        ("string(a) + '/' + upper(s)", ["1/AB C", None, None, "9223372036854775807/ẞ1.5"]),
        (r"extract(s, r'^(\w+) ')", ["Ab", None, None, None]),
        (r"extract(s, r'b|(\d)\.')", ["", None, None, "1"]),
        ("year(t)", [1970, None, 2024, None]),
        ("coalesce(x, a, 0)", [1.5, -7.0, -0.5, 1e308]),
        ("x is None", [False, True, False, False]),
        ("field('a') == 1", [True, False, None, False]),
        ("1 + 2 * 3", [7] * 4),
        ("-2 ** 2", [-4.0] * 4),
        ("not ok or True and False", [False, None, True, False]),
        ("-9223372036854775808 // -1", [None] * 4),
        ("-9223372036854775808 % -1", [0] * 4),
        ("1.0 // 0.1", [9.0] * 4),
        ("5.5 % -2.0", [-0.5] * 4),
        ("round(2.5) + round(0.285, 2)", [2 + 0.28] * 4),
        ("round(x, 15)", [1.5, None, -0.5, 1e308]),
        ("weekday(t)", [3, None, 0, None]),
        ("epoch(t)", [0.0, None, 1_732_500_000.123456, None]),
        ("string(timestamp(1732500000.5))", ["2024-11-25T02:00:00.500000Z"] * 4),
        ("t < timestamp('2020-01-01T00:00:00Z')", [True, None, False, None]),
        ("min(a, 2.5)", [1.0, -7.0, None, 2.5]),
        ("a if None else 1", [None] * 4),
        ("False and a > 0", [False] * 4),
        ("True or a > 0", [True] * 4),
        ("x in (1.5, -0.5)", [True, None, True, False]),
        ("a not in (1, -7)", [False, False, None, True]),
        ("matches(s, r'b\\s')", [True, None, False, False]),
        ("int('0x1')", [None] * 4),
        ("float('1e999')", [None] * 4),
        ("sqrt(x)", [1.5**0.5, None, None, 1e154]),
        ("10 ** 400", [None] * 4),
    ],
)
def test_values(text, expected):
    assert value(text) == expected


MISTAKES = [
    ("", 1, "it is empty"),
    ("   ", 1, "it is empty"),
    ("a + temp", 5, "no field 'temp'; allowed: fields are a, ok, s, t, x"),
    ("  oks", 3, "did you mean 'ok'?"),
    ("lenght(s)", 1, "no function 'lenght'; allowed: did you mean 'length'? functions are abs,"),
    ("true", 1, "no field 'true'; allowed: True"),
    ("'ß' + temp", 7, "no field 'temp'"),
    ("s + 1", 1, "'+' with a string; allowed: two numbers or two texts; string(value)"),
    ("a * s", 5, "'*' with a string; allowed: numbers; float(text)"),
    ("a +\n s", 6, "'+' with a string"),
    ("t - t", 1, "seconds_between(a, b)"),
    ("ok + 1", 1, "'+' with a bool"),
    ("t > '2026-11-24'", 5, "timestamp('2026-11-24T02:03:04Z') is a moment"),
    ("s == 1", 6, "a comparison of a string and an int64; allowed: two of one type; string("),
    ("ok < ok", 6, "an order of bools; allowed: ==, != and not"),
    ("ok == None", 7, "a comparison with None; allowed: is None"),
    ("a is 1", 6, "`is` with a value; allowed: is None, or =="),
    ("a and ok", 1, "`and` with an int64; allowed: a bool, like `x > 0`"),
    ("not s", 5, "`not` with a string"),
    ("1 if a else 2", 6, "`if` with an int64"),
    ("a if ok else s", 14, "if of an int64 and a string"),
    ("-s", 1, "a sign before a string"),
    ("~a", 1, "no operator '~'; allowed: not"),
    ("s in 'abc'", 6, "contains(text, 'part') looks inside a text"),
    ("s in ()", 6, "`in` without a list"),
    ("s in (s, 'a')", 7, "not a literal"),
    ("s in ('a', 1)", 12, "in of a string and an int64"),
    ("1 < a in (1, 2)", 10, "`is` or `in` in a chain; allowed: `and` between comparisons"),
    ("a is None is None", 6, "`is` or `in` in a chain"),
    ("1 < a < None", 9, "a comparison with None"),
    ("a & ok", 5, "no operator '&'; allowed: and"),
    ("a @ a", 5, "no operator MatMult"),
    ("a && ok", 3, "no operator '&&'; allowed: and"),
    ("a <> 1", 3, "no operator '<>'; allowed: !="),
    ("ok ? 1 : 2", 4, "allowed: a if condition else b"),
    ("(a", 1, "'(' was never closed"),
    ("a +", 4, "invalid syntax, at the end"),
    ("a = 1", 3, "no operator '='; allowed: == to compare"),
    ("a; a", 2, "invalid syntax"),
    ("s.upper()", 1, "a call of no function"),
    ("s.a", 1, "a dot; allowed: field names"),
    ("s[0]", 1, "an index; allowed: substring"),
    ("f'{a}'", 1, "a formatted text; allowed: concat"),
    ("lambda: 1", 1, "Lambda is not in the language"),
    ("[a for a in s]", 1, "ListComp is not in the language"),
    ("(a := 1)", 2, "NamedExpr is not in the language"),
    ("b'a'", 1, "a literal b'a'"),
    ("1j", 1, "a literal 1j"),
    ("1e999", 1, "a literal inf"),
    ("9223372036854775808", 1, "a number beyond int64"),
    ("a # why", 3, "a comment"),
    ("s in ('a' 'b')", 11, "two texts side by side; allowed: a comma or + between"),
    ("matches(s, '\\d')", 13, "the escape \\d; allowed: r'\\d' for a pattern"),
    ("matches(s, r'(')", 1, "not an RE2 pattern: missing )"),
    ("extract(s, 'a')", 1, "extract: no part of the pattern is in parentheses"),
    ("extract(s, '(')", 1, "extract: not an RE2 pattern: missing )"),
    ("matches(s, s)", 1, "matches(string, string); allowed: matches(string, literal string)"),
    ("replace(s, '', 'a')", 1, "there is no text to replace"),
    ("substring(s, 0, -1)", 1, "a length of -1; at least 0"),
    ("round(x, 16)", 1, "16 decimals; 0 to 15"),
    ("round(x, a)", 1, "round(float64, literal int64)"),
    ("timestamp('now')", 1, "'now' is not an ISO-8601 time"),
    ("timestamp(s)", 1, "timestamp(string); allowed: timestamp(literal string) or"),
    ("abs()", 1, "abs(); allowed: abs(int64) or abs(float64)"),
    ("min(a)", 1, "min of 1; allowed: at least 2"),
    ("min(a, s)", 8, "min of an int64 and a string"),
    ("max(ok, ok)", 1, "max of a bool"),
    ("concat(s, a)", 11, "concat of a string and an int64"),
    ("abs(x=1)", 1, "an argument by name or star"),
    ("abs(*s)", 1, "an argument by name or star"),
    ("abs(a)(a)", 1, "a call of no function"),
    ("field(s)", 1, "field(...) of no name; allowed: field('name')"),
    ("field('temp')", 1, "no field 'temp'"),
    ("None", 1, "it is always None"),
    ("a\x00", None, "null bytes"),
    ("'\ud800'", 1, "it cannot be read"),
    ("a + " * 500 + "a", 2001, "2001 characters; allowed: an expression of at most 2000"),
    ("+".join("a" * 200), 1, "parts; allowed: at most 300"),
    ("-" * 60 + "a", 51, "too deep"),
    ("(" * 300 + "a" + ")" * 300, None, "too many nested parentheses"),
]


@pytest.mark.parametrize(("text", "column", "says"), MISTAKES)
def test_mistakes(text, column, says):
    with pytest.raises(ExpressionError) as caught:
        parse(text, TYPES)
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"column {caught.value.column}: ")
    assert column in (None, caught.value.column)


@given(text=st.text(max_size=30) | st.text("aox+-*/%()'<>=!, 1.inotdrs", max_size=30))
def test_any_text_is_an_expression_or_an_error_in_it(text):
    try:
        parse(text, TYPES).evaluate(ROWS, 4)
    except ExpressionError as error:
        assert 1 <= error.column <= len(text) + 1  # noqa: PT017 - most texts are no expressions


def test_slices_chunks_and_no_rows():
    made = parse("x * 2 if s != '' else float(a)", TYPES)
    whole = made.evaluate(ROWS, 4).to_pylist()
    sliced = {name: column.slice(1, 2) for name, column in ROWS.items()}
    assert made.evaluate(sliced, 2).to_pylist() == whole[1:3]
    chunked = {name: pa.chunked_array([c.slice(0, 3), c.slice(3)]) for name, c in ROWS.items()}
    assert made.evaluate(chunked, 4).to_pylist() == whole
    none = {name: column.slice(0, 0) for name, column in ROWS.items()}
    for text in ("x * 2 if s != '' else float(a)", "t", "a // a", "1", "timestamp(a)", "s + s"):
        found = parse(text, TYPES).evaluate(none, 0)
        assert (len(found), found.type) == (0, ARROW_TYPES[parse(text, TYPES).type])
    empty = {name: pa.chunked_array([], column.type) for name, column in ROWS.items()}
    assert made.evaluate(empty, 0).to_pylist() == []


def test_a_text_made_too_long_is_null_before_it_is_made():
    long = "a" * (TEXT_MAX_BYTES - 1)
    rows = {"s": pa.array([long, "b", None, long + "a"])}
    assert value("length(s + 'b')", rows) == [TEXT_MAX_BYTES, 2, None, None]
    assert value("length(concat(s, 'ab'))", rows) == [None, 3, None, None]
    assert value("length(replace(s, 'a', 'bb'))", rows) == [None, 1, None, None]
    deep = "s"
    for _ in range(20):
        deep = f"replace({deep}, 'b', 'bbbbbbbbbb')"
    assert value(deep, rows)[1] is None
    assert value("length(s)", rows)[3] == TEXT_MAX_BYTES


def test_chains_in_chains_do_not_double():
    text = "a"
    for _ in range(22):
        text = f"int(0 < {text} < 3)"
    assert value(text) == [1, 0, None, 0]


def test_words_of_the_language_as_field_names():
    made = parse("field('class') + 1", {"class": "int64"})
    assert (made.names, made.type) == (("class",), "int64")
    assert made.evaluate({"class": pa.array([1, None])}, 2).to_pylist() == [2, None]


def test_lines_and_spaces_in_an_expression():
    assert value("\n  a\n  + 1  \n") == value("a + 1")


def test_two_readings_of_one_text_are_equal():
    assert parse("a + 1", TYPES) == parse("a + 1", TYPES)
    assert parse("a + 1", TYPES) != parse("a + 2", TYPES)


FORMS = [(kind, number) for kind in oracle.VALUES for number in range(len(oracle.forms(kind, 1)))]


@pytest.mark.parametrize(("kind", "number"), FORMS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_every_form_gives_what_plain_python_does_row_by_row(kind, number, data):
    part = data.draw(oracle.forms(kind, 1)[number])
    agree(part, kind, oracle.HARD_ROWS)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    data=st.data(), rows=st.lists(oracle.rows, max_size=6), kind=st.sampled_from([*oracle.VALUES])
)
def test_any_expression_gives_what_plain_python_does_row_by_row(data, rows, kind):
    part = data.draw(oracle.parts(kind, data.draw(st.integers(2, 3))))
    agree(part, kind, [*rows, *oracle.HARD_ROWS])


# ---- Helpers ----


def agree(part, kind, rows):
    note(part.text)
    made = parse(part.text, oracle.TYPES)
    assert made.type == kind
    assert set(made.names) <= set(oracle.TYPES)
    found = made.evaluate(columns(rows), len(rows))
    assert found.type == ARROW_TYPES[kind]
    values = found.cast(pa.int64()).to_pylist() if kind == "timestamp" else found.to_pylist()
    for row, value in zip(rows, values, strict=True):
        assert value == part.value(row), (part.text, row)


def columns(rows):
    return {
        name: pa.array([row[name] for row in rows], pa.int64()).cast(UTC_MICROS)
        if kind == "timestamp"
        else pa.array([row[name] for row in rows], ARROW_TYPES[kind])
        for name, kind in oracle.TYPES.items()
    }
