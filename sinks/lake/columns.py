"""The columns of one table that versions of a contract share."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa


class Clash(ValueError):
    """A column is of different types in versions of a contract."""


def united(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """One schema of several: the first one's columns as they stand, others' of its kind after them.

    What not all have may be null. Raises `Clash`.
    """
    fields: dict[str, pa.Field] = {}
    for schema in schemas:
        for field in schema:
            held = fields.setdefault(field.name, field)
            if held.type != field.type:
                raise Clash(
                    f"versions have {field.name} as {held.type} and as {field.type}, which one "
                    "table cannot hold; queries show it as text, and nothing is compacted"
                )
            fields[field.name] = held.with_nullable(held.nullable or field.nullable)
    everywhere = set.intersection(*(set(schema.names) for schema in schemas))
    own = [n for n in fields if not n.startswith("_")]
    return pa.schema(
        [
            fields[name].with_nullable(fields[name].nullable or name not in everywhere)
            for name in (*own, *(n for n in fields if n.startswith("_")))
        ]
    )
