"""One position, one fate (law 5), as SQL: the rule by which every reader counts.

Attempts at one position overlap: answers get lost, batch edges move, contracts change in between.
So for each position exactly one generation counts, with all its rows: the greatest epoch; in it
delivered over quarantined; then the greatest version. Within it each element counts once, however
often it was written. After that, repeats of a producer are removed by identity: equal record id and
equal bytes. Equal ids with other bytes are a conflict: both are kept.
"""

from __future__ import annotations

POSITION = "_stream, _shard, _sequence"
ELEMENT = f"{POSITION}, _sub, _child"
EARLIEST = f"_arrival, {ELEMENT}"

_CHOSEN = f"""
    SELECT {POSITION}, _generation
    FROM (
        SELECT {POSITION}, _epoch, _version, _generation, max(_set_aside) AS _worst
        FROM (
            SELECT {POSITION}, _epoch, _version, _generation, 0 AS _set_aside FROM {{landing}}
            UNION ALL
            SELECT {POSITION}, _epoch, _version, _generation, 1 AS _set_aside FROM {{quarantine}}
        )
        GROUP BY ALL
    )
    QUALIFY row_number() OVER (
        PARTITION BY {POSITION}
        ORDER BY _epoch DESC, _worst, _version DESC, _generation DESC
    ) = 1
"""

_MEMBERS = f"""
    SELECT * FROM {{table}}
    SEMI JOIN ({_CHOSEN}) USING ({POSITION}, _generation)
    QUALIFY row_number() OVER (PARTITION BY {ELEMENT} ORDER BY _raw, _index) = 1
"""


def delivered(landing: str, quarantine: str) -> str:
    """Every delivered element of every position, once: producers' repeats are still in it."""
    return _MEMBERS.format(table=landing, landing=landing, quarantine=quarantine)


def set_aside(landing: str, quarantine: str) -> str:
    """Every quarantined element of every position, once."""
    return _MEMBERS.format(table=quarantine, landing=landing, quarantine=quarantine)


def records(landing: str, quarantine: str) -> str:
    """One row per identity: what analysts count. The earliest arrival stands for its repeats."""
    return f"""
        SELECT * FROM ({delivered(landing, quarantine)})
        QUALIFY row_number() OVER (PARTITION BY _record_id, _digest ORDER BY {EARLIEST}) = 1
    """
