"""Replay: records that were set aside or parked run once more through the ordinary workflow.

Chosen source records, each whole, become a raw object under their original positions and arrivals,
and law 5 does the rest: delivered beats quarantined beats parked, so a replay needs no marks to be
safe, and may run twice. Every chunk leaves an audit, `replays/<run>/<digest of its raw>.json`, by
which a run that was cut short goes on. Dead letters are deleted when all their records have a fate;
on-failure objects stay, for law 5 knows that they are resolved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from ingest import audit
from ingest.audit import Choice, Chosen, Origin
from ingest.parking import Parking, Rescue
from ingest.rounds import Ran, Round, Rounds
from ingest.settings import Wiring
from sinks import fates, ledger, parquet, raw
from sinks.fates import Place
from transform.erased import erased_of
from transform.pipeline import Transform

CHUNK_RECORDS = 150  # between two audits, and two looks at the pace
CHUNK_BYTES = 4 * 1024 * 1024
EXAMPLES_MAX = 3  # records shown for each kind of change


@dataclass(frozen=True)
class Pace:
    """How fast, and when to stop: after so many records that were not delivered."""

    per_second: float | None = None
    errors_max: int | None = None


@dataclass
class Report:
    """What a run did. Counts are of source records; `missing` could not be had any more."""

    run: str
    chosen: int = 0
    delivered: int = 0
    dropped: int = 0
    quarantined: int = 0
    retry: int = 0
    skipped: int = 0
    missing: int = 0
    letters_deleted: int = 0
    stopped: str = ""
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def replay(
    wiring: Wiring, parking: Parking, choice: Choice, run: str, pace: Pace | None = None
) -> Report:
    """Replay what `choice` names, as the run of this id; the same id again goes on with it.

    Needs the pipeline's workflow. Raises a `SinkError` where the world refuses to be read.
    """
    pace = pace or Pace()
    report = Report(run)
    audit.begin(wiring, choice, run)
    done = audit.done(wiring.bucket, run)
    found = _Found(wiring, parking, choice, report)
    rounds = Rounds(wiring)
    began = wiring.clock()
    for chunk in _chunks(one for one in found if one.place not in done):
        fates_of = rounds.run(_archived(wiring, chunk))
        audit.write(wiring, run, chunk, fates_of)
        for fate in fates_of.fates:
            setattr(report, fate, getattr(report, fate) + 1)
        if fates_of.reason:
            report.problems.append(f"handed back: {fates_of.reason}")
        done.update(_settled(chunk, fates_of))
        failed = report.quarantined + report.retry
        if pace.errors_max is not None and failed >= pace.errors_max:
            report.stopped = f"{failed} records were not delivered"
            break
        _keep_pace(wiring, pace, began, report)
    report.letters_deleted = parking.settle(lambda place: place in done or found.has_fate(place))
    return report


def preview(wiring: Wiring, parking: Parking, choice: Choice, rules: Transform) -> dict[str, Any]:
    """What a replay under these rules would do; nothing is written.

    For each verdict before and verdict now, the number of records and examples.
    """
    report = Report("")
    changes: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    counts: Counter[tuple[str, str, str]] = Counter()
    for chunk in _chunks(_Found(wiring, parking, choice, report, rules)):
        for one, now, detail in _verdicts(chunk, rules):
            kind = (one.origin, one.before, now)
            counts[kind] += 1
            examples = changes.setdefault(kind, [])
            if len(examples) < EXAMPLES_MAX:
                examples.append({"position": list(one.place), "now": detail})
    parking.settle(lambda _: False)
    passing = sum(count for (_, _, now), count in counts.items() if now == "delivered")
    return {
        "chosen": report.chosen,
        "would_pass": passing,
        "would_fail": counts.total() - passing,
        "skipped": report.skipped,
        "missing": report.missing,
        "problems": report.problems,
        "changes": [
            {"from": origin, "before": before, "now": now, "records": count}
            | {"examples": changes[origin, before, now]}
            for (origin, before, now), count in counts.most_common()
        ],
    }


class _Found:
    """The chosen source records, one after the other, each once."""

    def __init__(
        self,
        wiring: Wiring,
        parking: Parking,
        choice: Choice,
        report: Report,
        rules: Transform | None = None,
    ) -> None:
        self._wiring, self._parking = wiring, parking
        self._choice, self._report = choice, report
        self._rules = rules or wiring.transform(wiring.epoch())
        self._fates = fates.read(wiring.bucket, self._rules.contract)
        attempts = ledger.attempts(wiring.ledger_table)
        self._with_fate = self._fates.places()
        self._with_fate &= fates.reported(wiring.bucket, self._rules.contract, attempts)
        self._with_fate |= self._fates.erased()
        self._taken: set[Place] = set()

    def has_fate(self, place: Place) -> bool:
        """Whether it is delivered, dropped or quarantined already: law 5 and the ledger say so."""
        return place in self._with_fate

    def __iter__(self) -> Iterator[Chosen]:
        for one in self._all():
            if self._choice.limit is not None and self._report.chosen >= self._choice.limit:
                return
            self._report.chosen += 1
            self._taken.add(one.place)
            yield one

    def _all(self) -> Iterator[Chosen]:
        wanted = self._choice.origins
        if "quarantine" in wanted:
            yield from self._quarantined()
        if self._choice.reason is not None or self._choice.field is not None:
            return  # what is parked was never judged
        if "on-failure" in wanted:
            yield from self._parked("on-failure", self._parking.on_failure())
        if "dead-letters" in wanted:
            yield from self._parked("dead-letters", self._parking.dead_letters())

    def _quarantined(self) -> Iterator[Chosen]:
        """Open quarantine rows by raw object. Under the same rules the verdict is the same."""
        by_raw: dict[str, dict[int, str]] = {}
        seen: set[Place] = set()
        for row in self._fates.open_rows():
            place = (row["_stream"], row["_shard"], row["_sequence"])
            meant = self._choice.takes(row["_arrival"])
            meant &= self._choice.reason in {None, row["_reason"]}
            meant &= self._choice.field in {None, row["_field"]}
            if not meant or place in seen:
                continue
            seen.add(place)
            if row["_generation"] == self._rules.generation.digest:
                self._report.skipped += 1
                continue
            by_raw.setdefault(row["_raw"], {})[row["_index"]] = _verdict(row)
        for key in sorted(by_raw):
            wanted = by_raw[key]
            if self._wiring.bucket.find(key) is None:
                self._report.missing += len(wanted)
                self._report.problems.append(f"{key} is gone, with {len(wanted)} chosen records")
                continue
            rows = raw.read(self._wiring.bucket, key)
            gone = erased_of(rows)
            for index in sorted(wanted):
                row = _row(rows, index)
                if not row["_body"] and gone:
                    self._report.missing += 1
                    self._report.problems.append(f"record {index} of {key} is erased")
                    continue
                subs = frozenset(sub for at, sub in gone if at == index)
                yield Chosen(row["_source"], row, "quarantine", wanted[index], erased=subs)

    def _parked(self, origin: Origin, rescues: Iterable[Rescue]) -> Iterator[Chosen]:
        for rescue in rescues:
            if rescue.problem:
                self._report.problems.append(rescue.problem)
                self._report.missing += rescue.missing
            rows = rescue.delivery.table()
            for index in range(rows.num_rows):
                one = Chosen(
                    rescue.delivery.source, _row(rows, index), origin, "parked", rescue.letter
                )
                if not self._choice.takes(one.row["_arrival"]):
                    continue
                if one.place in self._with_fate or one.place in self._taken:
                    self._report.skipped += 1
                    continue
                yield one


def _row(rows: pa.Table, index: int) -> dict[str, Any]:
    (row,) = (
        rows.slice(index, 1)
        .set_column(
            rows.column_names.index("_arrival"),
            "_arrival",
            rows.slice(index, 1).column("_arrival").cast(pa.int64()),
        )
        .to_pylist()
    )
    return row  # type: ignore[no-any-return]


def _chunks(found: Iterable[Chosen]) -> Iterator[list[Chosen]]:
    """Bounded chunks of one source and stream and arrival hour: envelopes differ by source.

    Of one hour, so that no raw object's records lie far from the hour it is filed under.
    """
    open_chunks: dict[tuple[str, str, int], list[Chosen]] = {}
    sizes: Counter[tuple[str, str, int]] = Counter()
    for one in found:
        kind = (one.source, one.row["_stream"], one.row["_arrival"] // 3_600_000_000)
        open_chunks.setdefault(kind, []).append(one)
        sizes[kind] += len(one.row["_body"])
        if len(open_chunks[kind]) >= CHUNK_RECORDS or sizes[kind] >= CHUNK_BYTES:
            yield open_chunks.pop(kind)
            del sizes[kind]
    yield from open_chunks.values()


def _archived(wiring: Wiring, chunk: list[Chosen]) -> Round:
    delivery = audit.delivery_of(chunk)
    data = parquet.encode(audit.table_of(chunk))
    key = wiring.bucket.put_once(raw.PREFIX, min(delivery.arrivals), data)
    received = len(delivery)
    # Of what was rejected, much may be rejected again: the breaker is not asked.
    return Round(delivery.stream, key, received, 0, received, wiring.epoch(), rejects="write")


def _settled(chunk: list[Chosen], told: Ran) -> set[Place]:
    return {one.place for one, fate in zip(chunk, told.fates, strict=True) if fate != "retry"}


def _verdicts(chunk: list[Chosen], rules: Transform) -> Iterator[tuple[Chosen, str, str]]:
    """Each record with its verdict and detail under these rules."""
    batch = rules.apply(audit.table_of(chunk), "preview")
    said: dict[int, tuple[str, str]] = {}
    landed = set(batch.rows.column("_index").to_pylist())
    for row in batch.drops.select(["_index", "_rule"]).to_pylist():
        if row["_index"] not in landed:
            said.setdefault(row["_index"], ("dropped", row["_rule"]))
    for row in batch.rejects.select(
        ["_index", "_step", "_reason", "_field", "_detail"]
    ).to_pylist():
        said[row["_index"]] = (_verdict(row), row["_detail"])
    for index, one in enumerate(chunk):
        yield (one, *said.get(index, ("delivered", "")))


def _verdict(row: dict[str, Any]) -> str:
    return "/".join(row[name] for name in ("_step", "_reason", "_field") if row[name])


def _keep_pace(wiring: Wiring, pace: Pace, began: float, report: Report) -> None:
    if pace.per_second is None:
        return
    done = report.delivered + report.dropped + report.quarantined + report.retry
    ahead = began + done / pace.per_second - wiring.clock()
    if ahead > 0:
        wiring.waiting.sleep(ahead)
