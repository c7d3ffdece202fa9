"""Contracts of any verbs, and messages for them in any layers, drawn from a seed.

Mostly good: a row that is delivered has gone through everything.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.row_oracle import CONDITIONS, EXPRESSIONS, Row, Rules, Spec
from tests.support import NOON, SECOND
from tests.verbs import AT
from transform.kpl import aggregate

NUMBERS = [0, 3, 10.5, 20, 28, 68, None, -100, "warm", True, {}]
GOOD_NUMBERS = 7
MEMBERS: Mapping[str, list[Any]] = {
    "d": ["a", "b", "zz/%", "other", "", None, 5],
    "at": [AT, AT - 0.5, AT - 7_200, AT - 3_600, AT + 1_000, AT + 90_000, None, "soon"],
    "ts": [AT, None],
    "t": NUMBERS,
    "temp": NUMBERS,
    "tf": NUMBERS,
    "value": NUMBERS,
    "m": [0, 3, 4, 6, None, 2**63],
    "s": ["x", "y", "a secret", "", None, 5],
    "b": [True, False, None, 1],
    "seen": ["2026-11-24T12:00:00+00:00", "1999-12-31T23:59:59.5+00:00", None, "never"],
    "kind": ["a", 7, "7", "b", "z", True, None, 7.5],
    "x": [1, None, {"y": "z"}],
    "a": [{"n": 3}, {"n": 0, "m": 3}, {"n": 2, "y": 1}, {"n": None}, {"n": 7.5}, None, 5, {}],
}
NAMED = [1, 2, 2, "v1", "2", "drawn@2", 9, "other"]
BROKEN = [b"{", b'"x"', b"3", b"{}", b'{"d":"a",}']
LIKELY = ("d", "at", "t", "a", "s")
OF_READINGS = ("t", "value", "temp", "tf", "m", "a", "x", "s")


class Draw(Random):
    """Choices, as they are made here."""

    def happens(self, share: float) -> bool:
        return self.random() < share

    def some(self, share: float = 0.4, **options: Any) -> Row:
        """Some of these keys, each with one of its values."""
        return {key: self.choice(of) for key, of in options.items() if self.happens(share)}


# Contracts


def rules(draw: Draw) -> Rules:
    """Any contract of these fields, with any of the verbs."""
    explode = draw.choice([None, None, ("rs",), ("deep", "rs")])
    fields = [*_read(draw, {"of": "reading"} if explode else {}), *_made(draw)]
    n = next(spec for spec in fields if spec.name == "n")
    wanted = n.default is None and draw.happens(0.3)
    return Rules(
        fields=fields,
        unknown=draw.choice(["rescue", "rescue", "rescue", "drop", "reject"]),
        explode=(explode, draw.choice(["reject", "drop"])) if explode else None,
        choose=_choose(draw, [spec.name for spec in fields]) if draw.happens(0.4) else None,
        filters=[
            (f"rule-{number}", draw.choice(["keep", "drop"]), draw.choice(CONDITIONS))
            for number in range(draw.choice([0, 0, 1, 2]))
        ],
        sample=draw.choice([None, None, None, 0.6]),
        lateness=draw.choice([None, 3_600]),
        record_id=("d", "at", "n") if wanted else ("d", "at"),
    )


def beside(draw: Draw, one: Rules) -> Rules:
    """Another version of a contract: other rules, whose rows may stand in the same table."""
    made = rules(draw)
    names = {spec.name: spec.name.replace("made", "other") for spec in made.fields}
    s, n = (
        next(f for f in each.fields if f.name == name) for each, name in ((one, "s"), (made, "n"))
    )
    if "n" in one.record_id:
        n.keys.pop("default", None)
    for spec in made.fields:
        spec.name = names[spec.name]
        if spec.name == "s":
            spec.keys.pop("privacy", None)
            spec.keys |= {"privacy": s.privacy} if s.privacy else {}
    if made.choose:
        *where, cases = made.choose
        cases = {kind: [names[name] for name in of] for kind, of in cases.items()}
        made.choose = (*where, cases)  # type: ignore[assignment]
    made.version, made.record_id = 2, one.record_id
    one.schema = made.schema = draw.choice([("path", "v"), ("attribute", "V")])
    one.hidden, made.hidden = ([f for f in each.fields if f.privacy] for each in (made, one))
    return made


def _read(draw: Draw, of: Row) -> list[Spec]:
    """The fields that are in messages or beside them."""
    filled = [{}, {"required": True}, {"default": 3}]
    fahrenheit = {"path": "tf", "unit": "degF"}
    t = {"unit": "Cel", **draw.choice(filled), **draw.some(min=[-20], max=[30.5])}
    t |= draw.some(from_unit=["degF"], aliases=[["temp"], [fahrenheit], ["temp", fahrenheit]])
    n = {**draw.choice(filled), **draw.some(aliases=[["m"], ["m", "a.m"]])}
    n |= draw.choice([{}, {}, {"allowed": [0, 3]}, {"min": 0, "max": 5}])
    s = draw.some(allowed=[["x", "y"]], privacy=["hash", "redact"])
    s_path = () if draw.happens(0.25) else ("s",)
    s |= {} if s_path else {"attribute": "S"}
    at = {"format": "epoch_seconds", **draw.some(aliases=[["ts"]])}
    return [
        Spec("d", "string", ("d",)),
        Spec("at", "timestamp", ("at",), at),
        Spec("t", "float64", draw.choice([("t",), ("value",)]), t | of),
        Spec("n", "int64", ("a", "n"), n | draw.choice([{}, of])),
        Spec("s", "string", s_path, s),
        Spec("b", "bool", ("b",), draw.some(default=[True])),
        Spec("seen", "timestamp", ("seen",), {"format": "iso8601"}),
    ]


def _made(draw: Draw) -> list[Spec]:
    """Fields that are made of others, or looked up."""
    fields = []
    for number, text in enumerate(draw.sample(list(EXPRESSIONS), draw.choice([0, 1, 3]))):
        kind = EXPRESSIONS[text][0]
        keys = {"expr": text, **draw.some(0.2, required=[True])}
        if kind in {"int64", "float64"}:
            keys |= draw.some(max=[20])
        if "_arrival" not in text:
            fields.append(Spec(f"made_{number}", kind, (), keys))
    if draw.happens(0.4):
        site, level = ({"lookup": "one", **more} for more in (draw.some(default=["none"]), {}))
        fields.append(Spec("site", "string", (), site))
        fields.append(Spec("level", "int64", (), level | draw.some(0.2, required=[True])))
    return fields


def _choose(draw: Draw, names: list[str]) -> tuple[str, Any, str, dict[str, list[str]]]:
    key, where = draw.choice([("path", ("kind",)), ("attribute", "kind")])
    cases = {one: draw.sample(names, draw.randint(2, len(names))) for one in ("a", "7")}
    return key, where, draw.choice(["reject", "drop"]), cases


# Messages


def message(draw: Draw, wanted: Rules) -> Row:
    """A message that is mostly good, its members in any order."""
    found = {name: _member(draw, name) for name in LIKELY}
    found |= {
        name: _member(draw, name) for name in draw.sample(list(MEMBERS), draw.choice([0, 1, 3]))
    }
    if wanted.choose:
        found["kind"] = _member(draw, "kind")
    if wanted.schema == ("path", "v"):
        found |= draw.some(0.6, v=[*NAMED, True, 7.5, None, {}])
    if wanted.explode:
        readings = [_reading(draw) for _ in range(draw.choice([0, 1, 2, 2, 4]))]
        listed: Any = draw.choice([None, 3]) if draw.happens(0.1) else readings
        deep = {"rs": listed, **draw.some(0.2, y=[1])}
        found |= {"rs": listed} if wanted.explode[0] == ("rs",) else {"deep": deep}
    names = list(found)
    draw.shuffle(names)
    return {name: found[name] for name in names if not draw.happens(0.03)}


def _member(draw: Draw, name: str) -> Any:
    """Nine times in ten it is one of the first, which are good."""
    every = MEMBERS[name]
    good = GOOD_NUMBERS if every is NUMBERS else (len(every) + 1) // 2
    return draw.choice(every[:good] if draw.happens(0.9) else every)


def _reading(draw: Draw) -> Any:
    if draw.happens(0.3):
        return draw.choice([*NUMBERS, [1]])
    return {name: _member(draw, name) for name in draw.sample(OF_READINGS, draw.randint(1, 4))}


def encoded(one: Any) -> bytes:
    return json.dumps(one, ensure_ascii=False).encode()


# What arrives


@dataclass(frozen=True)
class Record:
    """A source record: its body, the messages in each member of it, and what is beside it."""

    body: bytes
    members: list[list[bytes]]
    attributes: Row
    arrival: int = NOON


def records(draw: Draw, *wanted: Rules) -> list[Record]:
    """A Delivery of records for any of these contracts."""
    return [_record(draw, draw.choice(wanted)) for _ in range(draw.randint(0, 6))]


def _record(draw: Draw, wanted: Rules) -> Record:
    own = draw.some(0.7, S=["x", "y", "z"], kind=["a", "a", "7", "z"])
    if wanted.schema == ("attribute", "V"):
        own |= draw.some(0.6, V=[str(named) for named in NAMED])
    arrival = draw.choice([NOON, NOON, NOON + 7_200 * SECOND])
    if draw.happens(0.8):
        body, messages = _layered(draw, wanted)
        return Record(body, [messages], own, arrival)
    members = [_layered(draw, wanted) for _ in range(draw.randint(1, 2))]
    packed = aggregate(("k", body) for body, _ in members)
    return Record(packed, [messages for _, messages in members], own, arrival)


def _layered(draw: Draw, wanted: Rules) -> tuple[bytes, list[bytes]]:
    body, messages = _sequence(draw, wanted)
    layer = draw.choice(["", "", "", "gzip", "base64"])
    if layer and body not in BROKEN:
        body = gzip.compress(body, mtime=0)
        body = base64.b64encode(body) if layer == "base64" else body
    return body, messages


def _sequence(draw: Draw, wanted: Rules) -> tuple[bytes, list[bytes]]:
    """A body, and the messages in it."""
    count = draw.randint(1, 3)
    messages = [encoded(message(draw, wanted)) for _ in range(count)]
    form = draw.choice(["one", "one", "array", "lines"])
    if form == "array":
        messages += [b"3"] if draw.happens(0.1) else []
        return b"[" + b", ".join(messages) + b"]", messages
    if form == "lines" and count > 1:
        messages += [draw.choice(BROKEN)] if draw.happens(0.2) else []
        return b"\n".join(messages), messages
    one = draw.choice(BROKEN) if draw.happens(0.05) else messages[0]
    return one, [one]
