"""What the hot layouts cost, as the README says: computed from items and prices."""

from __future__ import annotations

from math import ceil
from pathlib import Path

from infra.topology import pipeline
from tests.support import NOON, delivery, items_of
from transform.contract_file import load_contract
from transform.devices import Fleet
from transform.pipeline import Transform

README = Path(__file__).parent.parent / "README.md"
RECORDS = 1_000_000
WRITE_USD = 0.625 / 1_000_000  # on demand, us-east-1: a write unit, of 1 KB of an item begun
STORED_USD = 0.25  # a GB and month
UNIT_BYTES = 1_024
RATES_SECONDS = (1, 10, 60)  # between two readings of a device
WINDOWS_SECONDS = (1, 10, 60)  # of records that a Delivery gathers
TELEMETRY = load_contract("telemetry")


def item_bytes() -> float:
    """An item of the shipped contract by DynamoDB's rules: names, text, half a byte a digit."""
    fleet = Fleet(TELEMETRY, 7, NOON - 3_600_000_000, NOON, 50, malformed=0, repeats=0)
    sent = delivery([message.body for message in fleet.messages(500)])
    items = items_of(Transform(TELEMETRY).apply(sent.table(), "raw/x").rows, TELEMETRY).values()
    return sum(map(size, items)) / len(items)


def size(item: dict[str, dict[str, str]]) -> int:
    total = 0
    for name, value in item.items():
        ((kind, text),) = value.items()
        digits = sum(letter.isdigit() for letter in text)
        total += len(name) + (ceil(digits / 2) + 1 if kind == "N" else len(text.encode()))
    return total


def writes(rate_seconds: int, window_seconds: int | None) -> int:
    """Puts of a million records, taken or not: one a reading, or one a device and Delivery.

    A put whose condition fails costs as much.
    """
    per_put = 1 if window_seconds is None else max(window_seconds / rate_seconds, 1)
    return round(RECORDS / per_put)


def row(name: str, window_seconds: int | None, units: int) -> str:
    cells = []
    for rate in RATES_SECONDS:
        puts = writes(rate, window_seconds)
        cells.append(f"{puts:,} puts, ${puts * units * WRITE_USD:.3f}")
    return "| " + " | ".join([name, *cells]) + " |"


def test_the_table_of_costs_is_what_the_prices_come_to():
    average = item_bytes()
    units = ceil(average / UNIT_BYTES)
    table = [
        row("`reading`", None, units),
        *(row(f"`latest`, Deliveries of {w} s", w, units) for w in WINDOWS_SECONDS),
    ]
    text = README.read_text().replace("\n", " ")
    assert [line for line in table if line not in text] == []
    stored = RECORDS * average / 2**30 * STORED_USD
    assert f"items of {average:.0f} bytes" in text
    assert f"${stored:.2f} a month" in text


def test_a_delivery_gathers_as_long_as_is_said():
    assert pipeline("telemetry", "telemetry").stream_mapping.window_seconds == WINDOWS_SECONDS[0]
