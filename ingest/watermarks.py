"""How far a pipeline's sources are, asked of the ledger and of the sources themselves.

What was found is kept in `control/watermarks-<pipeline>.json`, so that a look reads only what is
newer than the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ingest import markers
from sinks import control, ledger, raw
from sinks.bucket import Bucket
from sinks.errors import translated
from sinks.lake import watermark
from sinks.lake.watermark import Lanes, Place, Queue, Waiting, Watermark
from sinks.ledger import Attempt
from sinks.table import Table
from transform.records import POSITION

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_sqs import SQSClient

MICROS = 1_000_000
HOUR_MICROS = 3_600 * MICROS
LATE = timedelta(minutes=2)  # by which an attempt's item may be seen after it settled
SCAN_AFTER = timedelta(hours=6)  # eight queries a minute cost more than a scan then
QUEUE_COUNTS = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


@dataclass(frozen=True)
class Sources:
    """A pipeline's stream and queues, and where it keeps account. `queues` has URLs by name.

    `oldest` says how many seconds old a queue's oldest message is, None where nothing knows.
    """

    pipeline: str
    stream: str
    lanes: Lanes
    queues: Mapping[str, str]
    kinesis: KinesisClient
    sqs: SQSClient
    bucket: Bucket
    ledger: Table
    clock: Callable[[], float]
    oldest: Callable[[str], float | None] = lambda _queue: None


@dataclass(frozen=True)
class Known:
    """What is known of the sources: how far shards were, and when queues were empty.

    The next look reads what came `since`. All are microseconds since 1970. `used` queues have had
    messages.
    """

    since: int = 0
    used: Sequence[str] = ()
    shards: Mapping[str, int] = field(default_factory=dict)
    queues: Mapping[str, int] = field(default_factory=dict)


def look(sources: Sources, parked: Iterable[Place] = ()) -> list[Watermark]:
    """The watermark of each shard and queue, now. Raises a `SinkError`.

    `parked` are positions that no source will bring again.
    """
    known = Known(**(control.read(sources.bucket, _name(sources)) or {}))
    now = int(sources.clock() * MICROS)
    asked = [_queue(sources, name, url, known) for name, url in sources.queues.items()]
    shards = markers.shards_of(sources.kinesis, sources.stream)
    attempts = list(_attempts(sources.ledger, known.since, now))
    used = {
        *known.used,
        *(made.stream for made in attempts if made.last_arrival and not made.shard),
    }
    queues = [replace(queue, used=queue.name in used) for queue in asked]
    newest = {(sources.stream, shard): arrival for shard, arrival in known.shards.items()}
    for of, arrival in watermark.settled(attempts).items():
        newest[of] = max(newest.get(of, 0), arrival)
    waits = Waiting({})
    if sources.lanes.factor > 1:
        waits = watermark.waiting(_archived(sources, known.since, now), attempts, set(parked))
    found = watermark.of_shards(sources.stream, shards, newest, waits.oldest, sources.lanes)
    going = {
        shard.name: one.until
        for shard, one in zip(shards, found, strict=True)
        if one.until is not None and not one.ended
    }
    since = now
    if sources.lanes.factor > 1:  # what waits is looked for among all that came since
        since = min(filter(None, (now, waits.since, *going.values())))
    empty = {queue.name: queue.until for queue in queues if queue.until is not None}
    control.write(
        sources.bucket,
        _name(sources),
        vars(Known(since, sorted(used.intersection(sources.queues)), going, empty)),
    )
    return [*found, *map(watermark.of_queue, queues)]


def _queue(sources: Sources, name: str, url: str, known: Known) -> Queue:
    """What a queue says of itself; the moment is before it was asked."""
    asked_at = int(sources.clock() * MICROS)
    with translated(f"ask queue {name}"):
        answer = sources.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(QUEUE_COUNTS))  # type: ignore[arg-type]
    told: Mapping[Any, str] = answer["Attributes"]
    messages = sum(int(told.get(count, 0)) for count in QUEUE_COUNTS)
    oldest = sources.oldest(name) if messages else None
    return Queue(name, asked_at, messages, oldest, known.queues.get(name))


def _attempts(table: Table, since: int, now: int) -> Iterator[Attempt]:
    """The attempts that settled since, and some before."""
    moments = [datetime.fromtimestamp(at / MICROS, UTC) for at in (since, now)]
    if moments[1] - moments[0] > SCAN_AFTER:
        return ledger.attempts(table)
    return ledger.settled_since(table, moments[0] - LATE, moments[1] + LATE)


def _archived(sources: Sources, since: int, now: int) -> dict[str, list[tuple[Place, int]]]:
    """Positions and arrivals in the raw objects of the stream, from an arrival's hour on."""
    found: dict[str, list[tuple[Place, int]]] = {}
    for key in _raw_keys(sources.bucket, since, now):
        table = raw.read(sources.bucket, key, [*POSITION, "_arrival"])
        columns = [table.column(name).to_pylist() for name in POSITION]
        arrivals = table.column("_arrival").cast("int64").to_pylist()
        places = list(zip(*columns, strict=True))
        if places[0][0] == sources.stream:
            found[key] = list(zip(places, arrivals, strict=True))
    return found


def _raw_keys(bucket: Bucket, since: int, now: int) -> Iterator[str]:
    if not since:
        yield from bucket.keys(f"{raw.PREFIX}/")
        return
    for hour in range(since // HOUR_MICROS, now // HOUR_MICROS + 2):
        moment = datetime.fromtimestamp(hour * HOUR_MICROS / MICROS, UTC)
        yield from bucket.keys(f"{raw.PREFIX}/{moment:%Y-%m-%d/%H}/")


def _name(sources: Sources) -> str:
    return f"watermarks-{sources.pipeline}"
