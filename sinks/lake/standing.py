"""Sorted rows told apart: what stands, what repeats it, and what is there twice.

Rows of one identity lie beside each other, the earliest first: it stands for the others. A row of
the very element before it is that element once more, of an attempt that overlapped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from transform.records import DIGEST, POSITION

ELEMENT = [*POSITION, "_sub", "_child"]
WORDS_MODULUS = 2**64


@dataclass
class Told:
    """What was told of an hour's rows so far. `digest` is as in `sinks.lake.manifest.Partition`."""

    seen: int = 0
    rows: int = 0
    ids: int = 0
    conflicts: int = 0
    repeats: int = 0
    digest: int = 0


@dataclass(frozen=True)
class Parted:
    """Some rows that stand, and repeats of these or of earlier ones."""

    standing: pa.Table
    repeats: pa.Table


def parted(batches: Iterable[pa.RecordBatch], schema: pa.Schema, told: Told) -> Iterator[Parted]:
    """Rows in order (`Resolution`), told apart, with the declared columns; counts go to `told`."""
    before: pa.RecordBatch | None = None
    in_conflict = pa.scalar(False)  # noqa: FBT003  a value
    for batch in batches:
        if not batch.num_rows:
            continue
        same_id = _as_before(batch, before, "_record_id")
        same = pc.and_(same_id, _as_before(batch, before, "_digest"))
        rows = pa.Table.from_batches([batch]).cast(schema)
        stands = pc.invert(same)
        standing, repeats = rows.filter(stands), _once(batch, before, rows, same)
        conflicts, in_conflict = _conflicts(same_id.filter(stands), in_conflict)
        told.seen += batch.num_rows
        told.rows += standing.num_rows
        told.ids += batch.num_rows - pc.sum(same_id).as_py()
        told.conflicts += conflicts
        told.repeats += repeats.num_rows
        told.digest = (told.digest + digest_of(standing)) % WORDS_MODULUS
        before = batch.slice(batch.num_rows - 1)
        yield Parted(standing, repeats)


def digest_of(rows: pa.Table) -> int:
    """The sum, modulo 2**64, of the little-endian 8-byte words of the rows' `_digest`."""
    total = 0
    for chunk in rows.column("_digest").cast(DIGEST).chunks:
        words = DIGEST.byte_width // 8
        data = pa.Array.from_buffers(
            pa.uint64(), words * len(chunk), [None, chunk.buffers()[1]], offset=words * chunk.offset
        )
        total += pc.sum(data).as_py() or 0
    return total % WORDS_MODULUS


def _as_before(batch: pa.RecordBatch, before: pa.RecordBatch | None, name: str) -> pa.Array:
    """Which rows have the value of the row before them."""
    values = batch.column(name)
    first = before is not None and before.column(name)[0] == values[0]
    return pa.concat_arrays(
        [pa.array([first]), pc.equal(values.slice(1), values.slice(0, len(values) - 1))]
    )


def _once(
    batch: pa.RecordBatch, before: pa.RecordBatch | None, rows: pa.Table, same: pa.Array
) -> pa.Table:
    """The rows that repeat the one before, but are not the very same element."""
    if not pc.any(same).as_py():
        return rows.slice(0, 0)
    twice = same
    for name in ELEMENT:
        twice = pc.and_(twice, _as_before(batch, before, name))
    return rows.filter(pc.and_not(same, twice))


def _conflicts(same_id: pa.Array, inside: pa.Scalar) -> tuple[int, pa.Scalar]:
    """Among rows of different identity: ids of several, and whether the last one is of such.

    `same_id` says which rows have the id of the row before, `inside` whether that one was of such.
    """
    if not len(same_id):
        return 0, inside
    before = pa.concat_arrays([pa.array([inside.as_py()]), same_id.slice(0, len(same_id) - 1)])
    begun = pc.and_not(same_id, before)
    return pc.sum(begun).as_py(), same_id[-1]
