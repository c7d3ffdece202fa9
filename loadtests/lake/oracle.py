"""What a lake must say, added up from messages as they are sent, before anything reads them.

Sums are of integers: of a float with three decimals, its thousandths. So every engine's sum is
exact whatever the order it adds in, and any row too few or too many is seen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

SECONDS_AN_HOUR = 3_600
THOUSANDTHS = 1_000


@dataclass
class Tally:
    """Rows, and sums over them. `pressure` is what only the second contract version has."""

    rows: int = 0
    sequence: int = 0
    temperature: int = 0
    pressures: int = 0
    pressure: int = 0

    def add(self, other: Tally) -> None:
        self.rows += other.rows
        self.sequence += other.sequence
        self.temperature += other.temperature
        self.pressures += other.pressures
        self.pressure += other.pressure


Tallies = Mapping[str, Tally]
"""By the device's status."""


def _tallies() -> dict[str, Tally]:
    return defaultdict(Tally)


@dataclass
class Oracle:
    """Every distinct message sent and not planted to be rejected; and every one sent, `repeated`.

    `hours` are of event time, since 1970 UTC.
    """

    hours: dict[int, dict[str, Tally]] = field(default_factory=dict)
    repeated: dict[int, dict[str, Tally]] = field(default_factory=dict)
    devices: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    repeated_devices: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    body_bytes: int = 0

    def sent(self, device: str, body: bytes, *, repeat: bool) -> None:
        """Count a good message."""
        document = orjson.loads(body)
        hour, status = document["ts"] // (SECONDS_AN_HOUR * 1_000), document["status"]
        one = _one(document)
        self.body_bytes += len(body)
        self.repeated.setdefault(hour, _tallies())[status].add(one)
        self.repeated_devices[device].add(one)
        if not repeat:
            self.hours.setdefault(hour, _tallies())[status].add(one)
            self.devices[device].add(one)

    def merge(self, other: Oracle) -> None:
        """Count what another has counted."""
        for mine, theirs in (self.hours, other.hours), (self.repeated, other.repeated):
            for hour, tallies in theirs.items():
                for status, tally in tallies.items():
                    mine.setdefault(hour, _tallies())[status].add(tally)
        for own, others in (
            (self.devices, other.devices),
            (self.repeated_devices, other.repeated_devices),
        ):
            for device, tally in others.items():
                own[device].add(tally)
        self.body_bytes += other.body_bytes

    def totals(self, hour: int | None = None, *, repeated: bool = False) -> Tallies:
        """By status, of one event hour or of all."""
        of = self.repeated if repeated else self.hours
        return _summed(of.values() if hour is None else [of[hour]])

    def history(self, device: str, *, repeated: bool = False) -> Tally:
        return (self.repeated_devices if repeated else self.devices)[device]


def total(tallies: Tallies) -> Tally:
    """Over all statuses."""
    return _summed([{"": tally} for tally in tallies.values()])[""]


def _summed(parts: Iterable[Tallies]) -> Tallies:
    found = _tallies()
    for part in parts:
        for status, tally in part.items():
            found[status].add(tally)
    return found


def _one(document: Mapping[str, Any]) -> Tally:
    readings = document["readings"]
    temperature = round(readings["temperature"] * THOUSANDTHS)
    if "pressure" not in readings:
        return Tally(1, document["seq"], temperature)
    pressure = round(readings["pressure"] * THOUSANDTHS)
    return Tally(1, document["seq"], temperature, 1, pressure)
