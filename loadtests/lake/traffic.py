"""A fleet's records as the shards of a stream deliver them: repeated, late, of two versions.

Each shard has devices of its own, as a partition key has one shard. Half way all devices are given
new firmware: they begin to count anew and send one field more. A few records wait in a device
without network for up to hours, and arrive among younger ones, old firmware's among the new one's.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from transform.contract import Contract
from transform.contract_file import contract_path, parse_contract, read_file
from transform.devices import MICROS, Fleet, Message
from transform.records import Delivery

NAME = "telemetry"
STREAM = "readings"
START_HOUR = 498_756  # since 1970: 2026-11-24T12:00:00Z
START = START_HOUR * 3_600 * MICROS
DELAY_MICROS = 2 * MICROS  # until an ordinary record arrives, at most
LATE_SHARE = 0.01
LATE_SECONDS, LATE_SECONDS_MAX = 3_600, 4 * 3_600  # mean and most
REPEATED, MALFORMED = 0.02, 0.001
AGAIN = 100  # of so many Deliveries one is delivered again, its later half
FIRST_SEQUENCE = 49_590_338_271_490_256_608_559_692_538_361_571_095_921_575_989_136_588_898
SHARD_SEQUENCES = 10**40
SEQUENCE_STEP_MAX = 10**6

MORE = """
[[field]]
name = "pressure"
path = "readings.pressure"
type = "float64"
min = 300
max = 1100
unit = "hPa"
description = "Air pressure"

"""


@dataclass(frozen=True)
class Extent:
    """How much is generated, and of what seed."""

    records: int = 5_000_000
    per_delivery: int = 2_500
    hours: int = 6
    shards: int = 8
    devices: int = 2_000  # a shard
    seed: int = 1

    @property
    def stop(self) -> int:
        return START + self.hours * 3_600 * MICROS

    @property
    def upgrade(self) -> int:
        """When the second version of the contract begins."""
        return (START + self.stop) // 2


def versions() -> tuple[Contract, Contract]:
    """The shipped contract, and its second version with a field more."""
    data = read_file(contract_path(NAME))
    before, mark, after = data.decode().partition("[[example]]")
    second = before.replace("version = 1", "version = 2", 1) + MORE.lstrip() + mark + after
    return parse_contract(data, f"{NAME}.toml"), parse_contract(second.encode(), f"{NAME}-2.toml")


@dataclass(frozen=True)
class Delivered:
    """A Delivery; `newest` says which contract was in force, `again` whether it was here before.

    A contract is there before the first message that needs it.
    """

    delivery: Delivery
    messages: Sequence[Message]
    newest: int
    again: bool = False


@dataclass(frozen=True)
class Shard:
    """One shard of the stream: the same extent and number give the same."""

    extent: Extent
    number: int
    contracts: Sequence[Contract] = field(default_factory=versions)

    @cached_property
    def name(self) -> str:
        return f"shardId-{self.number:012d}"

    def device(self, number: int) -> str:
        """A device's name; the lower the number, the more it sends."""
        return f"{self._fleet_name}-{number:06d}"

    def messages(self) -> Iterator[tuple[int, Message]]:
        """What devices send and when, by that time."""
        extent = self.extent
        count = extent.records // extent.shards // len(self.contracts)
        edges = START, extent.upgrade, extent.stop
        for half, contract in enumerate(self.contracts):
            start, stop = edges[half : half + 2]
            fleet = Fleet(
                replace(contract, name=self._fleet_name),
                extent.seed * 1_000 + self.number * 2 + half,
                start,
                stop,
                extent.devices,
                MALFORMED,
                REPEATED,
            )
            for number, message in enumerate(fleet.messages(count)):
                yield start + (stop - start) * number // count, message

    def arriving(self) -> Iterator[tuple[int, Message]]:
        """The same as they arrive."""
        rng = self._rng("arrivals")
        waiting: list[tuple[int, int, Message]] = []
        for number, (moment, message) in enumerate(self.messages()):
            while waiting and waiting[0][0] <= moment:
                arrival, _, earlier = heapq.heappop(waiting)
                yield arrival, earlier
            wait = rng.randrange(DELAY_MICROS)
            if rng.random() < LATE_SHARE:
                seconds = min(rng.expovariate(1 / LATE_SECONDS), LATE_SECONDS_MAX)
                wait += int(seconds * MICROS)
            heapq.heappush(waiting, (moment + wait, number, message))
        for arrival, _, message in sorted(waiting):
            yield arrival, message

    def deliveries(self) -> Iterator[Delivered]:
        """What ingest receives. One of a hundred Deliveries is cut and its half comes again."""
        rng = self._rng("deliveries")
        sequence = FIRST_SEQUENCE + self.number * SHARD_SEQUENCES
        held: list[tuple[int, str, Message]] = []
        for arrival, message in self.arriving():
            sequence += rng.randrange(1, SEQUENCE_STEP_MAX)
            held.append((arrival, str(sequence), message))
            if len(held) == self.extent.per_delivery:
                yield from self._with_repeat(held, again=rng.randrange(AGAIN) == 0)
                held = []
        if held:
            yield from self._with_repeat(held, again=False)

    def _with_repeat(
        self, held: Sequence[tuple[int, str, Message]], *, again: bool
    ) -> Iterator[Delivered]:
        yield self._delivered(held)
        if again:
            yield replace(self._delivered(held[len(held) // 2 :]), again=True)

    def _delivered(self, held: Sequence[tuple[int, str, Message]]) -> Delivered:
        arrivals = [arrival for arrival, _, _ in held]
        delivery = Delivery(
            source="kinesis",
            stream=STREAM,
            shards=[self.name] * len(held),
            sequences=[sequence for _, sequence, _ in held],
            groups=[message.device for _, _, message in held],
            arrivals=arrivals,
            attributes=[None] * len(held),
            bodies=[message.body for _, _, message in held],
        )
        messages = [message for _, _, message in held]
        return Delivered(delivery, messages, newest=int(arrivals[-1] >= self.extent.upgrade))

    @property
    def _fleet_name(self) -> str:
        return f"{NAME}-{self.number}"

    def _rng(self, of: str) -> random.Random:
        return random.Random(f"{of} {self.extent.seed} {self.number}")
