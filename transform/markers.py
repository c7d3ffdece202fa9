"""Markers: records of Millrace's own that say how far a shard has been worked through.

A shard that is idle says nothing. So a marker is put into it, goes the way of every record and ends
as one mark of the rule `_marker`, whatever the contract: what arrived before it has its fate then.
A body is a marker if it is exactly what `body` makes. Whoever sends another such body loses nothing
but that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from transform.columns import may_hold
from transform.gathered import Drops
from transform.records import Batch, Counts
from transform.tables import INDEX, Origin

RULE = "_marker"  # no contract can have a rule of this name
PREFIX = b'{"_millrace_marker":1,'

_EXACT = re.compile(
    rb'\{"_millrace_marker":1,"shard":"[a-zA-Z0-9_.-]{1,128}","at":[1-9][0-9]{0,15}\}'
)

Apply = Callable[[pa.Table, str, int], Batch]


def body(shard: str, at_micros: int) -> bytes:
    """A marker for a shard, made at this moment. Raises ValueError where none can say so."""
    made = b'%b"shard":"%b","at":%d}' % (PREFIX, shard.encode(), at_micros)
    if not is_marker(made):
        raise ValueError(f"no marker says {shard!r} and {at_micros}")
    return made


def is_marker(record: bytes) -> bool:
    """Whether a source record's body, as it came, is a marker."""
    return _EXACT.fullmatch(record) is not None


def places(bodies: pa.ChunkedArray) -> list[int]:
    """Where markers are among the bodies of source records: nowhere, as a rule, and soon told."""
    if not may_hold(bodies, PREFIX):
        return []
    found = pc.indices_nonzero(pc.starts_with(bodies, PREFIX)).to_pylist()
    return [place for place in found if is_marker(bodies[place].as_py())]


def among(marked: Sequence[int], origin: Origin, apply: Apply) -> Batch:
    """The batch of a Delivery that has markers: `apply` sees the records beside them alone."""
    marks = Drops()
    for place in marked:
        marks.add(RULE, place, 0, 0, None)
    marks.fold()
    others = pa.array(sorted({*range(origin.raw.num_rows)}.difference(marked)), pa.int32())
    batch = apply(origin.raw.take(others), origin.raw_key, 0)
    places = pc.add(others, pa.scalar(origin.first, pa.int32()))
    rows, rejects, drops = (_moved(t, places) for t in (batch.rows, batch.rejects, batch.drops))
    counts = batch.counts
    return Batch(
        rows=rows,
        rejects=rejects,
        drops=pa.concat_tables([drops, marks.table(origin)]),
        counts=Counts(
            received=counts.received + len(marked),
            delivered=counts.delivered,
            dropped=counts.dropped + len(marked),
            quarantined=counts.quarantined,
        ),
        hot_rows=batch.hot_rows,
    )


def _moved(table: pa.Table, places: pa.Array) -> pa.Table:
    """Rows of the records beside the markers, with their places in the raw object."""
    at = table.schema.get_field_index(INDEX)
    return table.set_column(at, table.schema.field(at), places.take(table.column(at)))
