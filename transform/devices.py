"""Generated devices: a seeded fleet whose messages follow a contract, and some that break it.

Everything comes from the contract and the seed: signals that drift inside their range, devices of
very uneven rate, counters, producer repeats, and malformed messages of known kinds, so that what
becomes of each can be checked against what was planted.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any

import orjson

from transform.contract import Contract, Field
from transform.field_types import INT64_MAX, INT64_MIN, Value
from transform.records import Reason
from transform.timestamps import EPOCH

MICROS = 1_000_000
RATE_SKEW = 1.1  # Zipf exponent: the busiest of 1,000 devices sends about a sixth of all
DRIFT_PART = 0.002  # of a signal's range, a message
UNBOUNDED = (0.0, 100.0)  # the range of a signal whose contract names none
REPEATED_WITHIN = 2_000  # messages: how far behind its first a repeat may come
EXCEEDABLE_MAX = 2**61  # twice it still is an int64, and a double
COUNTER_SPAN = 2**53  # values of a counter without a range
FUTURE_SECONDS = 86_400  # beyond what the contract allows: no arrival delay makes up for it


@dataclass(frozen=True)
class Message:
    """One message of a device.

    `planted` is the reason it must be rejected for, if it must; `repeat` says that the same bytes
    were sent before.
    """

    device: str
    body: bytes
    planted: Reason | None = None
    repeat: bool = False


@dataclass(frozen=True)
class Fleet:
    """A fleet to generate. Fractions are of all messages; times in microseconds since 1970 UTC.

    Event times run evenly from `start` to `stop`, so give the past for readings of the past.
    """

    contract: Contract
    seed: int
    start: int
    stop: int
    devices: int = 1_000
    malformed: float = 0.01
    repeats: float = 0.01

    def messages(self, count: int) -> Iterator[Message]:
        """`count` messages, the same for the same fleet and count.

        With at least `len(breakages(contract))` malformed ones due, every kind occurs.
        """
        rng = random.Random(self.seed)
        devices = [_Device(self.contract, number, rng) for number in range(self.devices)]
        weights = [1 / (number + 1) ** RATE_SKEW for number in range(self.devices)]
        chosen = iter(rng.choices(devices, weights, k=count))
        broken = list(breakages(self.contract).items())
        sent: list[Message] = []
        kind = rng.randrange(len(broken))
        for number in range(count):
            device = next(chosen)
            moment = self.start + (self.stop - self.start) * number // count
            draw = rng.random()
            if draw < self.malformed:
                reason, spoil = broken[kind % len(broken)]
                kind += 1
                yield Message(device.name, spoil(device.next(moment), moment), reason)
            elif draw < self.malformed + self.repeats and sent:
                earlier = rng.choice(sent)
                yield Message(earlier.device, earlier.body, repeat=True)
            else:
                message = Message(device.name, orjson.dumps(device.next(moment)))
                if len(sent) < REPEATED_WITHIN:
                    sent.append(message)
                else:
                    sent[number % REPEATED_WITHIN] = message
                yield message


Document = dict[str, Any]
Spoil = Callable[[Document, int], bytes]


def breakages(contract: Contract) -> Mapping[Reason, Spoil]:
    """Ways to break a good message, by the reason it is then rejected for.

    A contract without a ranged or listed field has no way to be out of range or not allowed.
    """
    device = contract.field(contract.device)
    event_time = contract.field(contract.event_time)
    ranged = next((f for f in contract.fields if _can_be_exceeded(f)), None)
    listed = next((f for f in contract.fields if f.allowed is not None), None)

    def oversize(document: Document, _: int) -> bytes:
        return orjson.dumps(document | {"padding": "x" * (contract.max_body_bytes + 1)})

    def future(document: Document, moment: int) -> bytes:
        ahead = (contract.max_future_seconds + FUTURE_SECONDS) * MICROS
        return orjson.dumps(_put(document, event_time, _time_text(event_time, moment + ahead)))

    def nan(document: Document, _: int) -> bytes:
        return orjson.dumps(document | {"_nan_": 0}).replace(b'"_nan_":0', b'"_nan_":NaN')

    ways: dict[Reason, Spoil] = {
        "malformed_json": lambda document, _: orjson.dumps(document)[:-2],
        "not_utf8": lambda document, _: orjson.dumps(document)[:-1] + b',"\xff\xfe":1}',
        "not_an_object": lambda document, _: orjson.dumps(orjson.dumps(document).decode()),
        "wrong_type": lambda document, _: orjson.dumps(_put(document, device, {"not": "text"})),
        "missing_field": lambda document, _: orjson.dumps(_put(document, device, None)),
        "bad_timestamp": lambda document, _: orjson.dumps(_put(document, event_time, "yesterday")),
        "not_finite": nan,
        "future_time": future,
        "too_large": oversize,
    }
    if ranged is not None and ranged.maximum is not None:
        beyond = ranged.maximum + max(1, abs(ranged.maximum))
        ways["out_of_range"] = lambda document, _: orjson.dumps(_put(document, ranged, beyond))
    if listed is not None:
        other: Any = "none of these" if listed.type == "string" else 2**62
        ways["not_allowed"] = lambda document, _: orjson.dumps(_put(document, listed, other))
    return ways


class _Device:
    """One device and the state of its signals."""

    def __init__(self, contract: Contract, number: int, rng: random.Random) -> None:
        self.name = f"{contract.name}-{number:06d}"
        self._contract = contract
        self._rng = rng
        self._messages = 0
        self._levels = {
            f.name: rng.uniform(*_range(f)) for f in contract.fields if f.type == "float64"
        }
        self._fixed = {
            f.name: f"{f.name}-{rng.randrange(1, 9)}"
            for f in contract.fields
            if f.type == "string" and f.allowed is None
        }

    def next(self, moment: int) -> Document:
        """The next message, as a document."""
        document: Document = {}
        for spec in self._contract.fields:
            if spec.in_message and not spec.of_reading:
                _put(document, spec, self._value(spec, moment))
        self._messages += 1
        return document

    def _value(self, spec: Field, moment: int) -> Any:  # noqa: PLR0911  one line a type
        if spec.name == self._contract.device:
            return self.name
        if spec.type == "timestamp":
            return _time_text(spec, moment)
        if spec.allowed is not None:
            return self._rng.choice(spec.allowed)
        if spec.type == "int64":
            first, last = _counter_range(spec)
            return first + self._messages % (last - first + 1)
        if spec.type == "bool":
            return self._rng.choice((True, False))
        if spec.type == "string":
            return self._fixed[spec.name]
        low, high = _range(spec)
        drift = self._rng.gauss(0, DRIFT_PART * (high - low))
        level = min(max(self._levels[spec.name] + drift, low), high)
        self._levels[spec.name] = level
        return min(max(round(level, 3), low), high)


def _can_be_exceeded(spec: Field) -> bool:
    """Whether there is a number beyond the field's range that breaks that rule and no other."""
    return spec.allowed is None and spec.maximum is not None and abs(spec.maximum) < EXCEEDABLE_MAX


def _counter_range(spec: Field) -> tuple[int, int]:
    if spec.maximum is None:
        first = int(spec.minimum or 0)
        return first, min(first + COUNTER_SPAN, INT64_MAX)
    last = int(spec.maximum)
    if spec.minimum is None:
        return max(last - COUNTER_SPAN, INT64_MIN), last
    return int(spec.minimum), last


def _range(spec: Field) -> tuple[float, float]:
    low, high = UNBOUNDED
    if spec.minimum is not None:
        low = float(spec.minimum)
        high = max(high, low + 1)
    if spec.maximum is not None:
        high = float(spec.maximum)
        low = min(low, high) if spec.minimum is None else low
    return low, high


def _time_text(spec: Field, micros: int) -> Value:
    """A moment as the contract's format has it."""
    if spec.format == "iso8601":
        return (EPOCH + timedelta(microseconds=micros)).isoformat().replace("+00:00", "Z")
    return micros // 1_000 if spec.format == "epoch_millis" else micros / MICROS


def _put(document: Document, spec: Field, value: Any) -> Document:
    branch: Any = document
    for key, following in pairwise(spec.path):
        branch = _at(branch, key, [] if isinstance(following, int) else {})
    _at(branch, spec.path[-1], value)
    branch[spec.path[-1]] = value
    return document


def _at(branch: Any, key: str | int, value: Any) -> Any:
    """What is at a key of an object or a place of a list: `value`, where there is nothing yet."""
    if isinstance(branch, dict):
        return branch.setdefault(key, value)
    branch.extend([None] * (int(key) + 1 - len(branch)))
    branch[key] = value if branch[key] is None else branch[key]
    return branch[key]
