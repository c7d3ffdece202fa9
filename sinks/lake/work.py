"""The work there is: objects that a lake has yet to take in, found in the ledger (law 11).

Listings find the rest: objects of attempts that ended before they told of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from sinks import erasures, ledger
from sinks.bucket import Bucket
from sinks.lake import manifest
from sinks.lake.compact import Compacted, absorbed_of, compact
from sinks.lake.manifest import Manifest
from sinks.lake.plan import SETTLING, UNKNOWN, Object, Plan, fresh_of, micros, plan
from sinks.lake.workspace import DEFAULT, Limits
from sinks.ledger import Attempt
from sinks.table import Table
from transform.contract import Contract
from transform.tables import MICROS

ROWS_MAX = 5_000_000  # that one compaction takes in: a quarter of a minute of one core
QUIET = timedelta(minutes=20)  # no attempt is still at what was written before
SCAN_FROM = timedelta(hours=6)  # of minutes to ask for: then the whole ledger is read sooner


@dataclass(frozen=True)
class Choice:
    """What a run of compactions takes in.

    `orphans` says that objects no attempt told of are looked for too: it lists landing.
    """

    rows_max: int = ROWS_MAX
    orphans: bool = False
    limits: Limits = DEFAULT


def run(
    bucket: Bucket,
    table: Table,
    contract: Contract,
    choice: Choice,
    clock: Callable[[], float] = time.time,
) -> Iterator[Compacted]:
    """Compact until nothing is left; what each compaction did.

    Raises `Raced`, `Clash`, a `SinkError`: what is committed by then stays, what is not is as if it
    had never been begun.
    """
    while True:
        lake = manifest.read(bucket, contract.name)
        done = compact(
            bucket, contract, find(bucket, table, lake, choice, clock), choice.limits, clock
        )
        yield done
        if not done.left or not done.objects:
            return


def find(
    bucket: Bucket, table: Table, lake: Manifest, choice: Choice, clock: Callable[[], float]
) -> Plan:
    """The next objects to take in."""
    now = datetime.fromtimestamp(clock(), UTC)
    attempts = [made for made in _attempts(table, lake, now) if made.contract == lake.contract]
    told = {one for made in attempts for one in fresh_of(made, ())}
    known = absorbed_of(bucket, lake, told)
    made = _less_erased(bucket, plan(attempts, known, choice.rows_max, now))
    if not choice.orphans or made.left:
        return made
    found = {*made.objects, *_orphans(bucket, lake, {one.key for one in told}, now)}
    return Plan(tuple(sorted(found)), made.settled_until)


def _less_erased(bucket: Bucket, made: Plan) -> Plan:
    """The same; of objects that were written again the ledger does not know what they hold."""
    again = erasures.digests(erasures.known(bucket)).keys()
    objects = (Object(o.key, UNKNOWN) if o.key in again else o for o in made.objects)
    return replace(made, objects=tuple(sorted(objects)))


def _attempts(table: Table, lake: Manifest, now: datetime) -> Iterator[Attempt]:
    """Attempts that may not be absorbed yet, and more."""
    since = datetime.fromtimestamp(lake.settled_until / MICROS, UTC) - SETTLING
    if now - since > SCAN_FROM:
        return ledger.attempts(table)
    return ledger.settled_since(table, since, now)


def _orphans(bucket: Bucket, lake: Manifest, told: set[str], now: datetime) -> Iterator[Object]:
    """Objects that lie there, that no attempt told of and that none is at any more.

    Landing is listed first: an attempt writes it last, so its marks are there by then.
    """
    known = manifest.taken_in(bucket, lake.absorbed) | told
    before = micros(now - QUIET) / MICROS
    for prefix in manifest.sources(lake.contract):
        for key, written_at in bucket.written(prefix):
            if key not in known and written_at < before:
                yield Object(key, UNKNOWN)
