"""What producers send, drawn: messages of every kind, in whatever is put around them."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from infra.esm.simulate import EPOCH
from infra.simulation import contracts
from infra.simulation.contracts import Verb
from infra.simulation.messages import Message
from transform.kpl import aggregate
from transform.records import Source

KINDS = {
    "good": 10,
    "repeat": 4,  # of a message sent before, in another body
    "conflict": 2,  # an id sent before, with other bytes
    "wide": 3,  # good by some contract versions only
    "broken": 2,  # not JSON
    "oversize": 1,
    "future": 1,  # good or not by its arrival
    "old": 1,  # too old for the hot table
    "rescued": 1,  # with a field that no contract knows
    "number": 1,  # JSON, but no object
}
"""Messages by kind, and how often."""

MOSTLY_BAD = {"good": 3, "repeat": 1, "wide": 12, "broken": 4}
"""... of which the first contract version rejects most."""

KILLERS = {**KINDS, "kills": 2, "hangs": 1}
"""... with some that Transform dies of."""

VERBS: Mapping[Verb, Mapping[str, int]] = {
    "filter": {"cold": 4},
    "explode": {"mixed": 6, "empty": 2, "listless": 1},
    "choose": {"beat": 3, "other": 3},
    "versions": {"named": 8, "misnamed": 1},
    "sample": {},
    "hash": {},
}
"""... and those that a verb is about."""

SPAN_SECONDS = 120.0  # in which records are produced
MILLIS = 1_000
NOW = round(EPOCH * MILLIS)
TEMPERATURES = (20.5, 20.5, 150, -5, 1_000)
READINGS_MAX = 3


@dataclass(frozen=True)
class Made:
    """One record as a producer sent it; `members` are the messages in each member of it."""

    at: float
    source: Literal["kinesis", "sqs"]
    key: str
    body: bytes
    members: tuple[tuple[Message, ...], ...]
    aggregated: bool = False


def records(random: Random, profile: str, verbs: frozenset[Verb]) -> tuple[Made, ...]:
    """What producers send, with repeats of single messages in other bodies."""
    kinds = {"poison": KILLERS, "breaker": MOSTLY_BAD}.get(profile, KINDS)
    for verb in contracts.VERBS:
        kinds = {**kinds, **VERBS[verb]} if verb in verbs else kinds
    draw = _Messages(random, kinds, verbs)
    count = random.randint(8 if profile == "breaker" else 1, 14)
    only: tuple[tuple[Source, ...], ...] = (("kinesis",), ("sqs",), ("kinesis", "sqs"))
    sources = random.choice((only[0], *only))
    made = [draw.record(sources) for _ in range(count)]
    return tuple(sorted((*made, *_markers(made)), key=lambda one: one.at))


def _markers(made: Sequence[Made]) -> Iterator[Made]:
    """Markers among what producers send, which is as it would be without them."""
    random = Random(sum(len(one.body) for one in made))  # noqa: S311  a seed must give the same
    for number in range(random.choice((0, 0, 0, 1, 2))):
        body = b'{"_millrace_marker":1,"shard":"s-%d","at":%d}' % (number, NOW * MILLIS)
        source = random.choice(made).source
        at = random.uniform(0, SPAN_SECONDS)
        yield Made(at, source, "m", body, ((Message(body, marker=True),),))


def member_key(number: int) -> str:
    """The partition key of an aggregate's message."""
    return f"k-{number}"


class _Messages:
    """Draws messages one after the other; each may repeat one that was sent before."""

    def __init__(self, random: Random, kinds: Mapping[str, int], verbs: frozenset[Verb]) -> None:
        self.random, self.kinds, self.verbs = random, kinds, verbs
        self.sent: list[Message] = []
        self.number = 0

    def record(self, sources: Sequence[Source]) -> Made:
        random, source = self.random, self.random.choice(sources)
        count = random.choice((1, 1, 1, 2, 3))
        aggregated = source == "kinesis" and (count > 1 or random.random() < 0.1)  # noqa: PLR2004
        held = [self._held(source) for _ in range(count if aggregated else 1)]
        body = held[0][0]
        if aggregated:
            body = aggregate((member_key(n), data) for n, (data, _) in enumerate(held))
        key = f"k-{random.randrange(4)}"
        at = random.uniform(0, random.choice((1.0, SPAN_SECONDS)))
        return Made(at, source, key, body, tuple(messages for _, messages in held), aggregated)

    def _held(self, source: Source) -> tuple[bytes, tuple[Message, ...]]:
        """One message, or several in an array or in lines; compressed or not."""
        count = self.random.choice((1, 1, 1, 1, 2, 3))
        messages = [self._message() for _ in range(count)]
        form = self.random.choice(("array", "lines")) if count > 1 else "one"
        if form == "array":
            messages = [m for m in messages if _is_json(m)] or [self._plain()]
            body = b"[" + b",".join(m.body for m in messages) + b"]"
        elif form == "lines":
            messages.sort(key=lambda m: m.says is None)  # by its first line it is known
            messages = messages if messages[0].says else [self._plain(), *messages]
            body = b"\n".join(m.body for m in messages)
        else:
            body = messages[0].body
        return self._packed(body, messages, source), tuple(messages)

    def _packed(self, body: bytes, messages: Sequence[Message], source: Source) -> bytes:
        deadly = any(m.says and {"kills", "hangs"} & m.says.keys() for m in messages)
        if self.random.random() < 0.8 or deadly or not all(map(_is_json, messages)):  # noqa: PLR2004
            return body
        packed = gzip.compress(body, compresslevel=1, mtime=0)
        as_text = source == "sqs" or self.random.random() < 0.5  # noqa: PLR2004  a coin
        return base64.b64encode(packed) if as_text else packed

    def _plain(self) -> Message:
        self.number += 1
        return Message.of(self._says(self.number))

    def _message(self) -> Message:
        self.number += 1
        kind = self.random.choices(list(self.kinds), list(self.kinds.values()))[0]
        made = self._of_kind(kind, self.number)
        self.sent.append(made)
        return made

    def _of_kind(self, kind: str, number: int) -> Message:
        match kind:
            case "repeat" if self.sent:
                return self.random.choice(self.sent)
            case "kills" | "hangs":
                return Message.of({kind: number})
            case "broken":
                return Message(b"no" * (number % 7 + 1))
            case "number":
                return Message(b"%d" % number)
        return Message.of(self._says(number, kind))

    def _says(self, number: int, kind: str = "good") -> dict[str, Any]:
        """An object of this kind: what a verb wants of a message is in all of them."""
        said: dict[str, Any] = {"device_id": f"s-{number % 3}", "ts": NOW + number, "seq": number}
        if "choose" in self.verbs:
            said["kind"] = "hello" if kind == "other" else contracts.READING
        if "hash" in self.verbs:
            said["owner"] = f"ada-{number % 4}"
        said |= self._odd(kind, number)
        temperatures = self._temperatures(kind, number)
        if "explode" not in self.verbs:
            return said | ({"temperature": temperatures[0]} if kind != "beat" else {})
        if kind == "listless":
            return said
        names = ("part",) if kind == "beat" else ("part", "temperature")
        readings = [dict(zip(names, pair, strict=False)) for pair in enumerate(temperatures)]
        return said | {"readings": self._with_bad(kind, readings)}

    def _with_bad(self, kind: str, readings: list[dict[str, Any]]) -> list[Any]:
        match kind:
            case "empty":
                return []
            case "mixed" if self.random.random() < 0.5:  # noqa: PLR2004  a coin
                return [*readings[1:], self.random.choice((7, "x", {"temperature": 1}))]
        return readings

    def _odd(self, kind: str, number: int) -> dict[str, Any]:
        """What makes a message of this kind, beside its temperature."""
        odd: Mapping[str, dict[str, Any]] = {
            "conflict": {"ts": NOW, "seq": 0},
            "oversize": {"more": "x" * contracts.BODY_BYTES_MAX},
            "future": {"ts": NOW + 400 * MILLIS + number * MILLIS},
            "old": {"ts": NOW - 40 * 86_400 * MILLIS + number},
            "rescued": {"more": number},
            "beat": {"kind": contracts.BEAT},
            "misnamed": {"schema": 9},
        }
        return self._named(number) if kind == "named" else odd.get(kind, {})

    def _named(self, number: int) -> dict[str, Any]:
        """A version, as a message may name it; what only the newest knows, only it is sent."""
        version = self.random.choice(list(contracts.TEMPERATURE_MAX))
        text = self.random.choice((version, f"v{version}", f"{contracts.NAME}@{version}"))
        noted = version == contracts.NEWEST and self.random.random() < 0.5  # noqa: PLR2004  a coin
        return {"schema": text} | ({"note": f"n{number}"} if noted else {})

    def _temperatures(self, kind: str, number: int) -> list[float]:
        """As many as the message may have readings; of those without, the first counts."""
        count = self.random.randint(1, READINGS_MAX)
        first = {"conflict": number, "wide": 150, "cold": -5}.get(kind, 20.5)
        if kind in {"mixed", "named"}:
            return self.random.choices(TEMPERATURES, k=count)
        return [first, *[20.5] * (count - 1)]


def _is_json(message: Message) -> bool:
    return message.says is not None or message.body.isdigit()
