"""`millrace why`: one record, from where it came to where it is."""

from __future__ import annotations

from typing import Any

import click

from infra.cli import run, shown
from infra.cli.query import require_used
from infra.cli.verify import stores_of
from infra.local.embedded import served
from infra.local.state import State
from infra.why import Story
from infra.why import why as ask

EXAMPLES = """\b
A position is stream/shard/sequence, or queue//message-id. A record id is the column _record_id.

\b
Examples:
  millrace why telemetry-000001/2026-11-24T02:03:04.000005Z/17
  millrace why millrace-telemetry/shardId-000000000000/49590338271490256608559692538361571095921
  millrace why millrace-telemetry//6d0f2b1e-5c0c-4b2b-9d53-3f0f2d0c1a77 --json
"""


@click.command(epilog=EXAMPLES)
@click.argument("record", metavar="RECORD_ID|POSITION")
@run.state_option
@run.json_option
def why(record: str, state: State, as_json: bool) -> None:
    """Say where a record came from, what every attempt made of it, and where it is now."""
    require_used(state)
    with served(state) as client:
        stories = ask(stores_of(state, client), record)
    if not stories:
        run.fail(
            f"nothing is known of {record}: it is no position of a raw object, a parked record or "
            "the stream, and no record id in landing; a rejected record has a position only (see "
            "`millrace quarantine show`)",
            run.WRONG_INPUT,
        )
    if as_json:
        shown.print_json([story.to_json() for story in stories])
        return
    for story in stories:
        _show(story)


def _show(story: Story) -> None:
    _print(f"{story.position}  {story.fate}")
    for row in story.received:
        _print(f"  came      {row['arrival']} by {row['source']}, in {row['raw']}", row["index"])
    for row in story.parked:
        _print(f"  parked    {row['place']}")
    for row in story.attempts:
        part = "done with it" if row["done"] else f"handed it back: {row['reason']}"
        _print(f"  attempt   {row['settled_at']} {part}; {_rules(row)}; {row['execution']}")
    for row in story.elements:
        _print(f"  {_verdict(row)}, in {row['object']}; {_rules(row)}")
        if row["lake"] is not None:
            _print(f"  lake      {'a repeat, in' if row['lake_repeat'] else 'in'} {row['lake']}")
    for row in story.superseded:
        _print(f"  {_verdict(row)} too, in {row['object']}, which does not count; {_rules(row)}")
    for row in story.hot:
        there = "there" if row["there"] else "owed by repair" if row["owed"] else "NOT there"
        _print(f"  hot       {row['pk']} {row['sk']}: {there}")
    for row in story.same_id:
        _print(f"  {row['relation']:<9} of {row['record_id']} at {row['position']}")


def _verdict(row: dict[str, Any]) -> str:
    told = "delivered" if row["verdict"] == "delivered" else f"rejected as {row['verdict']}"
    return f"verdict   element {row['sub']}/{row['child']} of {row['elements']} {told}"


def _rules(row: dict[str, Any]) -> str:
    return f"epoch {row['epoch']}, version {row['version']}, generation {row['generation']}"


def _print(text: str, index: int | None = None) -> None:
    told = text if index is None else f"{text} record {index}"
    shown.out.print(shown.one_line(told), markup=False, soft_wrap=True)
