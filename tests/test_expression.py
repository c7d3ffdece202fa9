"""The expression language: what it gives, and what it says to a mistake."""

import pyarrow as pa
import pytest

from transform.expression import ExpressionError, parse
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
    ],
)
def test_values(text, expected):
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("a + temp", 5, "no field 'temp'; allowed: fields are a, ok, s, t, x"),
        ("extract(s, 'a')", 1, "extract: no part of the pattern is in parentheses"),
        ("extract(s, '(')", 1, "extract: not an RE2 pattern"),
        ("lenght(s)", 1, "did you mean 'length'?"),
        ("s + 1", 1, "'+' with a string; allowed: two numbers or two texts"),
    ],
)
def test_mistakes(text, column, says):
    with pytest.raises(ExpressionError) as caught:
        parse(text, TYPES)
    assert caught.value.column == column
    assert says in str(caught.value)
