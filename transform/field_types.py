"""The types a contract's field can have, in Python and in Arrow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pyarrow as pa

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
