"""What is set aside, grouped by fingerprint: rejects that one cause explains look the same.

A reject is *open* while its record has no better fate by law 5: what was delivered since, by a
replay or under other rules, is resolved.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from infra.lake import Lake
from sinks import distinct
from transform.contract import Contract

BLANK = "…"
VALUES = re.compile(r"'[^']*'|\"[^\"]*\"|(?<![A-Za-z_])-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
FINGERPRINT_BYTES = 4  # groups are some dozens
GROUP = ("fingerprint", "_contract", "_step", "_reason", "_field", "detail")


@dataclass(frozen=True)
class Wanted:
    """Which rejects; None is any. `start` and `stop` bound the arrival, `stop` not included."""

    contract: str | None = None
    reason: str | None = None
    field: str | None = None
    start: datetime | None = None
    stop: datetime | None = None
    resolved: bool = False


def rejects(lake: Lake, contracts: list[Contract], wanted: Wanted) -> pa.Table:
    """Rejected elements, each once, with `_open`, `fingerprint` and `detail` (values blanked)."""
    chosen = [c for c in contracts if wanted.contract in (None, c.name)]
    tables = [_of(lake, contract, wanted) for contract in chosen]
    rows = pa.concat_tables(tables) if tables else pa.table({})
    if not rows.num_rows:
        return rows
    details = [VALUES.sub(BLANK, text) for text in rows.column("_detail").to_pylist()]
    rows = rows.append_column("detail", pa.array(details, pa.string()))
    parts = rows.select(["_contract", "_step", "_reason", "_field", "detail"]).to_pydict()
    prints = [_fingerprint(*values) for values in zip(*parts.values(), strict=True)]
    return rows.append_column("fingerprint", pa.array(prints, pa.string()))


def grouped(rows: pa.Table) -> list[dict[str, Any]]:
    """One entry per fingerprint, the most frequent first."""
    return _asked(
        rows,
        f"""
        SELECT {", ".join(GROUP)}, count(*) AS rejects, count(*) FILTER (_open) AS open,
            min(_arrival) AS first, max(_arrival) AS last
        FROM rejects GROUP BY ALL ORDER BY rejects DESC, fingerprint
        """,
    )


def stats(rows: pa.Table) -> list[dict[str, Any]]:
    """Counts per contract, reason and hour of arrival."""
    return _asked(
        rows,
        """
        SELECT date_trunc('hour', _arrival) AS hour, _contract, _reason, count(*) AS rejects,
            count(*) FILTER (_open) AS open
        FROM rejects GROUP BY ALL ORDER BY ALL
        """,
    )


def _asked(rows: pa.Table, sql: str) -> list[dict[str, Any]]:
    if not rows.num_rows:
        return []
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        db.register("rejects", rows)
        return db.sql(sql).to_arrow_table().to_pylist()  # type: ignore[no-any-return]


def _of(lake: Lake, contract: Contract, wanted: Wanted) -> pa.Table:
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        db.register("landing", lake.lineage(contract))
        db.register("quarantine", lake.quarantine(contract))
        db.register("dropped", lake.dropped(contract))
        rows = db.sql(_ELEMENTS).to_arrow_table()
    if not wanted.resolved:
        rows = rows.filter(rows.column("_open"))
    for name, value in (("_reason", wanted.reason), ("_field", wanted.field)):
        if value is not None:
            rows = rows.filter(pc.equal(rows.column(name), value))
    if wanted.start is not None:
        rows = rows.filter(pc.greater_equal(rows.column("_arrival"), wanted.start))
    if wanted.stop is not None:
        rows = rows.filter(pc.less(rows.column("_arrival"), wanted.stop))
    return rows


_ELEMENTS = f"""
    WITH open_rows AS ({distinct.Tables("landing", "quarantine", "dropped").set_aside()})
    SELECT *, true AS _open FROM open_rows
    UNION ALL
    SELECT *, false FROM (
        SELECT * FROM quarantine ANTI JOIN open_rows USING ({distinct.ELEMENT})
        QUALIFY row_number() OVER (
            PARTITION BY {distinct.ELEMENT} ORDER BY _epoch DESC, _version DESC, _raw, _index
        ) = 1
    )
    ORDER BY _arrival, {distinct.ELEMENT}
"""


def _fingerprint(*parts: str | None) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=FINGERPRINT_BYTES).hexdigest()
