"""An oracle of what Transform makes of messages: row by row, in plain Python, as one would say it.

It shares nothing with `transform/` but names: JSON is Python's, values are walked key by key,
expressions are Python functions beside their text. What layers are around messages is known to who
put them there.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.verbs import KEY

Row = dict[str, Any]
CSV = b"id,site,level\na,hall,1\nb,,2\nzz/%,roof,\n"
LOOKUP: Mapping[str, Row] = {
    "a": {"site": "hall", "level": 1},
    "b": {"site": None, "level": 2},
    "zz/%": {"site": "roof", "level": None},
}


def strict(function: Callable[..., Any], *names: str) -> Callable[[Row], Any]:
    """Nothing where one of the values is nothing."""

    def run(row: Row) -> Any:
        values = [row[name] for name in names]
        return None if None in values else function(*values)

    return run


EXPRESSIONS: Mapping[str, tuple[str, Callable[[Row], Any]]] = {
    "t * 2 + n": ("float64", strict(lambda t, n: t * 2 + n, "t", "n")),
    "t / n": ("float64", strict(lambda t, n: t / n if n else None, "t", "n")),
    "coalesce(t, 0.5)": ("float64", lambda row: 0.5 if row["t"] is None else row["t"]),
    "n // 2": ("int64", strict(lambda n: n // 2, "n")),
    "_reading + 1": ("int64", lambda row: row["_reading"] + 1),
    "upper(s)": ("string", strict(str.upper, "s")),
    "t > 10": ("bool", strict(lambda t: t > 10, "t")),
    "s == 'x'": ("bool", strict(lambda s: s == "x", "s")),
    "t is None or n > 2": (
        "bool",
        lambda row: True if row["t"] is None else strict(lambda n: n > 2, "n")(row),
    ),
    "b": ("bool", lambda row: row["b"]),
    "seconds_between(at, _arrival) > 3600": (
        "bool",
        lambda row: row["_arrival"] - row["at"] > 3600 * 10**6,
    ),
}
CONDITIONS = [text for text, (kind, _) in EXPRESSIONS.items() if kind == "bool"]


@dataclass
class Spec:
    """A field as the oracle knows it; the keys are a contract's."""

    name: str
    type: str
    path: tuple[str, ...] = ()
    keys: Row = field(default_factory=dict)

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__"):
            raise AttributeError(key)
        return self.keys.get(key)

    @property
    def places(self) -> list[tuple[tuple[str, ...], str | None]]:
        """Each path, and the unit there if it is not the column's."""
        if not self.path:
            return []
        own = self.from_unit
        found = [(self.path, own)]
        for alias in self.aliases or ():
            where, unit = (alias, own) if isinstance(alias, str) else (alias["path"], alias["unit"])
            found.append((tuple(where.split(".")), unit))
        return found

    @property
    def late(self) -> bool:
        """Whether it is judged when all values are there."""
        return bool(self.expr or self.lookup or any(unit for _, unit in self.places))

    def text(self) -> str:
        keys = {**({"path": list(self.path)} if self.path else {}), **self.keys}
        lines = [f"{key} = {_toml(value)}" for key, value in keys.items()]
        return "\n".join(
            ["[[field]]", f'name = "{self.name}"', f'type = "{self.type}"', *lines, ""]
        )


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


@dataclass
class Rules:
    """A contract as the oracle knows it."""

    fields: list[Spec]
    unknown: str = "rescue"
    explode: tuple[tuple[str, ...], str] | None = None
    choose: tuple[str, tuple[str, ...] | str, str, dict[str, list[str]]] | None = None
    filters: list[tuple[str, str, str]] = field(default_factory=list)
    sample: float | None = None
    lateness: int | None = None
    record_id: tuple[str, ...] = ("d", "at")
    version: int = 1
    schema: tuple[str, str] | None = None
    envelope: str = ""
    hidden: list[Spec] = field(default_factory=list)  # of versions beside it

    def text(self) -> str:
        parts = [
            'name = "drawn"',
            f"version = {self.version}",
            f'unknown = "{self.unknown}"',
            "[identity]",
            'device = "d"',
            'event_time = "at"',
            f"record_id = {_toml(self.record_id)}",
        ]
        if self.envelope:
            parts += ["[envelope]", self.envelope]
        if self.schema:
            parts += ["[schema]", f"{self.schema[0]} = {_toml(self.schema[1])}"]
        if self.lateness is not None:
            parts += ["[limits]", f"max_lateness_seconds = {self.lateness}"]
        if self.sample is not None:
            parts += ["[sample]", f"keep = {self.sample}"]
        if self.explode:
            parts += ["[explode]", f"path = {_toml(self.explode[0])}"]
            parts += [f'empty = "{self.explode[1]}"']
        if self.choose:
            key, where, otherwise, cases = self.choose
            parts += ["[choose]", f"{key} = {_toml(where)}", f'otherwise = "{otherwise}"']
            for value, names in cases.items():
                parts += ["[[choose.case]]", f"value = {_toml(value)}", f"fields = {_toml(names)}"]
        if any(spec.lookup for spec in self.fields):
            parts += ["[[lookup]]", 'name = "one"', 'file = "one.csv"', 'on = "d"', 'key = "id"']
        for name, key, expression in self.filters:
            parts += ["[[filter]]", f'name = "{name}"', f"{key} = {_toml(expression)}"]
        return "\n".join(parts) + "\n" + "".join(spec.text() for spec in self.fields)


class Refused(Exception):
    """Why an element is rejected: step, reason, field."""

    def __init__(self, step: str, reason: str, name: str | None = None) -> None:
        super().__init__(reason)
        self.why = (step, reason, name)


@dataclass(frozen=True)
class Fate:
    """What becomes of one element: `what` is row, reject or drop."""

    what: str
    of: Any


def fates(
    rules: Rules, messages: Sequence[bytes], attributes: Mapping[str, str], arrival: int
) -> list[Fate]:
    """What the messages of one record, or of one member of an aggregate, come to, in order."""
    return [fate for body in messages for fate in _message(rules, body, attributes, arrival)]


def fates_beside(
    versions: Mapping[int, Rules],
    current: Rules,
    messages: Sequence[bytes],
    attributes: Mapping[str, str],
    arrival: int,
) -> list[Fate]:
    """The same where each message may name the version that reads it."""
    found: list[Fate] = []
    for body in messages:
        named = _named(current, body, attributes)
        if named is None or named in versions:
            rules = current if named is None else versions[named]
            found += _message(rules, body, attributes, arrival)
        else:
            found.append(Fate("reject", ("check", "unknown_schema", None)))
    return found


def _named(rules: Rules, body: bytes, attributes: Mapping[str, str]) -> int | str | None:
    """The version a message names, or what it says in its place; None where it says nothing."""
    key, where = rules.schema or ("attribute", "")
    if key == "attribute":
        said: Any = attributes.get(where)
    else:
        try:
            said = _json(body).get(where)
        except Refused:
            return None
    if said is None or not isinstance(said, (str, int)):
        return None
    text = str(said).removeprefix("drawn@").removeprefix("v")
    return int(text) if text.isdecimal() else str(said)


def _message(
    rules: Rules, body: bytes, attributes: Mapping[str, str], arrival: int
) -> Iterator[Fate]:
    try:
        message = _json(body)
        fields = _fields(rules, message, attributes)
        if fields is None:
            yield Fate("drop", "choose")
            return
        values, rescued, readings = _opened(rules, message, fields, attributes)
    except Refused as refused:
        yield Fate("reject", refused.why)
        return
    if not rules.explode:
        yield _judged(rules, fields, values, rescued, 0, arrival)
        return
    if not readings:
        yield Fate("drop", "explode")
    for number, reading in enumerate(readings):
        try:
            more, left = _reading(rules, fields, reading)
        except Refused as refused:
            yield Fate("reject", refused.why)
            continue
        kept = {**rescued, ".".join(rules.explode[0]): left} if left else rescued
        yield _judged(rules, fields, {**values, **more}, kept, number, arrival)


def _opened(
    rules: Rules, message: Row, fields: list[Spec], attributes: Mapping[str, str]
) -> tuple[Row, Row, list[Any]]:
    own = [spec for spec in fields if spec.of != "reading"]
    values, rescued, readings = _read(rules, message, own, of_reading=False)
    for spec in own:
        if spec.attribute:
            values[spec.name] = _attribute(spec, attributes.get(spec.attribute))
    if rules.explode and readings is None:
        raise Refused("check", "missing_field")
    if rules.explode and not readings and rules.explode[1] == "reject":
        raise Refused("check", "no_readings")
    return values, rescued, readings or []


def _reading(rules: Rules, fields: list[Spec], reading: Any) -> tuple[Row, Row]:
    members = reading if isinstance(reading, dict) else {"value": reading}
    own = [spec for spec in fields if spec.of == "reading"]
    values, left, _ = _read(rules, members, own, of_reading=True)
    return values, left


def _json(body: bytes) -> Row:
    try:
        message = json.loads(body)
    except ValueError:
        raise Refused("decode", "malformed_json") from None
    if not isinstance(message, dict):
        raise Refused("decode", "not_an_object")
    return message


def _fields(rules: Rules, message: Row, attributes: Mapping[str, str]) -> list[Spec] | None:
    """The fields of a message of its type; None where it is dropped for it."""
    if not rules.choose:
        return rules.fields
    key, where, otherwise, cases = rules.choose
    kind = attributes.get(str(where)) if key == "attribute" else _at(message, where)
    if isinstance(kind, bool) or not isinstance(kind, (str, int)):
        kind = {True: "true", False: "false"}.get(kind) if isinstance(kind, bool) else None
    if str(kind) in cases and kind is not None:
        has = {*cases[str(kind)], *rules.record_id}
        return [spec for spec in rules.fields if spec.name in has]
    if otherwise == "drop":
        return None
    raise Refused("check", "unknown_type")


def _at(message: Any, path: Sequence[str]) -> Any:
    for key in path:
        message = message.get(key) if isinstance(message, dict) else None
    return message


def _read(
    rules: Rules, message: Row, fields: list[Spec], *, of_reading: bool
) -> tuple[Row, Row, list[Any] | None]:
    """Values by field, what no field claims, and the list that is exploded."""
    fields = [spec for spec in fields if spec.places]
    leaves = _leaves(rules, fields, of_reading=of_reading)
    found: dict[tuple[str, ...], Any] = {}
    rescued = _walk(rules, message, (), leaves, found)
    values = {spec.name: _first(spec, found) for spec in fields}
    for spec in fields:
        if values[spec.name] is None:
            if _required(rules, spec):
                raise Refused("check", "missing_field", spec.name)
            values[spec.name] = _default(spec)
    if values.get("d") == "":
        raise Refused("check", "missing_field", "d")
    return values, rescued, found.get(rules.explode[0]) if rules.explode else None


def _leaves(
    rules: Rules, fields: list[Spec], *, of_reading: bool
) -> dict[tuple[str, ...], Spec | str]:
    """What is at each path: a field, the list, or something known that is kept nowhere."""
    leaves: dict[tuple[str, ...], Spec | str] = {}
    for spec in fields:
        leaves.update({path: spec for path, _ in spec.places})
    if not of_reading and rules.explode:
        leaves[rules.explode[0]] = "list"
    if not of_reading and rules.choose and rules.choose[0] == "path":
        leaves.setdefault(tuple(rules.choose[1]), "known")
    if not of_reading and rules.schema and rules.schema[0] == "path":
        leaves.setdefault((rules.schema[1],), "known")
    for spec in (*rules.fields, *rules.hidden):
        if spec.privacy and rules.unknown == "rescue" and (spec.of == "reading") == of_reading:
            for path, _ in spec.places:
                leaves.setdefault(path, "known")
    return leaves


def _first(spec: Spec, found: dict[tuple[str, ...], Any]) -> Any:
    for path, unit in spec.places:
        if found.get(path) is not None:
            return _converted(found[path], unit)
    return None


def _walk(
    rules: Rules,
    members: Row,
    path: tuple[str, ...],
    leaves: Mapping[tuple[str, ...], Spec | str],
    found: dict[tuple[str, ...], Any],
) -> Row:
    rescued: Row = {}
    for key, value in members.items():
        here = (*path, key)
        leaf = leaves.get(here)
        below = {p: one for p, one in leaves.items() if p[: len(here)] == here}
        reads = [one for one in below.values() if one != "known"]
        if not below or (leaf is None and not reads and not isinstance(value, (dict, type(None)))):
            if rules.unknown == "reject":
                raise Refused("check", "unknown_field")
            rescued[key] = value
        elif value is None or leaf == "known":
            continue
        elif leaf == "list":
            if not isinstance(value, list):
                raise Refused("check", "wrong_type")
            found[here] = value
        elif isinstance(leaf, Spec):
            found[here] = _value(leaf, value)
        elif not isinstance(value, dict):
            first = next((one.name for one in reads if isinstance(one, Spec)), None)
            raise Refused("check", "wrong_type", first)
        elif left := _walk(rules, value, here, leaves, found):
            rescued[key] = left
    return rescued if rules.unknown == "rescue" else {}


def _value(spec: Spec, value: Any) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = {
        "string": isinstance(value, str),
        "int64": number and isinstance(value, int),
        "float64": number,
        "bool": isinstance(value, bool),
    }
    if spec.type == "timestamp":
        return _moment(spec, value)
    if not fits[spec.type]:
        raise Refused("check", "wrong_type", spec.name)
    if spec.type == "int64" and not -(2**63) <= value < 2**63:
        raise Refused("check", "out_of_range", spec.name)
    value = float(value) if spec.type == "float64" else value
    return value if spec.late else _in_range(spec, value)


def _moment(spec: Spec, value: Any) -> int:
    try:
        if spec.format == "iso8601":
            return round(datetime.fromisoformat(value).timestamp() * 10**6)
        return round(float(value) * 10**6)
    except (TypeError, ValueError):
        raise Refused("check", "bad_timestamp", spec.name) from None


def _in_range(spec: Spec, value: Any) -> Any:
    if value is None:
        return None
    if (spec.min is not None and value < spec.min) or (spec.max is not None and value > spec.max):
        raise Refused("check", "out_of_range", spec.name)
    if spec.allowed is not None and value not in spec.allowed:
        raise Refused("check", "not_allowed", spec.name)
    return value


def _converted(value: Any, unit: str | None) -> Any:
    return (value * 5 - 160) / 9 if unit == "degF" else value


def _required(rules: Rules, spec: Spec) -> bool:
    return bool(spec.required) or spec.name in rules.record_id


def _default(spec: Spec) -> Any:
    return (
        float(spec.default) if spec.type == "float64" and spec.default is not None else spec.default
    )


def _attribute(spec: Spec, text: str | None) -> Any:
    if text is None:
        if spec.required:
            raise Refused("check", "missing_field", spec.name)
        return spec.default
    return _value(spec, text)


def _judged(  # noqa: PLR0917  all that a row is made of
    rules: Rules, fields: list[Spec], values: Row, rescued: Row, number: int, arrival: int
) -> Fate:
    row: Row = {spec.name: values.get(spec.name) for spec in rules.fields}
    row |= {"_reading": number, "_arrival": arrival}
    try:
        _make(fields, row)
        _judge(fields, row)
    except Refused as refused:
        return Fate("reject", refused.why)
    for name, key, expression in rules.filters:
        holds = EXPRESSIONS[expression][1](row)
        if holds if key == "drop" else not holds:
            return Fate("drop", name)
    return _sampled(rules, {**row, **_hidden(fields, row)}, rescued)


def _make(fields: list[Spec], row: Row) -> None:
    for spec in fields:
        if spec.lookup:
            found = LOOKUP.get(row["d"], {}).get(spec.name)
            row[spec.name] = spec.default if found is None else found
    for spec in fields:
        if spec.expr:
            made = EXPRESSIONS[spec.expr][1](row)
            row[spec.name] = spec.default if made is None else made


def _judge(fields: list[Spec], row: Row) -> None:
    for spec in fields:
        if spec.late:
            if spec.required and row[spec.name] is None:
                raise Refused("check", "no_value", spec.name)
            _in_range(spec, row[spec.name])
    if row["at"] - row["_arrival"] > 300 * 10**6:
        raise Refused("check", "future_time", "at")


def _hidden(fields: list[Spec], row: Row) -> Row:
    private = {spec.name: spec.privacy for spec in fields if spec.privacy}
    return {
        name: None
        if privacy == "redact" or row[name] is None
        else hmac.new(KEY, row[name].encode(), hashlib.sha256).hexdigest()[:32]
        for name, privacy in private.items()
    }


def _sampled(rules: Rules, row: Row, rescued: Row) -> Fate:
    record_id = "/".join(
        _part(row[name]) if name != "at" else iso(row[name]) for name in rules.record_id
    )
    digest = hashlib.blake2b(record_id.encode(), digest_size=8).digest()
    if rules.sample is not None and int.from_bytes(digest) >= rules.sample * 2**64:
        return Fate("drop", "sample")
    skew = row.pop("_arrival") - row["at"]
    del row["_reading"]
    row |= {"_record_id": record_id, "_skew": skew, "_rescued": rescued or None}
    row["_late"] = rules.lateness is not None and skew > rules.lateness * 10**6
    return Fate("row", row)


def _part(value: Any) -> str:
    return str(value).replace("%", "%25").replace("/", "%2F")


def iso(micros: int) -> str:
    return datetime.fromtimestamp(micros // 10**6, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + (
        f"{micros % 10**6:06d}Z"
    )
