"""One position, one fate (law 5), as SQL: the rule by which every reader counts.

Attempts at one position overlap: answers get lost, batch edges move, contracts change in between.
So for each position exactly one generation counts, with all its rows: the greatest epoch; in it
delivered over dropped over quarantined; then the one that delivers most rows, which the hot table
may have; then the greatest version. A generation whose attempts all died before they had written
every element of the position comes after those that are whole, or a deployment rolled back in
between would hide good rows. Within it each element counts once, however often it was written.
After that, repeats of a producer are removed by identity: equal record id and equal bytes. Equal
ids with other bytes are a conflict: both are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

POSITION = "_stream, _shard, _sequence"
ELEMENT = f"{POSITION}, _sub, _child"
EARLIEST = f"_arrival, {ELEMENT}"

GENERATION = "_epoch, _version, _generation"

_CHOSEN = f"""
    SELECT {POSITION}, _generation
    FROM (
        SELECT {POSITION}, {GENERATION},
            CASE WHEN max(_fate) = 2 THEN 2 ELSE min(_fate) END AS _worst,
            count(DISTINCT (_sub, _child)) FILTER (_fate = 0) AS _good,
            count(DISTINCT (_sub, _child)) >= max(_elements) AS _whole
        FROM (
            SELECT {ELEMENT}, {GENERATION}, _elements, 0 AS _fate FROM {{landing}}
            UNION ALL
            SELECT {ELEMENT}, {GENERATION}, _elements, 1 AS _fate FROM {{dropped}}
            UNION ALL
            SELECT {ELEMENT}, {GENERATION}, _elements, 2 AS _fate FROM {{quarantine}}
        )
        GROUP BY ALL
    )
    QUALIFY row_number() OVER (
        PARTITION BY {POSITION}
        ORDER BY _whole DESC, _epoch DESC, _worst, _good DESC, _version DESC, _generation DESC
    ) = 1
"""

_MEMBERS = f"""
    SELECT * FROM {{table}}
    SEMI JOIN ({_CHOSEN}) USING ({POSITION}, _generation)
    QUALIFY row_number() OVER (PARTITION BY {ELEMENT} ORDER BY _raw, _index) = 1
"""


def worst(fate: str) -> str:
    """The fate of several rows together, as an aggregate: quarantined, delivered, dropped.

    `fate` is a column of `delivered`, `dropped` and whatever stands for quarantined, such as a
    reason.
    """
    return f"""
        CASE WHEN bool_or({fate} NOT IN ('delivered', 'dropped')) THEN 'quarantined'
            WHEN bool_or({fate} = 'delivered') THEN 'delivered' ELSE 'dropped' END
    """


@dataclass(frozen=True)
class Tables:
    """The names of the three tables that law 5 is about, or sub-selects in their place."""

    landing: str
    quarantine: str
    dropped: str

    def delivered(self) -> str:
        """Every delivered element of every position, once: producers' repeats are still in it."""
        return self._members(self.landing)

    def set_aside(self) -> str:
        """Every quarantined element of every position, once."""
        return self._members(self.quarantine)

    def left_out(self) -> str:
        """Every dropped element of every position, once."""
        return self._members(self.dropped)

    def records(self) -> str:
        """One row per identity: what analysts count. The earliest stands for its repeats."""
        return f"""
            SELECT * FROM ({self.delivered()})
            QUALIFY row_number() OVER (PARTITION BY _record_id, _digest ORDER BY {EARLIEST}) = 1
        """

    def chosen(self) -> str:
        """Of every position the generation that counts."""
        return _CHOSEN.format(**vars(self))

    def _members(self, table: str) -> str:
        return _MEMBERS.format(table=table, **vars(self))
