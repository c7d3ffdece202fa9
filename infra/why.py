"""One record's story: where it came from, each attempt at it, its verdict, where it is now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infra.checks import AT, POSITION
from infra.evidence import Stores, gather
from infra.lake import plain
from infra.tables import loaded
from sinks import distinct

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Story:
    """What is known of one position. Each list holds rows as plain values."""

    position: str
    fate: str
    received: list[dict[str, Any]]
    parked: list[dict[str, Any]]
    attempts: list[dict[str, Any]]
    elements: list[dict[str, Any]]
    superseded: list[dict[str, Any]]
    hot: list[dict[str, Any]]
    same_id: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def why(stores: Stores, name: str) -> list[Story]:
    """The story of each position that has this record id, or of the one that this name is of.

    A position is `stream/shard/sequence` or `queue//message-id`. Empty where nothing is known.
    """
    with loaded(gather(stores)) as (db, _):
        found = _asked(db, _POSITIONS, name=name)
        return [_story(db, row["position"]) for row in found]


def _story(db: duckdb.DuckDBPyConnection, position: str) -> Story:
    fate = _asked(db, f"SELECT fate FROM fates WHERE {AT} = $name", name=position)
    parts = {part: _asked(db, sql, name=position) for part, sql in _PARTS.items()}
    return Story(position, fate[0]["fate"] if fate else "missing", **parts)


def _asked(db: duckdb.DuckDBPyConnection, sql: str, **values: str) -> list[dict[str, Any]]:
    return plain(db.sql(sql, params=values).to_arrow_table())


_POSITIONS = f"""
    SELECT DISTINCT position FROM (
        SELECT {AT} AS position FROM members
        UNION ALL SELECT {AT} FROM every_row
        UNION ALL SELECT {AT} FROM held
    )
    WHERE position = $name
        OR position IN (SELECT {AT} FROM landing WHERE _record_id = $name)
    ORDER BY position
"""

_ROW = """verdict, _contract AS contract, _sub AS sub, _child AS child, _elements AS elements,
    _epoch AS epoch, _version AS version, _generation AS generation, _object AS object,
    _raw AS raw, _index AS index"""
_IN_LAKE = f"""
    LEFT JOIN (
        SELECT {distinct.ELEMENT}, _generation, _object AS lake, is_repeat AS lake_repeat
        FROM lake_rows JOIN lake_files ON _object = key
    ) USING ({distinct.ELEMENT}, _generation)
"""

_PARTS = {
    "received": f"""
        SELECT _source AS source, _raw AS raw, _index AS index, _arrival AS arrival,
            _partition_key AS partition_key, _sha AS body_sha256
        FROM raw_rows WHERE {AT} = $name ORDER BY _raw, _index
    """,
    "parked": f"""
        SELECT _where AS place, _arrival AS arrival FROM parked_rows WHERE {AT} = $name
        UNION ALL
        SELECT p._where || ' (a pointer: only the stream has its bytes)', NULL
        FROM pointed m JOIN pointers p USING (_stream, _shard)
        WHERE {AT} = $name AND lpad(_sequence, 128, '0') BETWEEN low AND high
    """,
    "attempts": f"""
        SELECT settled_at, execution, epoch, version, generation, raw_key AS raw, _index AS index,
            first, received, outcome, reason, EXISTS (
                FROM done d WHERE d.execution = attempts.execution AND d._index = r._index
            ) AS done, landing_key, quarantine_key, dropped_key
        FROM attempts JOIN raw_rows r
            ON _raw = raw_key AND _index >= first AND _index < first + received
        WHERE {AT} = $name ORDER BY settled_at, execution, _index
    """,
    "elements": f"""
        SELECT {_ROW}, lake, lake_repeat FROM counted {_IN_LAKE}
        WHERE {AT} = $name ORDER BY _sub, _child
    """,
    "superseded": f"""
        SELECT {_ROW} FROM every_row
        ANTI JOIN counted USING ({POSITION}, _sub, _child, _object, _raw, _index)
        WHERE {AT} = $name ORDER BY _epoch, _version, _sub, _child
    """,
    "hot": f"""
        SELECT w._pk AS pk, w._sk AS sk, h._pk IS NOT NULL AS there,
            (w._contract, w._pk, w._sk) IN (FROM owed_items) AS owed
        FROM (FROM wanted WHERE {AT} = $name) w LEFT JOIN hot_items h
            ON h._contract = w._contract AND h._pk = w._pk AND h._sk = w._sk
        ORDER BY ALL
    """,
    "same_id": f"""
        SELECT d._record_id AS record_id, concat_ws('/', d._stream, d._shard, d._sequence)
                AS position,
            CASE WHEN bool_or(d._digest = own._digest) THEN 'repeat' ELSE 'conflict' END AS relation
        FROM delivered d JOIN (FROM delivered WHERE {AT} = $name) own
            ON own._contract = d._contract AND own._record_id = d._record_id
            AND (d._stream, d._shard, d._sequence, d._sub, d._child)
                <> (own._stream, own._shard, own._sequence, own._sub, own._child)
        GROUP BY ALL ORDER BY ALL
    """,
}
