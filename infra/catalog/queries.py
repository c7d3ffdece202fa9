"""Queries worth saving in Athena, for each contract.

`lake` is what compaction made: one row per identity, so a plain count is exact. What landed since
is not in it; `now` adds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from infra.catalog import distinct
from infra.catalog.distinct import quoted
from infra.catalog.tables import lake_name, tables_of
from sinks.distinct import Tables
from transform.contract import Contract

EPOCH = "CAST('1970-01-01 00:00:00 UTC' AS timestamp with time zone)"
PARTITION = "hour, rows, ids, conflicts, digest, seal"
PARTITIONS = f"_newest CROSS JOIN UNNEST(_newest.partitions) AS p ({PARTITION})"
"""Hours of the manifests that count, where an array of rows unnests into columns, as in Trino."""


@dataclass(frozen=True)
class Query:
    """A query with a name."""

    name: str
    about: str
    sql: str


def queries(versions: Sequence[Contract], partitions: str = PARTITIONS) -> list[Query]:
    """The queries of a contract with these versions, the newest last."""
    landing, quarantine, dropped, manifests = tables_of(versions)
    own = lake_name(versions[-1].name)
    lake = quoted(own)  # it may be a word of SQL's
    mine = _Names(versions[-1], lake, manifests.name, partitions)
    columns = [column.name for column in landing.columns]
    marks = [column.name for column in quarantine.columns]
    landed = Tables(landing.name, quarantine.name, dropped.name)
    # What landed is deleted some time after the lake has taken it in.
    names = ", ".join(map(quoted, columns))
    both = f"(SELECT {names} FROM {lake} UNION ALL SELECT {names} FROM {landing.name})"
    every = Tables(both, quarantine.name, dropped.name)
    return [
        Query(f"{own}_{name}", about, sql.strip())
        for name, about, sql in (
            ("count", "How many records, exactly; ids less than records are conflicts", mine.count),
            ("rows_per_hour", "Records of each hour of event time, UTC", mine.per_hour),
            ("latest", "The latest record of each device, by event time", mine.latest(columns)),
            ("lateness", "How long after their event time records arrived", mine.lateness),
            ("partitions", "Hours of the lake, and which are sealed as of when", mine.hours),
            ("sealed", "Records of sealed hours alone", mine.sealed(columns)),
            ("rejects_by_reason", "What was rejected and why, each once", _rejects(every, marks)),
            ("landed", "One row per identity of what is in landing", _records(landed, columns)),
            ("now", NOW, _records(every, columns)),
        )
    ]


NOW = (
    "The lake and what landed since, each record by its one fate. Exact, but for what comes after "
    "compaction has deleted the objects beside which it counts: the next compaction settles that"
)


@dataclass(frozen=True)
class _Names:
    """What the queries of a contract's lake are about."""

    contract: Contract
    lake: str
    manifests: str
    partitions: str

    @property
    def device(self) -> str:
        return quoted(self.contract.device)

    @property
    def time(self) -> str:
        return quoted(self.contract.event_time)

    @property
    def count(self) -> str:
        return f"SELECT count(*) AS records, count(DISTINCT _record_id) AS ids FROM {self.lake}"

    @property
    def per_hour(self) -> str:
        return f"""
SELECT date_trunc('hour', {self.time}) AS hour, count(*) AS records,
    count(DISTINCT {self.device}) AS devices
FROM {self.lake}
GROUP BY date_trunc('hour', {self.time})
ORDER BY hour
"""

    def latest(self, columns: Sequence[str]) -> str:
        names = ", ".join(map(quoted, columns))
        return f"""
WITH _ranked AS (
    SELECT {names}, row_number() OVER (
        PARTITION BY {self.device} ORDER BY {self.time} DESC, _digest DESC
    ) AS _place
    FROM {self.lake}
)
SELECT {names} FROM _ranked WHERE _place = 1
"""

    @property
    def lateness(self) -> str:
        return f"""
WITH _told AS (
    SELECT CASE
        WHEN _skew < 0 THEN '0 before its event time'
        WHEN _skew < 60000000 THEN '1 within a minute'
        WHEN _skew < 3600000000 THEN '2 within an hour'
        WHEN _skew < 86400000000 THEN '3 within a day'
        ELSE '4 later' END AS arrived
    FROM {self.lake}
    WHERE _skew IS NOT NULL
)
SELECT arrived, count(*) AS records FROM _told GROUP BY arrived ORDER BY arrived
"""

    @property
    def hours(self) -> str:
        return f"""
WITH {self._newest}
SELECT {EPOCH} + p.hour * INTERVAL '1' HOUR AS hour, p.rows, p.ids, p.conflicts, p.digest,
    {EPOCH} + p.seal.as_of / 1000000 * INTERVAL '1' SECOND AS sealed_as_of, p.seal.missing
FROM {self.partitions}
ORDER BY hour
"""

    def sealed(self, columns: Sequence[str]) -> str:
        names = ", ".join(f"l.{quoted(name)}" for name in columns)
        return f"""
WITH {self._newest}, _sealed AS (
    SELECT p.hour FROM {self.partitions}
    WHERE p.seal IS NOT NULL
    GROUP BY p.hour
    HAVING count(*) = (SELECT count(*) FROM _newest)
)
SELECT {names} FROM {self.lake} l
JOIN _sealed s ON s.hour = date_diff('hour', {EPOCH}, l.{self.time})
"""

    @property
    def _newest(self) -> str:
        """Of two manifests of one version one lost a race. SQL cannot tell which: both are in."""
        return f"""_newest AS (
    SELECT partitions FROM {self.manifests}
    WHERE version = (SELECT max(version) FROM {self.manifests})
)"""


def _rejects(tables: Tables, columns: Sequence[str]) -> str:
    return f"""
WITH {distinct.members(tables, tables.quarantine, columns)}
SELECT _reason, _field, count(*) AS rejects, min(_arrival) AS first_seen,
    max(_arrival) AS last_seen
FROM _members
GROUP BY _reason, _field
ORDER BY rejects DESC, _reason, _field
"""


def _records(tables: Tables, columns: Sequence[str]) -> str:
    names = ", ".join(map(quoted, columns))
    return f"WITH {distinct.records(tables, columns)}\nSELECT {names} FROM _records"
