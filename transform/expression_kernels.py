"""Arithmetic over columns that never raises: where there is no value, null.

Each takes arrays, or one array and scalars. Inside, a timestamp is its microseconds as int64, and a
float64 is always finite. The plain case costs one kernel and a look; only a column that holds an
overflow or a division by zero pays for finding where.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from transform.field_types import INT64_MAX, INT64_MIN
from transform.timestamps import EARLIEST, LATEST

Values: TypeAlias = pa.Array
"""A column, or a scalar that stands for one."""

TEXT_MAX_BYTES = 65_536  # of a text that is made: a batch of 8,192 rows stays under Arrow's 2 GiB
WHOLE_FROM = 2.0**53  # from here on every double is a whole number
MICROS = 1_000_000

_WIDE = pa.decimal256(19, 0)  # holds any int64; sums and products of two still fit its kind


def only(mask: Values, values: Values) -> Values:
    """`values`, null where `mask` is false. Where `mask` is null, `values` must be."""
    if pc.all(mask, min_count=0).as_py():
        return values
    return pc.if_else(mask, values, pa.scalar(None, values.type))


def between(values: Values, low: float, high: float) -> Values:
    """`values`, null where they lie outside `low` to `high`."""
    return only(pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high)), values)


def finite(values: Values) -> Values:
    return only(pc.is_finite(values), values)


def as_float(values: Values) -> Values:
    """The nearest double of each int64."""
    return pc.cast(values, pa.float64(), safe=False)


# ---- int64: null on overflow ----


def _exact(checked: Callable[..., Values], wide: Callable[..., Values]) -> Callable[..., Values]:
    def run(*values: Values) -> Values:
        try:
            return checked(*values)
        except pa.ArrowInvalid:
            return narrow(wide(*(pc.cast(each, _WIDE) for each in values)))

    return run


def narrow(wide: Values) -> Values:
    """Whole decimals as int64, null where they do not fit."""
    low, high = (pa.scalar(bound, pa.int64()).cast(_WIDE) for bound in (INT64_MIN, INT64_MAX))
    fits = pc.and_(pc.greater_equal(wide, low), pc.less_equal(wide, high))
    return pc.cast(only(fits, wide), pa.int64())


int_add = _exact(pc.add_checked, pc.add)
int_subtract = _exact(pc.subtract_checked, pc.subtract)
int_multiply = _exact(pc.multiply_checked, pc.multiply)
int_negate = _exact(pc.negate_checked, pc.negate)
int_abs = _exact(pc.abs_checked, pc.abs)


def int_floor_divide(a: Values, b: Values) -> Values:
    b = only(pc.not_equal(b, 0), b)
    rest = pc.remainder(a, b)
    low = pc.and_(pc.not_equal(rest, 0), pc.xor(pc.less(rest, 0), pc.less(b, 0)))
    quotient = pc.subtract(pc.divide(a, b), pc.cast(low, pa.int64()))
    over = pc.and_(pc.equal(a, INT64_MIN), pc.equal(b, -1))
    return only(pc.invert(over), quotient)


def int_modulo(a: Values, b: Values) -> Values:
    return pc.modulo(a, only(pc.not_equal(b, 0), b))


# ---- float64: null where it would not be finite ----


def settled(kernel: Callable[..., Values]) -> Callable[..., Values]:
    """The kernel, with null for what is infinite or no number."""

    def run(*values: Values) -> Values:
        return finite(kernel(*values))

    return run


float_add = settled(pc.add)
float_subtract = settled(pc.subtract)
float_multiply = settled(pc.multiply)
float_divide = settled(pc.divide)
float_modulo = settled(pc.modulo)
float_power = settled(pc.power)


def float_floor_divide(a: Values, b: Values) -> Values:
    """The whole quotient below, by way of the exact remainder: 1.0 // 0.1 is 9.0, as 0.1 is over.

    `floor(a / b)` would say 10.0, and `a // b * b + a % b` would not be `a`.
    """
    rest = pc.remainder(a, b)
    low = pc.and_(pc.not_equal(rest, 0.0), pc.xor(pc.less(rest, 0.0), pc.less(b, 0.0)))
    exact = finite(
        pc.subtract(pc.divide(pc.subtract(a, rest), b), as_float(pc.cast(low, pa.int64())))
    )
    below = pc.floor(exact)
    short = pc.greater(pc.subtract(exact, below), 0.5)
    return pc.add(below, as_float(pc.cast(short, pa.int64())))


def round_to(values: Values, digits: int) -> Values:
    """To so many decimals, half to even; a double without any decimals stays itself."""
    has_decimals = pc.less(pc.abs(values), WHOLE_FROM)
    rounded = pc.round(only(has_decimals, values), ndigits=digits, round_mode="half_to_even")
    return rounded if rounded.null_count == values.null_count else pc.coalesce(rounded, values)


def is_in(values: Values, among: pa.Array, negate: bool) -> Values:  # noqa: FBT001
    found = pc.is_in(pc.add(values, 0.0) if values.type == pa.float64() else values, among)
    return only(pc.is_valid(values), pc.invert(found) if negate else found)


# ---- From one type to another ----


def float_to_int(values: Values) -> Values:
    """Towards zero; null beyond int64."""
    fits = pc.and_(pc.greater_equal(values, -(2.0**63)), pc.less(values, 2.0**63))
    return pc.cast(only(fits, values), pa.int64(), safe=False)


def text_to_int(values: Values) -> Values:
    whole = only(pc.match_substring_regex(values, r"^[+-]?[0-9]{1,38}$"), values)
    return narrow(pc.cast(whole, pa.decimal128(38, 0)))


def text_to_float(values: Values) -> Values:
    number = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
    return finite(pc.cast(only(pc.match_substring_regex(values, number), values), pa.float64()))


def number_to_text(values: Values) -> Values:
    return pc.cast(values, pa.string())


def float_to_text(values: Values) -> Values:
    """The shortest decimal that reads back as the same double; zero has no sign."""
    return pc.cast(pc.add(values, 0.0), pa.string())


def naive(micros: Values) -> Values:
    return pc.cast(micros, pa.timestamp("us"))


def moments(micros: Values) -> Values:
    """Null outside the years 1 to 9999."""
    return between(micros, EARLIEST, LATEST)


def seconds_to_moment(seconds: Values) -> Values:
    """To the microsecond, half to even; null outside the years 1 to 9999."""
    micros = between(pc.multiply(seconds, float(MICROS)), float(EARLIEST), float(LATEST))
    return moments(pc.cast(pc.round(micros, round_mode="half_to_even"), pa.int64()))


def in_seconds(micros: Values) -> Values:
    return pc.divide(as_float(micros), float(MICROS))


# ---- Text: null over TEXT_MAX_BYTES ----


def concat(*texts: Values) -> Values:
    if sum(_bytes_at_most(text) for text in texts) > TEXT_MAX_BYTES:
        length = pc.binary_length(texts[0])
        for text in texts[1:]:
            length = pc.add(length, pc.binary_length(text))
        fits = pc.less_equal(length, TEXT_MAX_BYTES)
        return pc.binary_join_element_wise(only(fits, texts[0]), *texts[1:], "")
    return pc.binary_join_element_wise(*texts, "")


def extract(texts: Values, pattern: str) -> Values:
    """What the pattern's first group matches, where the pattern is first found; else null."""
    whole = rf"^(?s:.*?)(?:{pattern})(?s:.*)$"
    found = pc.replace_substring_regex(texts, whole, r"\1", max_replacements=1)
    return pc.if_else(pc.match_substring_regex(texts, whole), found, pa.scalar(None, pa.string()))


def replace(texts: Values, old: str, new: str) -> Values:
    old_bytes, new_bytes = len(old.encode()), len(new.encode())
    if _bytes_at_most(texts) * max(1, new_bytes) > TEXT_MAX_BYTES:
        grown = pc.multiply(pc.count_substring(texts, old), new_bytes - old_bytes)
        length = pc.add(pc.cast(pc.binary_length(texts), pa.int64()), grown)
        texts = only(pc.less_equal(length, TEXT_MAX_BYTES), texts)
    return pc.replace_substring(texts, old, new)


def _bytes_at_most(texts: Values) -> int:
    """What the longest of these cannot exceed, without looking at each."""
    return len((texts.as_py() or "").encode()) if isinstance(texts, pa.Scalar) else texts.nbytes
