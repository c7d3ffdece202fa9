"""What was erased of a raw object: it says so itself, and its records stay where they were.

The body of an erased source record is empty. Of an aggregate that also has other devices' messages,
only the device's own are written over, with as many zero bytes: their places and the others' bytes
are as before, and so is what such an aggregate may hold. Neither can ever be delivered: the rules
find nothing to read there, and call it dropped by `RULE`. Where several devices' messages cannot be
told apart in their bytes, as in an array that is compressed, the body may go whole (`SHARED`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import orjson

from transform.kpl import aggregate

if TYPE_CHECKING:
    import pyarrow as pa

ERASED = b"millrace.erased"  # in a raw object's metadata: elements, as JSON
RULE = "erased"
WHOLE = -1  # in a member's stead: the source record is the device's
SHARED = -2  # in a member's stead: its body is empty, and others sent part of it

Element = tuple[int, int]
"""A source record's place in its raw object, and a member's place in that, or its stead."""


def erased_of(raw: pa.Table) -> frozenset[Element]:
    """What is erased of a raw table."""
    said = (raw.schema.metadata or {}).get(ERASED)
    return frozenset((index, sub) for index, sub in orjson.loads(said)) if said else frozenset()


def marked(raw: pa.Table, elements: Collection[Element]) -> pa.Table:
    """The same table, which says that these elements are erased."""
    said = {**(raw.schema.metadata or {}), ERASED: orjson.dumps(sorted(elements))}
    return raw.replace_schema_metadata(said)


def is_empty(elements: Collection[Element], index: int, sub: int) -> bool:
    """Whether nothing is left to be read of a member."""
    return is_erased(elements, index, sub) or (index, SHARED) in elements


def is_erased(elements: Collection[Element], index: int, sub: int) -> bool:
    """Whether all of a member is of who was erased."""
    return (index, sub) in elements or (index, WHOLE) in elements


def without_members(body: bytes, subs: Collection[int], key: str) -> bytes:
    """An aggregate in which these members are zero bytes, and no partition key is `key`."""
    from transform.kpl_reader import deaggregate  # noqa: PLC0415  protobuf is for aggregates alone

    hidden = "-" * len(key)
    return aggregate(
        (hidden if name == key else name, bytes(len(data)) if sub in subs else data)
        for sub, (name, data) in enumerate(deaggregate(body))
    )
