"""`millrace demo`: a generated fleet through every way in, and what became of each message."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import click
from rich.markup import escape

from infra import account, fates, push
from infra.cli import ingest as ingesting
from infra.cli import run, shown
from infra.cli import verify as verifying
from infra.lake import Lake
from infra.local import preflight
from infra.local.ceiling import Ceiling, measure
from infra.local.chaos import Chaos
from infra.local.embedded import Embedded, embedded
from infra.local.state import EMULATOR, FAST, State
from infra.verify import verify
from sinks import hot, ledger
from transform.devices import Fleet, Message
from transform.pipeline import Transform
from transform.records import Delivery

CONTRACT = "telemetry"
SEED = 20_261_124
SPAN_MICROS = 30 * 60 * 1_000_000  # the fleet's readings are of the last half hour
CHUNK = 20_000  # messages pushed at once
AHEAD_MAX = 200_000  # messages made before the clock starts: devices make their own, in their time
SQS_EVERY = 20  # of twenty messages one goes by SQS, the rest by Kinesis, half of it aggregated
WAYS = {
    "plain": "by Kinesis",
    "kpl": "by Kinesis in KPL aggregates",
    "sqs": "by SQS",
}
CEILING_RECORDS = 10_000
TIMEOUT_SECONDS = 900.0
PROBLEMS_MAX = 5  # findings of the proof that are named when it fails
CALM_SECONDS = 120.0  # for debts of the hot store, and for what is under way
QUESTION = """
SELECT firmware, count(DISTINCT device_id) AS devices, count(*) AS readings,
       round(avg(temperature), 2) AS mean_temperature, max(event_time) AS newest
FROM records GROUP BY ALL ORDER BY readings DESC LIMIT 5
"""

EXAMPLES = """\b
Examples:
  millrace demo
  millrace demo --table fast
  millrace demo --records 20000 --state /tmp/demo --json
"""


@dataclass
class Pushed:
    """What the fleet sent, and what was planted in it."""

    sent: push.Sent = field(default_factory=push.Sent)
    planted: Counter[str] = field(default_factory=Counter)
    repeats: int = 0
    by: Counter[str] = field(default_factory=Counter)
    busiest: Counter[str] = field(default_factory=Counter)


@click.command(epilog=EXAMPLES)
@click.option(
    "--records",
    type=click.IntRange(1_000, 10_000_000),
    default=100_000,
    show_default=True,
    metavar="N",
    help="How many messages the fleet sends.",
)
@click.option(
    "--chaos",
    "in_chaos",
    is_flag=True,
    help="Throttle, fail, lose answers and kill workers meanwhile.",
)
@run.table_option
@run.state_option
@run.json_option
def demo(records: int, in_chaos: bool, table: str | None, state: State, as_json: bool) -> None:
    """Run generated devices through Kinesis (plain and KPL) and SQS, and account for every record.

    Malformed messages and repeats are planted and must be found. It starts on an empty state: what
    an earlier run left in the directory is removed first.
    """
    chaos = Chaos(SEED) if in_chaos else None
    preflight.check(state)
    with state.owned():
        if state.used() and not as_json:
            click.echo(f"Clearing what an earlier run left in {state.root}", err=True)
        state.clear()
        with (
            embedded(state, CONTRACT, chaos=chaos, table=table) as system,
            shown.progress(as_json) as watch,
        ):
            fleet = _fleet(system, records)
            ceiling = _ceiling(system, fleet)
            follower = ingesting.settlement(system)
            chunks = _chunks(fleet.messages(records))
            ready = list(islice(chunks, AHEAD_MAX // CHUNK))
            started = time.monotonic()
            pushed = _push(system, chain(ready, chunks), records, follower, watch)
            parked = ingesting.parked_of(system)
            left = fates.await_fates(follower, parked, TIMEOUT_SECONDS, watch.settling)
            seconds = time.monotonic() - started
            proof, proof_seconds = None, 0.0
            if chaos is not None:
                _calm_down(system, chaos)
                calm = time.monotonic()
                proof = verify(verifying.stores_of(state, system.client))
                proof_seconds = time.monotonic() - calm
            told = ingesting.take(system, follower, pushed.sent, parked(), seconds)
            lake = Lake(system.bucket, system.ledger_table, [system.contract])
            answer = lake.query(QUESTION)
            trouble = ingesting.trouble_of(system)
    wrong = problems(told, pushed, left)
    faults = {} if chaos is None else chaos.counts()
    if chaos is not None:
        wrong += [f"no {fault} happened" for fault in chaos.missing()]
    if proof is not None:
        wrong += [f"{f.name}: {f.kind}, {f.detail}" for f in proof.findings[:PROBLEMS_MAX]]
    if as_json:
        report = _report(told, pushed, ceiling, wrong)
        if proof is not None:
            report |= {"chaos": faults, "verify": proof.to_json()}
        shown.print_json(report)
    else:
        _show(told, pushed, ceiling, answer, state)
        shown.print_faults(faults)
        if proof is not None:
            verifying.show(proof, proof_seconds)
    ingesting.require_fates(left, trouble)
    if wrong:
        run.fail("; ".join(wrong), run.UNACCOUNTED)


def _calm_down(system: Embedded, chaos: Chaos) -> None:
    """Let debts be paid and invocations end, so that nothing moves while records are counted."""
    chaos.calm()
    until = time.monotonic() + CALM_SECONDS
    while ledger.debts(system.ledger_table)[0] and time.monotonic() < until:
        time.sleep(fates.POLL_SECONDS)
    system.mappings.stop(CALM_SECONDS)


def problems(told: account.Account, pushed: Pushed, left: set[fates.Place]) -> list[str]:
    """What does not add up; empty when the demo has proven what it set out to."""
    checks = {
        f"{len(left)} positions have no fate": not left,
        f"{told.unaccounted} records are unaccounted for": told.conserved,
        f"{told.parked} records are parked": told.parked == 0,
        f"planted {dict(pushed.planted)} but quarantined {told.quarantined}": (
            dict(pushed.planted) == told.quarantined
        ),
        f"{pushed.repeats} repeats were sent and {told.repeats} found": (
            pushed.repeats == told.repeats
        ),
        f"{told.hot_items} hot items for {told.parquet_rows_distinct} distinct rows": (
            told.hot_items == told.parquet_rows_distinct == told.delivered - told.repeats
        ),
    }
    return [wrong for wrong, holds in checks.items() if not holds]


def _fleet(system: Embedded, records: int) -> Fleet:
    now = int(time.time() * 1_000_000)
    return Fleet(
        system.contract, SEED, now - SPAN_MICROS, now, devices=min(1_000, max(records // 50, 20))
    )


def _push(
    system: Embedded,
    chunks: Iterable[list[Message]],
    records: int,
    follower: fates.Settlement,
    watch: shown.Watch,
) -> Pushed:
    """Send the fleet's messages by all ways at once, chunk by chunk."""
    pushed = Pushed()
    pool = ThreadPoolExecutor(len(WAYS))
    try:
        for chunk in chunks:
            ways: dict[str, list[push.Keyed]] = {"plain": [], "kpl": [], "sqs": []}
            for number, message in enumerate(chunk):
                ways[_way(number, message)].append((message.device, message.body))
                pushed.repeats += message.repeat
                if message.planted:
                    pushed.planted[message.planted] += 1
                else:
                    pushed.busiest[message.device] += 1
            parts = {way: push.Sent() for way in ways}
            jobs = [
                pool.submit(
                    ingesting.send,
                    system,
                    "sqs" if way == "sqs" else "kinesis",
                    keyed,
                    parts[way],
                    aggregated=way == "kpl",
                )
                for way, keyed in ways.items()
            ]
            for job in jobs:
                job.result()
            for way, part in parts.items():
                pushed.by[way] += part.total()
                pushed.sent.extend(part)
                follower.sent(part)
            watch.sending(records, pushed.sent)
            follower.follow()
            watch.settling(follower)
    finally:  # who is interrupted does not wait until the chunk is sent
        pool.shutdown(wait=False, cancel_futures=True)
    return pushed


def _way(number: int, message: Message) -> str:
    """Which way a message goes; what is not text cannot go by SQS."""
    if number % SQS_EVERY == 0 and message.planted != "not_utf8":
        return "sqs"
    return "kpl" if number % 2 else "plain"


def _chunks(messages: Iterator[Message]) -> Iterator[list[Message]]:
    chunk: list[Message] = []
    for message in messages:
        chunk.append(message)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _ceiling(system: Embedded, fleet: Fleet) -> Ceiling:
    """The emulator's own limits, with the demo's item and record, before anything else runs."""
    good = [m.body for m in fleet.messages(CEILING_RECORDS) if not m.planted]
    now = int(time.time() * 1_000_000)
    count = len(good)
    delivery = Delivery(
        "kinesis",
        "ceiling",
        ["shard"] * count,
        [str(n) for n in range(count)],
        ["k"] * count,
        [now] * count,
        [None] * count,
        good,
    )
    batch = Transform(system.contract).apply(delivery.table(), "ceiling")
    puts = list(hot.Wanted.of(batch.rows, system.contract).puts())
    return measure(system.client, puts, good, system.endpoints.table_url)


def _report(
    told: account.Account, pushed: Pushed, ceiling: Ceiling, wrong: Sequence[str]
) -> dict[str, Any]:
    rate = told.sent / told.seconds
    return {
        **told.to_json(),
        "planted": dict(sorted(pushed.planted.items())),
        "planted_repeats": pushed.repeats,
        "sent_by": dict(pushed.by),
        "ceiling": {
            "dynamodb_items_per_second": round(ceiling.items, 1),
            "kinesis_records_per_second": round(ceiling.records, 1),
            "records_per_second": round(ceiling.combined, 1),
            "table": FAST if ceiling.apart else EMULATOR,
            "reached": round(rate / ceiling.combined, 3),
        },
        "problems": list(wrong),
    }


def _show(
    told: account.Account, pushed: Pushed, ceiling: Ceiling, answer: Any, state: State
) -> None:
    out = shown.out
    ways = ", ".join(f"{count:,} {WAYS[way]}" for way, count in pushed.by.items())
    out.print(f"\n[bold]A fleet sent {told.sent:,} messages[/bold] ({ways})\n")
    shown.print_account(told)
    rate = told.sent / told.seconds
    allows, both = "the emulator's table and stream", "by one process"
    if ceiling.apart:
        allows, both = "the fast table and the emulator's stream", "the slower of them"
    out.print(
        f"\n[bold]{rate:,.0f} records a second[/bold] end to end over {told.seconds:.1f} s: "
        f"{rate / ceiling.combined:.0%} of what {allows} allow\n"
        f"[dim](alone, in this run: {ceiling.items:,.0f} DynamoDB items/s and "
        f"{ceiling.records:,.0f} Kinesis records/s, {both} {ceiling.combined:,.0f} records/s; "
        "of this machine, not of AWS)[/dim]"
    )
    out.print(f"\n[bold]One question[/bold][dim]{QUESTION}[/dim]")
    shown.print_table(answer)
    device = pushed.busiest.most_common(1)[0][0]
    out.print(
        "[bold]Where things are[/bold]\n"
        f"  objects  {escape(str(state / 's3'))}\n"
        f"  logs     {escape(str(state / 'logs'))}",
        soft_wrap=True,
    )
    where = escape(run.state_hint(state))
    out.print(
        "\n[bold]Try next[/bold]\n"
        '  millrace query "SELECT _reason, _detail, _body FROM quarantine LIMIT 5"'
        f"{where}\n"
        f"  millrace hot {device} --last 1h{where}\n"
        f"  millrace up{where}",
        soft_wrap=True,
    )
