"""The types a contract's field can have, in Python and in Arrow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from transform.records import UTC_MICROS

FieldType = Literal["string", "int64", "float64", "bool", "timestamp"]
Value = str | int | float | bool

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

ARROW_TYPES: Mapping[FieldType, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": UTC_MICROS,
}

_ZONE, _NOTHING = pa.scalar("Z"), pa.scalar("")  # made once: it takes as long as a small column


def utc_text(moments: pa.Array) -> pa.Array:
    """Moments, or their microseconds, as ISO text: `2026-11-24T02:03:04.000005Z`.

    They are of the years 1 to 9999, and so their dates of ten characters.
    """
    return pc.binary_join_element_wise(
        pc.binary_replace_slice(_text(moments), 10, 11, "T"), _ZONE, _NOTHING
    )


def any_utc_text(moments: pa.Array) -> pa.Array:
    """`utc_text` of moments that nobody has judged yet."""
    return pc.binary_join_element_wise(pc.replace_substring(_text(moments), " ", "T"), "Z", "")


def _text(moments: pa.Array) -> pa.Array:
    """Not by strftime: it looks a zone up, even UTC, in files that a Lambda image may lack."""
    return pc.cast(pc.cast(moments, pa.timestamp("us")), pa.string())
