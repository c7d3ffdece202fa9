"""Expressions drawn from the grammar, each with its meaning written out in plain Python.

A `Part` is a text and what it gives for one row, `None` for null. Nothing of it uses Arrow or the
code under test: what a row gives is worked out by Python's own integers, doubles and texts.
"""

import math
import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from itertools import product

from hypothesis import strategies as st

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
EARLIEST, LATEST = -62_135_596_800_000_000, 253_402_300_799_999_999
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TEXT_MAX_BYTES = 65_536
TYPES = {
    "i": "int64", "j": "int64", "x": "float64", "y": "float64", "s": "string", "u": "string",
    "p": "bool", "q": "bool", "t": "timestamp", "v": "timestamp",
}  # fmt: skip
# Of these, Arrow's Unicode is newer than that of the oldest Python here.
LATER_CASED = "\u019b\u0264\u0277\u027c\ua7d3\ua7d5\uab4b\uab4c"
SPACE = "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)


@dataclass(frozen=True)
class Part:
    text: str
    value: object  # of a row: its value, None for null


# ---- What a column holds ----

letters = st.characters(codec="utf-8", exclude_categories=["Cs", "Cn"]).filter(
    lambda c: len(c.upper()) == len(c.lower()) == 1 and c not in LATER_CASED
)
ints = st.sampled_from([0, 1, -1, INT_MIN, INT_MAX, INT_MIN + 1]) | st.integers(INT_MIN, INT_MAX)
ints |= st.integers(-20, 20)
floats = st.floats(allow_nan=False, allow_infinity=False) | st.floats(-50, 50)
floats |= st.sampled_from([0.0, -0.0, 0.5, 1.5, 2.5, 0.1, 1e308, -1e308, 5e-324, 2.0**53, 2.0**63])
texts = st.text(letters, max_size=12) | st.sampled_from(["", "12", "-7.5", "1e400", " a ", "Ab"])
moments = st.integers(EARLIEST, LATEST) | st.sampled_from([0, EARLIEST, LATEST])
VALUES = {
    "int64": ints,
    "float64": floats | st.sampled_from([math.inf, -math.inf, math.nan]),
    "string": texts,
    "bool": st.booleans(),
    "timestamp": moments | st.sampled_from([INT_MIN, INT_MAX, LATEST + 1, EARLIEST - 1]),
}
EDGES = {
    "int64": [0, 1, -1, 2, -7, 60, 2**53 + 1, INT_MIN, INT_MIN + 1, INT_MAX],
    "float64": [
        0.0,
        -0.0,
        0.1,
        0.285,
        1.0,
        -2.5,
        3.5,
        1e16,
        2.0**63,
        1e308,
        -1e308,
        5e-324,
        math.nan,
    ],
    "string": ["", "a", "Ab", "b", "abc ", " \xe4\U0001f600", "12", "+7.5e-3", "1e400", "9" * 19],
    "bool": [False, True],
    "timestamp": [0, 1, -1, 1_732_500_000_123_456, EARLIEST, LATEST, LATEST + 1, INT_MIN],
}
PAIRS = {kind: list(product([None, *edges], repeat=2)) for kind, edges in EDGES.items()}
HARD_ROWS = [
    {
        name: PAIRS[kind][number % len(PAIRS[kind])][place]
        for kind in EDGES
        for place, name in enumerate(name for name, of in TYPES.items() if of == kind)
    }
    for number in range(max(map(len, PAIRS.values())))
]
"""Every pair of edges of each type: where operators trip over, beside whatever else is drawn."""

rows = st.fixed_dictionaries({name: st.none() | VALUES[kind] for name, kind in TYPES.items()})


# ---- What each kind of expression is made of ----


@cache
def parts(kind, depth):
    """Any expression of this type, its parts at most so deep; every form as likely."""
    leaves = st.one_of(column(kind), literal(kind))
    return st.sampled_from([leaves, *forms(kind, depth)]).flatmap(lambda form: form)


@cache
def forms(kind, depth):
    """Each form that an expression of this type can have, its parts less deep than `depth`."""
    if depth == 0:
        return []
    own = {
        "int64": int_forms,
        "float64": float_forms,
        "string": string_forms,
        "bool": bool_forms,
        "timestamp": moment_forms,
    }[kind]
    return [*own(depth - 1), *shared_forms(kind, depth - 1)]


def column(kind):
    return st.sampled_from([name for name, of in TYPES.items() if of == kind]).map(
        lambda name: Part(name, lambda row: held(kind, row[name]))
    )


def held(kind, value):
    """A cell, null where it holds what is no value."""
    if value is None:
        return None
    if kind == "float64":
        return finite(value)
    if kind == "timestamp":
        return value if EARLIEST <= value <= LATEST else None
    return value


def literal(kind):
    if kind == "timestamp":
        return moments.map(lambda m: constant(f"timestamp('{iso(m)}')", m))
    if kind == "string":
        plain = letters.filter(lambda c: c not in "'\\" and unicodedata.category(c) != "Cc")
        return st.text(plain, max_size=6).map(lambda text: constant(f"'{text}'", text))
    values = {"int64": ints, "float64": floats, "bool": st.booleans()}[kind]
    return values.map(lambda value: constant(f"({value!r})", value))


def constant(text, value):
    return Part(text, lambda _row: value)


def shared_forms(kind, depth):
    """Of every type: conditions, and the first that is not null."""
    one, test = parts(kind, depth), parts("bool", depth)
    none = st.just(constant("None", None))
    return [
        st.builds(conditional, one, test, one),
        st.builds(conditional, one, test, none),
        st.lists(one, min_size=2, max_size=3).map(
            lambda many: Part(
                f"coalesce({', '.join(m.text for m in many)})",
                lambda row: next((v for m in many if (v := m.value(row)) is not None), None),
            )
        ),
    ]


def conditional(yes, test, no):
    def value(row):
        chosen = test.value(row)
        return None if chosen is None else (yes if chosen else no).value(row)

    return Part(f"({yes.text} if {test.text} else {no.text})", value)


def int_forms(depth):
    i, x, s, p, t = (parts(k, depth) for k in ("int64", "float64", "string", "bool", "timestamp"))
    whole = [
        (i, "({} + {})", i, lambda a, b: fit(a + b)),
        (i, "({} - {})", i, lambda a, b: fit(a - b)),
        (i, "({} * {})", i, lambda a, b: fit(a * b)),
        (i, "({} // {})", i, lambda a, b: fit(a // b) if b else None),
        (i, "({} % {})", i, lambda a, b: a % b if b else None),
        (i, "min({}, {})", i, min),
        (i, "max({}, {})", i, max),
    ]
    single = [
        (i, "(-{})", lambda a: fit(-a)),
        (i, "abs({})", lambda a: fit(abs(a))),
        (i, "round({}, 2)", lambda a: a),
        (x, "int({})", lambda a: fit(math.trunc(a))),
        (p, "int({})", int),
        (s, "int({})", text_to_int),
        (s, "length({})", len),
        (t, "year({})", lambda m: moment(m).year),
        (t, "month({})", lambda m: moment(m).month),
        (t, "day({})", lambda m: moment(m).day),
        (t, "hour({})", lambda m: moment(m).hour),
        (t, "minute({})", lambda m: moment(m).minute),
        (t, "second({})", lambda m: moment(m).second),
        (t, "weekday({})", lambda m: moment(m).weekday()),
    ]
    return [*(twos(*w) for w in whole), *(ones(*o) for o in single)]


@cache
def number(depth):
    """An int64 or a float64, where either is taken as the float64."""
    return st.one_of(parts("float64", depth), as_float(depth))


def as_float(depth):
    """An int64 that is taken as the nearest float64, beside another."""
    return parts("int64", depth).map(
        lambda part: Part(part.text, lambda row: none_or(float, part.value(row)))
    )


def float_forms(depth):
    x, n = parts("float64", depth), number(depth)
    s, t = parts("string", depth), parts("timestamp", depth)
    double = [
        (x, "({} + {})", n, lambda a, b: finite(a + b)),
        (n, "({} - {})", x, lambda a, b: finite(a - b)),
        (x, "({} * {})", n, lambda a, b: finite(a * b)),
        (n, "({} / {})", n, lambda a, b: finite(a / b) if b else None),
        (
            x,
            "({} // {})",
            n,
            lambda a, b: finite(a // b) if b and finite(a / b) is not None else None,
        ),
        (n, "({} % {})", x, lambda a, b: finite(a % b) if b else None),
        (n, "({} ** {})", n, power),
        (x, "min({}, {})", n, min),
        (n, "max({}, {})", x, max),
        (t, "seconds_between({}, {})", t, lambda a, b: (b - a) / 1e6),
    ]
    single = [
        (x, "(-{})", lambda a: -a),
        (x, "abs({})", abs),
        (n, "sqrt({})", lambda a: math.sqrt(a) if a >= 0 else None),
        (n, "log({})", lambda a: math.log(a) if a > 0 else None),
        (n, "log10({})", lambda a: math.log10(a) if a > 0 else None),
        (n, "exp({})", exponential),
        (n, "floor({})", lambda a: float(math.floor(a))),
        (n, "ceil({})", lambda a: float(math.ceil(a))),
        (x, "round({})", lambda a: rounded(a, 0)),
        (x, "round({}, 2)", lambda a: rounded(a, 2)),
        (n, "float({})", lambda a: a),
        (s, "float({})", text_to_float),
        (t, "epoch({})", lambda m: m / 1e6),
    ]
    return [*(twos(*d) for d in double), *(ones(*o) for o in single)]


def string_forms(depth):
    s = parts("string", depth)
    single = [
        (s, "lower({})", lambda a: cased(a, str.lower)),
        (s, "upper({})", lambda a: cased(a, str.upper)),
        (s, "trim({})", lambda a: a.strip(SPACE)),
        (s, "substring({}, 1)", lambda a: a[1:]),
        (s, "substring({}, 1, 2)", lambda a: a[1:3]),
        (s, "substring({}, -3)", lambda a: a[-3:]),
        (s, "substring({}, -3, 2)", lambda a: a[max(0, len(a) - 3) : max(0, len(a) - 1)]),
        (s, "substring({}, -2, 5)", lambda a: a[-2:]),
        (s, "replace({}, 'a', 'bc')", lambda a: made(a.replace("a", "bc"))),
        (s, "string({})", lambda a: a),
        (parts("int64", depth), "string({})", str),
        (parts("float64", depth), "string({})", float_to_text),
        (parts("bool", depth), "string({})", lambda a: "true" if a else "false"),
        (parts("timestamp", depth), "string({})", iso),
    ]
    double = [
        (s, "({} + {})", s, lambda a, b: made(a + b)),
        (s, "concat({}, {})", s, lambda a, b: made(a + b)),
        (s, "min({}, {})", s, min),
        (s, "max({}, {})", s, max),
    ]
    return [*(ones(*o) for o in single), *(twos(*d) for d in double)]


def moment_forms(depth):
    t, n = parts("timestamp", depth), number(depth)
    return [
        twos(t, "min({}, {})", t, min),
        twos(t, "max({}, {})", t, max),
        ones(n, "timestamp({})", seconds_to_moment),
    ]


def bool_forms(depth):
    p, s, n = parts("bool", depth), parts("string", depth), number(depth)
    any_kind = st.sampled_from(list(VALUES)).flatmap(lambda kind: parts(kind, depth))
    ordered = [parts(kind, depth) for kind in ("int64", "float64", "string", "timestamp")]
    return [
        st.builds(both, p, p),
        st.builds(either, p, p),
        ones(p, "(not {})", lambda a: not a),
        twos(p, "({} == {})", p, lambda a, b: a == b),
        twos(p, "({} != {})", p, lambda a, b: a != b),
        twos(n, "({} < {})", parts("float64", depth), lambda a, b: a < b),
        any_kind.map(lambda a: Part(f"({a.text} is None)", lambda row: a.value(row) is None)),
        any_kind.map(
            lambda a: Part(f"({a.text} is not None)", lambda row: a.value(row) is not None)
        ),
        *(twos(o, f"({{}} {sign} {{}})", o, f) for o in ordered for sign, f in SIGNS.items()),
        *(st.builds(chained, o, o, o) for o in ordered),
        st.builds(chained, as_float(depth), parts("float64", depth), as_float(depth)),
        ones(parts("int64", depth), "({} in (0, 7, -1))", lambda a: a in (0, 7, -1)),
        ones(parts("float64", depth), "({} not in (0, 2.5))", lambda a: a not in (0.0, 2.5)),
        ones(s, "({} in ('', 'Ab'))", lambda a: a in ("", "Ab")),
        ones(s, "starts_with({}, 'a')", lambda a: a.startswith("a")),
        ones(s, "ends_with({}, 'b')", lambda a: a.endswith("b")),
        ones(s, "contains({}, ' ')", lambda a: " " in a),
        ones(s, "matches({}, r'^[a-c]+[0-9]?')", lambda a: bool(re.match("[a-c]+[0-9]?", a))),
    ]


SIGNS = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">=": lambda a, b: a >= b,
    ">": lambda a, b: a > b,
}


def both(one, other):
    def value(row):
        found = {one.value(row), other.value(row)}
        return False if False in found else None if None in found else True

    return Part(f"({one.text} and {other.text})", value)


def either(one, other):
    def value(row):
        found = {one.value(row), other.value(row)}
        return True if True in found else None if None in found else False

    return Part(f"({one.text} or {other.text})", value)


def chained(a, b, c):
    def value(row):
        low, middle, high = (part.value(row) for part in (a, b, c))
        pairs = {
            None if low is None or middle is None else low < middle,
            None if middle is None or high is None else middle <= high,
        }
        return False if False in pairs else None if None in pairs else True

    return Part(f"({a.text} < {b.text} <= {c.text})", value)


# ---- Null in, null out ----


def ones(part, form, function):
    return part.map(
        lambda a: Part(form.format(a.text), lambda row: none_or(function, a.value(row)))
    )


def twos(left, form, right, function):
    return st.builds(
        lambda a, b: Part(
            form.format(a.text, b.text), lambda row: none_or(function, a.value(row), b.value(row))
        ),
        left,
        right,
    )


def none_or(function, *values):
    return None if None in values else function(*values)


# ---- What functions mean ----


def fit(value):
    return value if INT_MIN <= value <= INT_MAX else None


def finite(value):
    return value if math.isfinite(value) else None


def made(text):
    return text if len(text.encode()) <= TEXT_MAX_BYTES else None


def power(a, b):
    try:
        value = math.pow(a, b)
    except (ValueError, OverflowError):
        return None
    return finite(value)


def exponential(a):
    try:
        return math.exp(a)
    except OverflowError:
        return None


def rounded(value, digits):
    """Half to even of the double times the power of ten, if that has any decimals."""
    shifted = value * 10**digits
    if abs(value) >= 2.0**53 or shifted == math.floor(shifted):
        return value
    return float(round(shifted)) / 10**digits


def text_to_int(text):
    return fit(int(text)) if re.fullmatch("[+-]?[0-9]{1,38}", text) else None


def text_to_float(text):
    number = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
    return finite(float(text)) if re.fullmatch(number, text) else None


def float_to_text(value):
    """Shortest digits; decimal between 1e-6 and 1e10, else with an exponent."""
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    if value == 0:
        return "0"
    place = len(digits) + exponent - 1
    if -7 < place < 10:
        text = format(Decimal((sign, digits, exponent)), "f")
    else:
        mantissa = str(digits[0]) + ("." + "".join(map(str, digits[1:])) if digits[1:] else "")
        text = f"{'-' if sign else ''}{mantissa}e{place:+d}"
    return text


def cased(text, case):
    """Letter by letter, where that is one letter."""
    return "".join(c if len(case(c)) != 1 else case(c) for c in text)


def moment(micros):
    return EPOCH + timedelta(microseconds=micros)


def iso(micros):
    return moment(micros).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


def seconds_to_moment(seconds):
    micros = seconds * 1e6
    if not float(EARLIEST) <= micros <= float(LATEST):
        return None
    return held("timestamp", round(micros))
