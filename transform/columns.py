"""Columns as the path of a small batch wants them.

Of a hundred rows most kernels take longer to begin than to run, and one that nothing else on the
path uses has to be fetched into the processor's caches as well: on the path that is tens of
microseconds for what takes two in a loop.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

FEW = 1_000  # 64-bit numbers, of which Python finds least and greatest sooner than a kernel begins


@lru_cache(4_096, typed=True)
def scalar(value: object, kind: pa.DataType | None = None) -> pa.Scalar:
    """A literal as Arrow has it: to make one takes half as long as a look at a hundred rows."""
    return pa.scalar(value, kind)


def repeated(value: object, kind: pa.DataType, count: int) -> pa.Array:
    """A column that says one thing."""
    return pa.repeat(scalar(value, kind), count)


def numbers(values: Sequence[Any], code: Literal["d", "q", "i"], kind: pa.DataType) -> pa.Array:
    """Numbers as a column, `code` being the kind of them that the type stores.

    Python makes the buffer of those that have no null among them: to make out what it is given,
    `pa.array` takes longer than to take in a hundred.
    """
    try:
        data = array(code, values)
    except (TypeError, OverflowError):  # a null, or what Arrow has a word for
        return pa.array(values, kind)
    return pa.Array.from_buffers(kind, len(data), [None, pa.py_buffer(data)], 0)


def texts(values: Sequence[str | None]) -> pa.Array:
    """Texts as a column; most that may be null are all null."""
    if values.count(None) == len(values):
        return pa.nulls(len(values), pa.string())
    return pa.array(values, pa.string())


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece; what is in one already is not copied."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def least(numbers: pa.Array) -> int | None:
    """The least of 64-bit numbers or moments, null aside; None where there is none."""
    few = _few(numbers)
    if few is not None:
        return min(few)
    found: int | None = pc.min(numbers).cast(pa.int64()).as_py()
    return found


def below(numbers: pa.Array, limit: int) -> pa.Array:
    """Which 64-bit numbers are below a limit: mostly all are."""
    few = _few(numbers)
    if few is not None and max(few) < limit:
        return repeated(value=True, kind=pa.bool_(), count=len(numbers))
    return pc.less(numbers, scalar(limit, pa.int64()))


def may_hold(column: pa.Array | pa.ChunkedArray, *parts: bytes) -> bool:
    """Whether any of these is in a column's bytes, or near it; sooner than a kernel says it."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    buffers = (chunk.buffers()[2] for chunk in chunks)
    texts = (buffer.to_pybytes() for buffer in buffers if buffer is not None)
    return any(part in text for text in texts for part in parts)


def _few(numbers: pa.Array) -> Sequence[int] | None:
    """64-bit numbers as Python reads them, where they are few and none is null."""
    count, start = len(numbers), numbers.offset
    if numbers.null_count or not 0 < count <= FEW:
        return None
    return memoryview(numbers.buffers()[1]).cast("q")[start : start + count]
