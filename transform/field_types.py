"""The types a contract's field can have, in Python and in Arrow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from transform.records import UTC_MICROS

FieldType = Literal["string", "int64", "float64", "bool", "timestamp"]
Value = str | int | float | bool

WITHOUT_ZONE = pa.timestamp("us")
TEXT_LENGTH = len("2026-11-24 02:03:04.000005")
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

ARROW_TYPES: Mapping[FieldType, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": UTC_MICROS,
}


def utc_text(moments: pa.Array) -> pa.Array:
    """Moments, or their microseconds, as ISO text: `2026-11-24T02:03:04.000005Z`.

    They are of the years 1 to 9999, and so their dates of ten characters, all of 26.
    """
    with_t = pc.binary_replace_slice(_text(moments.view(WITHOUT_ZONE)), 10, 11, "T")
    return pc.binary_replace_slice(with_t, TEXT_LENGTH, TEXT_LENGTH, "Z")


def any_utc_text(moments: pa.Array) -> pa.Array:
    """`utc_text` of moments that nobody has judged yet."""
    return pc.binary_join_element_wise(
        pc.replace_substring(_text(pc.cast(moments, WITHOUT_ZONE)), " ", "T"), "Z", ""
    )


def _text(moments: pa.Array) -> pa.Array:
    """Not by strftime: it looks a zone up, even UTC, in files that a Lambda image may lack."""
    return pc.cast(moments, pa.string())
