"""Law 5 in the words that Trino and DuckDB share, for engines that only read SQL.

It is the rule of `sinks/distinct.py`, which says why, once more: Trino knows neither QUALIFY nor
SEMI JOIN nor `* EXCLUDE`, so each step is a table of a WITH clause and names its columns. A test
holds the two together. Steps begin with an underscore, as no contract's tables do.
"""

from __future__ import annotations

from collections.abc import Sequence

from sinks.distinct import EARLIEST, ELEMENT, GENERATION, POSITION, Tables


def members(tables: Tables, table: str, columns: Sequence[str]) -> str:
    """Every element of one of the tables whose fate counts, once: the body of a WITH clause.

    It ends with the table `_members`.
    """
    names = ", ".join(map(quoted, columns))
    own = ", ".join(f"t.{quoted(name)}" for name in columns)
    same = " AND ".join(f"t.{name} = r.{name}" for name in (*POSITION.split(", "), "_generation"))
    fates = "\n    UNION ALL ".join(
        f"SELECT {ELEMENT}, {GENERATION}, _elements, {fate} AS _fate FROM {name}"
        for fate, name in enumerate((tables.landing, tables.dropped, tables.quarantine))
    )
    return f"""\
_fates AS (
    {fates}
), _judged AS (
    SELECT {POSITION}, {GENERATION},
        CASE WHEN max(_fate) = 2 THEN 2 ELSE min(_fate) END AS _worst,
        count(DISTINCT ROW(_sub, _child)) FILTER (WHERE _fate = 0) AS _good,
        CASE WHEN count(DISTINCT ROW(_sub, _child)) >= max(_elements) THEN 1 ELSE 0 END AS _whole
    FROM _fates
    GROUP BY {POSITION}, {GENERATION}
), _ranked AS (
    SELECT {POSITION}, _generation, row_number() OVER (
        PARTITION BY {POSITION}
        ORDER BY _whole DESC, _epoch DESC, _worst, _good DESC, _version DESC, _generation DESC
    ) AS _place
    FROM _judged
), _copies AS (
    SELECT {own}, row_number() OVER (
        PARTITION BY {", ".join(f"t.{name}" for name in ELEMENT.split(", "))}
        ORDER BY t._raw, t._index
    ) AS _copy
    FROM {table} t JOIN _ranked r ON {same} AND r._place = 1
), _members AS (
    SELECT {names} FROM _copies WHERE _copy = 1
)"""


def records(tables: Tables, columns: Sequence[str]) -> str:
    """One row per identity, the earliest: a body of a WITH clause that ends with `_records`."""
    names = ", ".join(map(quoted, columns))
    return f"""\
{members(tables, tables.landing, columns)}, _repeats AS (
    SELECT {names}, row_number() OVER (
        PARTITION BY _record_id, _digest ORDER BY {EARLIEST}
    ) AS _repeat
    FROM _members
), _records AS (
    SELECT {names} FROM _repeats WHERE _repeat = 1
)"""


def quoted(name: str) -> str:
    """A column's name, as SQL takes any name; those of lineage need no quotes."""
    return name if name.startswith("_") else f'"{name}"'
