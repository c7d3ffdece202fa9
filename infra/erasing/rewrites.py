"""What is written instead of an object that held something of a device."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from infra.erasing.find import LEAVING, Choice, Found, leaves
from sinks import parquet
from sinks.erasures import ROWS
from sinks.errors import Gone
from transform.envelope import aggregate_in
from transform.erased import SHARED, WHOLE, Element, erased_of, marked, without_members


def raw_without(held: bytes | None, elements: Collection[Element], device: str) -> bytes:
    """A raw object in which these elements are empty, with all else as it came."""
    table = _read(held)
    fresh: dict[int, set[int]] = {}
    for index, sub in set(elements) - erased_of(table):
        fresh.setdefault(index, set()).add(sub)
    columns = {n: table.column(n).to_pylist() for n in ("_body", "_partition_key", "_attributes")}
    for index, subs in fresh.items():
        if subs & {WHOLE, SHARED}:
            columns["_body"][index], columns["_attributes"][index] = b"", None
            columns["_partition_key"][index] = None
            continue
        body = aggregate_in(columns["_body"][index])
        if body is None:
            raise ValueError("members are erased of a record that is no aggregate")
        columns["_body"][index] = without_members(body, subs, device)
        if columns["_partition_key"][index] == device:
            columns["_partition_key"][index] = None
    for name, values in columns.items():
        at = table.schema.get_field_index(name)
        field = table.schema.field(at)
        table = table.set_column(at, field, pa.array(values, field.type))
    return parquet.encode(marked(table, {*elements, *erased_of(table)}))


def landing_without(held: bytes | None, choice: Choice) -> bytes:
    """A landing object without a device's rows."""
    table = _read(held)
    return _kept(table, pc.not_equal(table.column(choice.contract.device), choice.device))


def quarantine_without(held: bytes | None, found: Found, choice: Choice) -> bytes:
    """A quarantine object without a device's rows."""
    table = _read(held)
    rows: list[dict[str, Any]] = table.select(LEAVING).to_pylist()
    return _kept(table, pa.array([not leaves(row, found, choice) for row in rows], pa.bool_()))


def _read(held: bytes | None) -> pa.Table:
    """An object's rows, with what it says of itself."""
    if held is None:
        raise Gone("an object was deleted while it was to be changed; run it again")
    return parquet.decode(held)


def _kept(table: pa.Table, mask: Any) -> bytes:
    """Some rows of a table as an object, which says how many it had besides."""
    kept = table.filter(mask)
    said = table.schema.metadata or {}
    gone = int(said.get(ROWS, b"0")) + table.num_rows - kept.num_rows
    return parquet.encode(kept.replace_schema_metadata({**said, ROWS: str(gone).encode()}))
