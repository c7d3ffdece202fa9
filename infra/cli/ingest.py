"""`millrace ingest`: a file's records through the whole path, and the account of each."""

from __future__ import annotations

import codecs
import errno
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from infra import account, fates, push
from infra.cli import paused, run, shown
from infra.lake import Lake
from infra.local import preflight
from infra.local.embedded import Embedded, Pipeline, running
from infra.local.state import State
from ingest.parked import Lookout
from ingest.producer import Unsendable
from ingest.producer.queue import check_body
from transform.contract import Contract
from transform.contract_file import load_contract
from transform.plan import Reading
from transform.plans import Plans
from transform.records import Rejection
from transform.sender import sender

UNREADABLE_KEYS = 64  # of records whose device nobody can tell
GZIP_MAGIC = b"\x1f\x8b"
EXAMPLES = """\b
Examples:
  millrace ingest readings.ndjson --contract telemetry
  millrace ingest readings.json --contract ./my-fleet.toml --via sqs
  millrace ingest readings.json --contract ./my-fleet.toml --via sqs-fifo
  zcat readings.ndjson.gz | millrace ingest - --contract telemetry --aggregate --json
"""


@click.command(epilog=EXAMPLES)
@click.argument("file", metavar="FILE|-")
@click.option("--contract", required=True, metavar="NAME|PATH", help="What the records look like.")
@click.option(
    "--via",
    type=click.Choice(["kinesis", "sqs", "sqs-fifo"]),
    default="kinesis",
    show_default=True,
    help="The source to push to.",
)
@click.option("--aggregate", is_flag=True, help="Push KPL aggregates (Kinesis only).")
@run.table_option
@run.state_option
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=600.0,
    show_default=True,
    metavar="S",
    help="Seconds to wait until every record has a fate.",
)
@run.json_option
def ingest(
    file: str,
    contract: str,
    via: str,
    aggregate: bool,
    table: str | None,
    state: State,
    timeout: float,
    as_json: bool,
) -> None:
    """Push NDJSON or a JSON array through the whole path and account for every record.

    It ends when every record sent is in landing, in quarantine or parked, and exits with 1 if one
    is unaccounted for, with 3 if time ran out first, with 5 if most records break their contract
    and the breaker has paused the pipeline.
    """
    if aggregate and via != "kinesis":
        raise click.UsageError("--aggregate is for Kinesis: SQS has no aggregates")
    rules = load_contract(contract)
    bodies = list(read_bodies(file, arrays=rules.envelope.body != "senml"))
    if not bodies:
        raise click.UsageError(f"{file} holds no record")
    source, fifo = via.removesuffix("-fifo"), {"sqs": False, "sqs-fifo": True}.get(via)
    if source == "sqs":
        _check_text(bodies, file)
    preflight.check(state)
    with (
        running(state, contract, fifo=fifo, table=table) as system,
        shown.progress(as_json) as watch,
    ):
        paused.require_running(system, source, state)
        sent = push.Sent()
        follower = settlement(system)
        started = time.monotonic()
        keyed = zip(device_keys(bodies, rules), bodies, strict=True)
        send(system, source, keyed, sent, aggregated=aggregate)
        watch.sending(len(bodies), sent)
        follower.sent(sent)
        parked = parked_of(system)
        settling = paused.watched(watch.settling, system, source, state)
        left = fates.await_fates(follower, parked, timeout, settling)
        seconds = time.monotonic() - started
        told = take(system, follower, sent, parked(), seconds)
        trouble = trouble_of(system)
    if as_json:
        shown.print_json(told.to_json())
    else:
        _show(told, state)
    finish(told, left, trouble)


def read_bodies(file: str, *, arrays: bool = True) -> Iterator[bytes]:
    """The records of an NDJSON file, or of one JSON array, as bytes; `-` is stdin.

    NDJSON lines stay exactly as they are, so that a malformed one is quarantined, not refused
    here; blank lines are none. An array's elements are taken as their own bytes, but without
    `arrays` (a SenML pack) it is one record. A byte order mark is the file's, not its first
    record's.
    """
    try:
        data = _stdin() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise click.UsageError(f"{file} cannot be read: {error.strerror}") from None
    if data.startswith(GZIP_MAGIC):
        raise click.UsageError(f"{file} is compressed: zcat {file} | millrace ingest - ...")
    data = data.removeprefix(codecs.BOM_UTF8)
    first, _, more = data.strip().partition(b"\n")
    if first.startswith(b"[") and not (more and _is_json(first)):
        yield from _array(data, file) if arrays else [data.strip()]
        return
    for line in data.split(b"\n"):
        body = line.removesuffix(b"\r")
        if body.strip():
            yield body


def device_keys(bodies: Iterable[bytes], contract: Contract) -> Iterator[str]:
    """A partition key for each record: its device, so that a device's records stay in order.

    What cannot be decoded goes to one shard, so that the breaker sees how much it is: under its
    device where that can be read, else under one of some keys.
    """
    plans = Plans.of(contract)
    device = [field.name for field in contract.fields].index(contract.device)
    for number, body in enumerate(bodies):
        key = _device_read(plans, body, device)
        if key is None:
            name = sender(body, contract)
            key = f"{push.TOGETHER}{number % UNREADABLE_KEYS if name is None else name}"
        yield key[:256]


def _device_read(plans: Plans, body: bytes, device: int) -> str | None:
    """The device of a record's first row, if it has one that can be read as it is."""
    chosen = plans.choose(body, None)
    found = chosen[0].read(body, None) if isinstance(chosen, tuple) else None
    if found is None or isinstance(found, Rejection):
        return None
    rows = (reading.row[device] for reading in found if isinstance(reading, Reading))
    return next((str(name) for name in rows if name is not None), None)


def send(
    system: Pipeline,
    via: str,
    keyed: Iterable[push.Keyed],
    sent: push.Sent,
    *,
    aggregated: bool = False,
) -> None:
    """Push records by one of the pipeline's sources."""
    if via.startswith("sqs"):
        push.to_queue(system.client("sqs"), system.queue_url, keyed, sent)
    else:
        stream = system.topology.stream.name
        push.to_stream(system.client("kinesis"), stream, keyed, sent, aggregated=aggregated)


def settlement(system: Pipeline) -> fates.Settlement:
    """What is sent from now on, and its fates."""
    return fates.Settlement(system.bucket, fates.Follower(system.ledger_table, datetime.now(UTC)))


def parked_of(system: Pipeline) -> fates.Parked:
    """How to look into the pipeline's dead-letter queue and on-failure objects."""
    lookout = Lookout(
        system.bucket,
        system.topology.stream_mapping.on_failure_prefix,
        system.client("sqs"),
        {system.topology.queue.name: system.dead_letters_url},
    )
    return lambda: lookout.look().places()


def take(
    system: Pipeline,
    follower: fates.Settlement,
    sent: push.Sent,
    parked: set[fates.Place],
    seconds: float,
) -> account.Account:
    """The account of what was sent."""
    lake = Lake(system.bucket, system.ledger_table, [system.contract])
    return account.take(lake, system.contract, system.hot_table, follower, sent, parked, seconds)


def trouble_of(system: Pipeline) -> str:
    """The last thing that went wrong in the mappings, where this process runs them."""
    if not isinstance(system, Embedded):
        return ""
    errors = (tally.last_error for tally in system.mappings.tallies.values())
    return next((f"; last error: {error}" for error in errors if error), "")


def finish(told: account.Account, left: set[fates.Place], trouble: str) -> None:
    """Exit as the account says."""
    require_fates(left, trouble)
    if not told.conserved:
        run.fail(f"{told.unaccounted:,} records are unaccounted for", run.UNACCOUNTED)


def require_fates(left: set[fates.Place], trouble: str) -> None:
    """Exit if time ran out before every position had a fate."""
    if left:
        run.fail(f"time ran out: {len(left):,} positions have no fate yet{trouble}", run.TIMED_OUT)


def _show(told: account.Account, state: State) -> None:
    shown.print_account(told)
    shown.out.print(f"{told.sent / told.seconds:,.0f} records a second over {told.seconds:.1f} s")
    if told.quarantined:
        why = "SELECT _reason, _field, _detail, _body FROM quarantine LIMIT 5"
        hint = f'Why some were set aside: millrace query "{why}"{run.state_hint(state)}'
        shown.out.print(hint, soft_wrap=True)


def _stdin() -> bytes:
    if sys.stdin is None:
        raise OSError(errno.EBADF, "it is closed")
    return sys.stdin.buffer.read()


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _array(data: bytes, file: str) -> Iterator[bytes]:
    try:
        elements = msgspec.json.decode(data, type=list[msgspec.Raw])
    except (msgspec.DecodeError, RecursionError) as error:
        raise click.UsageError(f"{file} is not a JSON array: {error}") from None
    for element in elements:
        yield bytes(element)


def _check_text(bodies: Iterable[bytes], file: str) -> None:
    """Say which record SQS would not take, before anything is sent."""
    for number, body in enumerate(bodies, 1):
        try:
            check_body(body)
        except Unsendable as error:
            raise click.UsageError(
                f"{file}: record {number} is {error}; push it --via kinesis"
            ) from None
