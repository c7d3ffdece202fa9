"""What a message is, and what must become of it: the oracle's own idea of the contracts.

A message is drawn as the object it is; its bytes are only sent. So nothing here reads what
Transform reads, and every rule is said once more, row by row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Literal

from infra.simulation import contracts
from infra.simulation.contracts import NO_VERBS, Verb

EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)
MICROS = 1_000_000

Said = Mapping[str, Any]
Fate = Literal["delivered", "dropped", "quarantined"]
Place = tuple[int, int]
"""The member of an aggregate, and the row of that."""


@dataclass(frozen=True)
class Message:
    """What a producer sent as one message: its bytes, and what they say; None if no object.

    A marker is no producer's, and a record of its own.
    """

    body: bytes
    says: Said | None = None
    marker: bool = False

    @classmethod
    def of(cls, says: Said) -> Message:
        return cls(compact(says), says)


@dataclass(frozen=True)
class Judge:
    """The rules of a generation: the version that reads what names none, and all there are."""

    verbs: frozenset[Verb] = NO_VERBS
    current: int = 1
    versions: frozenset[int] = frozenset({1})
    code: int = 0

    def elements(
        self, members: Iterable[Iterable[Message]], arrival_micros: int
    ) -> dict[Place, Element]:
        """What a source record comes to, by place."""
        held = [list(messages) for messages in members]
        if [[one.marker for one in messages] for messages in held] == [[True]]:
            return {(0, 0): Element("dropped", held[0][0].body, {}, 0, rule=contracts.MARKER)}
        return {
            (sub, child): element
            for sub, messages in enumerate(held)
            for child, element in enumerate(
                element for one in messages for element in self._message(one, arrival_micros)
            )
        }

    def _message(self, message: Message, arrival_micros: int) -> Iterator[Element]:
        body, says = message.body, message.says or {}
        version = self._version(says)
        whole = Element("quarantined", body, says, version)
        if version not in self.versions:
            yield whole
        elif self._is_other(message):
            yield replace(whole, fate="dropped", rule=contracts.CHOOSE)
        elif message.says is None or len(body) > contracts.BODY_BYTES_MAX:
            yield whole
        elif "explode" not in self.verbs:
            yield self._judged(replace(whole, identity=body), arrival_micros)
        else:
            yield from self._exploded(whole, arrival_micros)

    def _version(self, says: Said) -> int:
        """The version a message names, as a number or as text: 2, v2, simulated@2."""
        named = says.get("schema") if "versions" in self.verbs else None
        return self.current if named is None else int(str(named).removeprefix("simulated@")[-1:])

    def _is_other(self, message: Message) -> bool:
        """Whether a message is none of the types that the contract chooses."""
        if "choose" not in self.verbs or message.says is None:
            return False
        return message.says.get("kind") not in {contracts.READING, contracts.BEAT}

    def _exploded(self, whole: Element, arrival_micros: int) -> Iterator[Element]:
        message = {name: value for name, value in whole.says.items() if name != "readings"}
        readings = whole.says.get("readings")
        if readings is None or "device_id" not in message:
            yield whole
            return
        if not readings:
            yield replace(whole, fate="dropped", rule=contracts.EXPLODE)
        for reading in readings:
            came = compact(reading)
            row = replace(whole, body=came, identity=came + compact(message))
            if isinstance(reading, dict):
                yield self._judged(replace(row, says={**message, **reading}), arrival_micros)
            else:
                yield row

    def _judged(self, row: Element, arrival_micros: int) -> Element:
        """One row by the rules about values, in their order."""
        says = row.says
        own = ("device_id", "ts", "seq", *(("part",) if "explode" in self.verbs else ()))
        if any(name not in says for name in own):
            return row
        temperature = None if self._is_beat(says) else says.get("temperature")
        most = contracts.TEMPERATURE_MAX[row.version]
        if not self._is_beat(says) and (temperature is None or temperature > most):
            return row
        if row.event_micros - arrival_micros > contracts.FUTURE_SECONDS_MAX * MICROS:
            return row
        if "filter" in self.verbs and temperature is not None and temperature < 0:
            return replace(row, fate="dropped", rule=contracts.FILTER)
        if "sample" in self.verbs and not _in_sample(row.record_id):
            return replace(row, fate="dropped", rule=contracts.SAMPLED)
        return replace(row, fate="delivered", known=self._known(row))

    def _is_beat(self, says: Said) -> bool:
        return "choose" in self.verbs and says.get("kind") == contracts.BEAT

    def _known(self, row: Element) -> frozenset[str]:
        """What of the message is in columns, or says how it is read, or is kept nowhere."""
        known = {"device_id", "ts", "seq", "temperature"}
        if self._is_beat(row.says):
            known.discard("temperature")
        elif row.version == contracts.NEWEST:
            known.add("note")
        more: Mapping[str, Iterable[str]] = {
            "explode": ("readings", "part"),
            "choose": ("kind",),
            "versions": ("schema",),
            "hash": ("owner",),
        }
        return frozenset(
            known.union(*(names for verb, names in more.items() if verb in self.verbs))
        )


@dataclass(frozen=True)
class Element:
    """One row that a message comes to, or the message itself where it comes to none.

    `says` is the message with the reading in it, `body` the bytes that are set aside if it is
    rejected, `identity` what makes it what it is.
    """

    fate: Fate
    body: bytes
    says: Said
    version: int
    identity: bytes = b""
    rule: str = ""
    known: frozenset[str] = field(default=frozenset())

    @property
    def has_owner(self) -> bool:
        """Whether the owner is in a column, and not only hidden."""
        return "owner" in self.says and self.says.get("kind") != contracts.BEAT

    @property
    def event_micros(self) -> int:
        return int(self.says["ts"]) * 1_000

    @cached_property
    def time(self) -> str:
        moment = EPOCH_START + timedelta(microseconds=self.event_micros)
        return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")

    @property
    def record_id(self) -> str:
        says = self.says
        part = [says["part"]] if "part" in says else []
        return "/".join(map(str, (says["device_id"], self.time, says["seq"], *part)))

    def item(self, digest: bytes, owner: str | None) -> dict[str, dict[str, Any]]:
        """Its item in the hot table, where `owner` is who may be named there."""
        says, seconds = self.says, contracts.HOT_DAYS * 86_400
        known: dict[str, dict[str, Any]] = {
            "pk": {"S": f"{says['device_id']}#{self.time[:10]}"},
            "sk": {"S": f"{self.time}#{digest.hex()}"},
            "expires_at": {"N": str(self.event_micros // MICROS + seconds)},
            "device_id": {"S": says["device_id"]},
            "event_time": {"S": self.time},
            "sequence": {"N": str(says["seq"])},
        }
        if "part" in says:
            known["part"] = {"N": str(says["part"])}
        if "temperature" in self.known and "temperature" in says:
            known["temperature"] = {"N": repr(float(says["temperature"]))}
        if owner is not None:
            known["owner"] = {"S": owner}
        if "note" in self.known and "note" in says:
            known["note"] = {"S": says["note"]}
        rescued = {name: value for name, value in says.items() if name not in self.known}
        if rescued:
            known["_rescued"] = {"S": compact(rescued).decode()}
        return known


def _in_sample(record_id: str) -> bool:
    number = int.from_bytes(hashlib.blake2b(record_id.encode(), digest_size=8).digest())
    return number < contracts.SAMPLE * 2**64


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
