"""How accounts, tables and progress look on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import pyarrow as pa
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from infra.account import Account
from infra.fates import Settlement
from infra.lake import plain
from infra.push import Sent

ROWS_SHOWN = 200
WIDTH_MAX = 10_000  # characters: no row is wider
out = Console(highlight=False, emoji=False)
err = Console(stderr=True, highlight=False, emoji=False)


def print_json(value: Any) -> None:
    """One JSON value on one line of stdout."""
    sys.stdout.write(json_line(value))
    sys.stdout.flush()


def json_line(value: Any) -> str:
    """One JSON value on one line."""
    # The standard library's encoder, because sums of integers may have more than 64 bits.
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"


def print_table(rows: pa.Table, limit: int = ROWS_SHOWN) -> None:
    """Rows as a table, or one below the other where they are too wide for the terminal.

    Beyond `limit` rows it says how many more there are.
    """
    if not rows.num_columns:
        out.print("Done.")
        return
    shown = plain(rows.slice(0, limit))
    table = Table(header_style="bold", box=box.SIMPLE_HEAD)
    for column in rows.schema:
        numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        justify: Literal["left", "right"] = "right" if numeric else "left"
        table.add_column(Text(column.name), justify=justify, no_wrap=True)
    for row in shown:  # as Text: what looks like markup in it is data
        table.add_row(*(Text(one_line(value)) for value in row.values()))
    needed = out.measure(table, options=out.options.update(max_width=WIDTH_MAX)).maximum
    if needed <= out.width:
        out.print(table)
    elif out.is_terminal:
        _print_records(shown)
    else:
        Console(width=needed).print(table)
    if rows.num_rows > limit:
        out.print(f"… and {rows.num_rows - limit:,} more rows; add LIMIT, or use --json for all")


def _print_records(rows: list[dict[str, Any]]) -> None:
    margin = max(map(len, rows[0])) if rows else 0
    for number, row in enumerate(rows, 1):
        out.print(f"[dim]row {number}[/dim]")
        for name, value in row.items():
            out.print(Text(f"  {name:<{margin}}  {one_line(value)}"), soft_wrap=True)


def one_line(value: Any) -> str:
    """A value on one line; what would command the terminal is written out."""
    text = "" if value is None else str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_account(account: Account) -> None:
    """Where every record is, as a table."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_column(justify="left", style="dim")
    for name, count, note in _lines(account):
        table.add_row(name, f"{count:,}", note)
    out.print(table)
    if account.conserved:
        out.print("[green]Every record is accounted for.[/green]")
    else:
        out.print(f"[red bold]{account.unaccounted:,} records are unaccounted for.[/red bold]")


def _lines(account: Account) -> Iterator[tuple[str, int, str]]:
    yield "sent", account.sent, "messages given a position by the source"
    yield "  delivered", account.delivered, "with rows in landing"
    yield "  dropped", account.dropped, "by a rule of the contract"
    yield "  quarantined", sum(account.quarantined.values()), "set aside, bytes and reason kept"
    for reason, count in account.quarantined.items():
        yield f"    {reason}", count, ""
    yield "  parked", account.parked, "in the dead-letter queue or under on-failure/"
    yield "  unaccounted", account.unaccounted, ""
    yield "repeats", account.repeats, "rows beyond the first of each identity"
    yield "conflicts", account.conflicts, "equal record ids with other bytes"
    yield "hot items", account.hot_items, f"read from the table; {account.hot_expected:,} expected"
    yield "distinct rows", account.parquet_rows_distinct, f"in {account.files} Parquet objects"


def print_faults(faults: Mapping[str, Mapping[str, int]]) -> None:
    """What was done to the pipeline, by kind and place; nothing where nothing was."""
    if not faults:
        return
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, title="Faults", title_justify="left")
    table.add_column("kind")
    table.add_column("at")
    table.add_column("times", justify="right")
    for kind, places in faults.items():
        for number, (place, count) in enumerate(places.items()):
            table.add_row("" if number else kind.replace("_", " "), place, f"{count:,}")
    out.print(table)


@contextmanager
def progress(quiet: bool) -> Iterator[Watch]:
    """Bars for what is sent and what has a fate, on stderr; none where nobody looks."""
    with Progress(
        TextColumn("{task.description:>10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
        console=err,
        disable=quiet or not err.is_terminal,
        transient=True,
    ) as bars:
        yield Watch(bars)


class Watch:
    """The bars of one run."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._sent = bars.add_task("sent", total=None, note="")
        self._settled = bars.add_task("settled", total=None, note="")

    def sending(self, total: int | None, sent: Sent) -> None:
        self._bars.update(self._sent, total=total, completed=sent.total())

    def settling(self, settlement: Settlement) -> None:
        done = len(settlement.settled)
        self._bars.update(
            self._settled,
            total=done + len(settlement.waiting),
            completed=done,
            note=f"positions, in {len(settlement.attempts)} attempts",
        )
