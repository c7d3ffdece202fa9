"""Hot items that no record wants any more once a range was reprocessed.

Keys that older generations of the range made, less keys that any chosen row still wants. In layout
`latest` such an item stood before others that are not in the table any more: the newest of those
that landing still has is put in its place. Between the two the device has no item.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from ingest.repair import living
from ingest.settings import Wiring
from sinks import fates, hot, landing
from sinks.control import Reprocessed
from sinks.deadline import Deadline
from sinks.errors import DeadlinePassed, Unavailable
from sinks.lake import instead, manifest
from sinks.landing import Landing
from sinks.table import Key
from sinks.writes import NEWEST_BY
from transform.columns import repeated
from transform.contract import Contract
from transform.tables import hot_mask

SECONDS = 600.0  # in which the table must take it

LINEAGE = ("_stream", "_shard", "_sequence", "_epoch", "_generation", "_arrival")
KEYS = pa.schema(
    [
        ("pk", pa.string()),
        ("sk", pa.string()),
        ("latest", pa.bool_()),
        ("_object", pa.string()),
        ("_row", pa.int64()),
        *((name, fates.LANDED.field(name).type) for name in LINEAGE),
    ]
)
CHOSEN = f"""
    FROM keys SEMI JOIN ({fates.TABLES.delivered()})
    USING (_stream, _shard, _sequence, _generation)
"""
STALE = f"""
    SELECT DISTINCT pk, sk, latest FROM keys
    WHERE _epoch < {{epoch}} AND epoch_us(_arrival) >= {{low}} AND epoch_us(_arrival) < {{high}}
    EXCEPT SELECT pk, sk, latest {CHOSEN} ORDER BY ALL
"""
NEWEST = f"""
    SELECT max_by(_object, (sk, _epoch)), max_by(_row, (sk, _epoch)) {CHOSEN}
    WHERE latest AND pk IN (FROM devices) GROUP BY pk ORDER BY ALL
"""


@dataclass
class Removed:
    """How many items were removed, and how many could not be put right in time."""

    removed: int = 0
    left: int = 0


def remove(wiring: Wiring, rules: Contract, which: Reprocessed) -> Removed:
    """Put the hot table right after a reprocess. Doing it again does no harm."""
    known = fates.read(wiring.bucket, rules, past=True)
    found = _Rows(wiring, rules)
    made = [_keys_made(key, rows) for key in found.keys for rows in found.of(key)]
    keys = pa.concat_tables([KEYS.empty_table(), *made])
    inside = {"epoch": which.epoch, "low": which.from_micros, "high": which.to_micros}
    stale = known.ask(STALE.format(**inside), keys=keys).fetchall()
    deadline = Deadline(wiring.clock() + SECONDS, wiring.clock)
    items = [(pk, sk) for pk, sk, latest in stale if not latest]
    left = wiring.hot_table.delete_all(items, deadline, wiring.waiting)
    told = Removed(len(items) - len(left), len(left))
    readings = {(device, place) for device, place, latest in stale if latest}
    if readings:
        _remove_newest(wiring, readings, deadline, told)
        devices = pa.table({"pk": sorted({device for device, _ in readings})})
        newest = known.ask(NEWEST, keys=keys, devices=devices).fetchall()
        told.left += _put_back(wiring, found, newest, deadline)
    return told


def _remove_newest(wiring: Wiring, readings: set[Key], deadline: Deadline, told: Removed) -> None:
    """Remove the items of those devices whose item is one of these readings."""
    for device in sorted({device for device, _ in readings}):
        try:
            deadline.check(f"remove the item of {device}")
            for item in wiring.hot_table.query(device, hot.LATEST, hot.LATEST):
                place = item[NEWEST_BY]["S"]
                if (device, place) in readings:
                    wiring.hot_table.delete_newest((device, hot.LATEST), place)
                    told.removed += 1
        except (Unavailable, DeadlinePassed):
            told.left += 1


def _put_back(
    wiring: Wiring, found: _Rows, rows: Iterable[tuple[str, int]], deadline: Deadline
) -> int:
    """Put the items of these rows, given by object and place; returns how many were not taken."""
    places: dict[str, list[int]] = {}
    for key, place in rows:
        places.setdefault(key, []).append(place)
    left = 0
    for key, some in places.items():
        for made in found.of(key, set(some)):
            alive = living(made.rows, made.contract, wiring.clock())
            wanted = hot.Wanted.of(made.rows.filter(alive), made.contract)
            puts, waiting = wanted.puts(), wiring.waiting
            left += len(
                wiring.hot_table.put_each(len(wanted), puts, deadline, waiting, newest=True)
            )
    return left


def _keys_made(key: str, made: _Made) -> pa.Table:
    """Hot keys of an object's rows, by the contract that made them."""
    rows, contract = made.rows, made.contract
    mask = hot_mask(rows, contract)
    count = rows.num_rows
    named = hot.key_attributes(rows, contract)
    columns = [
        named["pk"],
        named.get(NEWEST_BY, named["sk"]),
        repeated(contract.latest, pa.bool_(), count),
        repeated(key, pa.string(), count),
        made.places,
        *(rows.column(name) for name in LINEAGE),
    ]
    return pa.table(columns, KEYS.names).cast(KEYS).filter(mask)


@dataclass(frozen=True)
class _Made:
    """Rows that one contract made, and their places in the object that has them."""

    contract: Contract
    rows: pa.Table
    places: pa.Array


class _Rows:
    """The rows of landing objects, and of files of the lake that stand for those that are gone."""

    def __init__(self, wiring: Wiring, own: Contract) -> None:
        self._wiring, self._own = wiring, own
        bucket, name = wiring.bucket, own.name
        there = list(bucket.keys(f"{landing.LANDING}/{name}/"))
        self.keys = [*there, *instead.files(bucket, name, there, past=True)]
        self._by = manifest.read(bucket, name).contracts

    def of(self, key: str, places: Collection[int] | None = None) -> Iterator[_Made]:
        """An object's rows, or those at some places, by contract."""
        landed = landing.open_(self._wiring.bucket, key)
        for contract, chosen in self._parts(landed, places):
            columns = list(dict.fromkeys([*hot.columns_of(contract, landed.names), *LINEAGE]))
            yield _Made(contract, landed.rows(columns).take(chosen), chosen)

    def _parts(
        self, landed: Landing, places: Collection[int] | None
    ) -> Iterator[tuple[Contract, pa.Array]]:
        """Contracts behind an object, and the places of their rows in it."""
        bucket, contracts = self._wiring.bucket, self._wiring.contracts
        made = landed.rows(["_generation"]).column("_generation").to_pylist()
        at: dict[str, list[int]] = {}
        for place, generation in enumerate(made):
            if places is None or place in places:
                at.setdefault(generation, []).append(place)
        for generation, some in at.items():
            digest = landed.contract_digest or self._by.get(generation, self._own.digest)
            yield (
                contracts.noted(bucket, self._own, digest),
                pa.array(some, pa.int64()),
            )
