"""Reprocess: a range of arrivals runs again under a greater epoch, by other rules.

Law 5 makes the greatest epoch's verdict the one that counts. What the hot table got by older rules
is put right by the run itself where the key is the same; where it changed, `stale` removes the old
item.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from ingest import stale
from ingest.rounds import Ran, Round, Rounds
from ingest.settings import Wiring
from ingest.sweep import KEPT_DAYS, sweep
from sinks import control, distinct, fates, raw
from sinks.bucket import Bucket
from sinks.control import Reprocessed
from sinks.errors import SinkError
from transform.contract import Contract
from transform.contract_file import ContractError
from transform.pipeline import Transform

PREFIX = "reprocessed"
ROUND_RECORDS = 5_000  # as many as a stream's mapping delivers at once
PASSES_MAX = 10  # over the listing: traffic that goes on adds to it until it runs under the epoch


@dataclass
class Report:
    """What a reprocess did or, as a dry run, would do. Positions are source records.

    `before` and `after` count the range's positions by law 5; `changed` are those whose verdict or
    whose records differ.
    """

    epoch: int
    positions: int = 0
    rounds: int = 0
    skipped_rounds: int = 0
    handed_back: int = 0
    before: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)
    changed: int = 0
    hot_keys_removed: int = 0
    hot_keys_left: int = 0
    hot_rows_owed: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether the whole range has its fate and the hot table is right."""
        return not self.handed_back and not self.hot_keys_left

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"complete": self.complete}


def reprocess(
    wiring: Wiring, from_micros: int, to_micros: int, grace_seconds: float = 0.0
) -> Report:
    """Run the arrivals from `from_micros` to before `to_micros` again, by the wiring's contract.

    The same range and contract again goes on where it was cut short. `grace_seconds` is for a
    running pipeline: an execution of the epoch before may still land, and is found by listing
    again. Nothing hot is deleted while a part is handed back. Raises `ContractError` as `rules_of`.
    """
    rules = rules_of(wiring, 0).contract
    which = control.begin(wiring.bucket, from_micros, to_micros, rules.digest)
    report = Report(which.epoch)
    done = {key for key, back in _audits(wiring.bucket, which.epoch) if not back}
    report.skipped_rounds = len(done)
    _passes(wiring, which, report, done)
    if grace_seconds:
        wiring.waiting.sleep(grace_seconds)
        _passes(wiring, which, report, done)
    count(wiring.bucket, rules, which, report)
    if not report.handed_back:
        gone = stale.remove(wiring, rules, which)
        report.hot_keys_removed, report.hot_keys_left = gone.removed, gone.left
    if report.complete:
        control.finish(wiring.bucket, which)
        _sweep(wiring, report)
    return report


def rules_of(wiring: Wiring, epoch: int) -> Transform:
    """The rules that the wiring's contract stands for.

    Raises `ContractError` where a newer version is in use, by which records would be judged.
    """
    own, rules = wiring.contract, wiring.transform(epoch)
    if rules.contract.digest != own.digest:
        raise ContractError(
            f"version {own.version} of {own.name} would not be used: version "
            f"{rules.contract.version} is the current one; give that file, or first run "
            f"`millrace contract use {own.name} {own.version}`"
        )
    return rules


def preview(wiring: Wiring, from_micros: int, to_micros: int) -> Report:
    """What a reprocess would do, found out in this process; nothing is written."""
    rules = rules_of(wiring, wiring.epoch() + 1)
    which = Reprocessed(rules.epoch, from_micros, to_micros, rules.contract.digest)
    report = Report(which.epoch)
    known = fates.read(wiring.bucket, rules.contract, past=True)
    landed, rejected, dropped = [known.landed], [known.rejected], [known.dropped]
    for key in _keys(wiring.bucket, which):
        rows = raw.read(wiring.bucket, key)
        for first, received in _parts(rows, which):
            batch = rules.apply(rows.slice(first, received), key, first)
            landed.append(batch.rows.select(fates.LANDED.names).cast(fates.LANDED))
            rejected.append(batch.rejects)
            dropped.append(batch.drops)
            report.rounds += 1
    would = fates.Fates(*map(pa.concat_tables, (landed, rejected, dropped)))
    _count(would, which, report)
    return report


def count(bucket: Bucket, rules: Contract, which: Reprocessed, report: Report) -> None:
    """Fill in the report's counts before and after, from what lies in the bucket."""
    _count(fates.read(bucket, rules, past=True), which, report)


def _passes(wiring: Wiring, which: Reprocessed, report: Report, done: set[str]) -> None:
    """List and run until a listing has nothing new."""
    rounds = Rounds(wiring)
    failed: set[str] = set()
    for _ in range(PASSES_MAX):
        fresh = 0
        for name, what in _rounds(wiring, which):
            if name in done or name in failed:
                continue
            ran = rounds.run(what)
            _audit(wiring, which, name, what, ran)
            report.rounds += 1
            fresh += 1
            back = ran.fates.count("retry")
            if back:
                report.handed_back += back
                report.problems.append(f"{back} records of {what.raw_key}: {ran.reason}")
                failed.add(name)
            else:
                done.add(name)
        if not fresh:
            return


def _rounds(wiring: Wiring, which: Reprocessed) -> Iterator[tuple[str, Round]]:
    """The range's parts of raw objects, each with the name of its audit."""
    for key in _keys(wiring.bucket, which):
        rows = raw.read(wiring.bucket, key, ["_stream", "_arrival"])
        for first, received in _parts(rows, which):
            stream = rows.column("_stream")[0].as_py()
            digest = key.rpartition("/")[2].removesuffix(".parquet")
            what = Round(stream, key, rows.num_rows, first, received, which.epoch)
            yield f"{digest}-{first}-{received}", what


def _keys(bucket: Bucket, which: Reprocessed) -> list[str]:
    """Raw objects that may hold arrivals of the range: they are filed by their earliest one."""
    # Between the records of one Delivery lie at most as many days as a source keeps them.
    earliest = _hour(which.from_micros) - timedelta(days=KEPT_DAYS)
    low, high = f"{raw.PREFIX}/{earliest:%Y-%m-%d/%H}", f"{_hour(which.to_micros - 1):%Y-%m-%d/%H}"
    return [
        key
        for key in bucket.keys(f"{raw.PREFIX}/")
        if low <= key and key[len(raw.PREFIX) + 1 :][: len(high)] <= high
    ]


def _parts(rows: pa.Table, which: Reprocessed) -> Iterator[tuple[int, int]]:
    """Runs of records whose arrival lies in the range, as first and number."""
    arrivals = rows.column("_arrival").cast(pa.int64())
    meant = pc.and_(
        pc.greater_equal(arrivals, which.from_micros), pc.less(arrivals, which.to_micros)
    ).to_pylist()
    edges = [index for index, (a, b) in enumerate(pairwise([False, *meant, False])) if a != b]
    for low, high in zip(edges[::2], edges[1::2], strict=True):
        for first in range(low, high, ROUND_RECORDS):
            yield first, min(ROUND_RECORDS, high - first)


def _hour(micros: int) -> datetime:
    return datetime.fromtimestamp(micros // 1_000_000, UTC)


def _audit(wiring: Wiring, which: Reprocessed, name: str, what: Round, ran: Ran) -> None:
    told = {
        "epoch": which.epoch,
        "at": datetime.fromtimestamp(wiring.clock(), UTC).isoformat(timespec="milliseconds"),
        "raw_key": what.raw_key,
        "first": what.first,
        "received": what.received,
        "contract": ran.contract,
        "generation": ran.generation,
        "reason": ran.reason,
        "fates": {fate: ran.fates.count(fate) for fate in sorted(set(ran.fates))},
    }
    wiring.bucket.put(f"{PREFIX}/{which.epoch}/{name}.json", orjson.dumps(told))


def _audits(bucket: Bucket, epoch: int) -> Iterator[tuple[str, int]]:
    """Name of every part that was run under the epoch, and how much of it was handed back."""
    for key in bucket.keys(f"{PREFIX}/{epoch}/"):
        name = key.rpartition("/")[2].removesuffix(".json")
        yield name, orjson.loads(bucket.get(key))["fates"].get("retry", 0)


# Counts by law 5


_ELEMENTS = """
    SELECT _stream, _shard, _sequence, 'delivered' AS fate, _record_id || hex(_digest) AS said
    FROM ({delivered}) UNION ALL
    SELECT _stream, _shard, _sequence, 'quarantined', _reason || coalesce(_field, '')
    FROM ({set_aside}) UNION ALL
    SELECT _stream, _shard, _sequence, 'dropped', _rule FROM ({left_out})
"""


def _count(known: fates.Fates, which: Reprocessed, report: Report) -> None:
    """Both sides by law 5; before is what it was without the epoch's rows."""
    inside = f"epoch_us(_arrival) >= {which.from_micros} AND epoch_us(_arrival) < {which.to_micros}"
    sides = {}
    for side, more in (("before", f" AND _epoch < {which.epoch}"), ("after", "")):
        tables = distinct.Tables(
            *(f"(SELECT * FROM {name} WHERE {inside}{more})" for name in vars(known))
        )
        elements = _ELEMENTS.format(
            delivered=tables.delivered(), set_aside=tables.set_aside(), left_out=tables.left_out()
        )
        sides[side] = known.ask(
            f"SELECT _stream, _shard, _sequence, {distinct.worst('fate')} AS fate, "
            f"list_sort(list(said)) AS said "
            f"FROM ({elements}) GROUP BY _stream, _shard, _sequence"
        ).to_arrow_table()
    report.before, report.after = (_tally(sides[side]) for side in ("before", "after"))
    report.positions = sides["after"].num_rows
    report.changed = len(
        known.ask("SELECT * FROM after EXCEPT SELECT * FROM before", **sides).fetchall()
    )


def _tally(side: pa.Table) -> dict[str, int]:
    told = side.column("fate").to_pylist()
    return {fate: told.count(fate) for fate in ("delivered", "dropped", "quarantined")}


def _sweep(wiring: Wiring, report: Report) -> None:
    """Rows whose raw has expired still count, and debts of theirs were left to this run."""
    try:
        report.hot_rows_owed = sweep(wiring).rows
    except SinkError as error:
        report.problems.append(f"hot rows that nobody owes were not looked for: {error}")
