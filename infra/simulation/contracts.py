"""The contracts and code versions that are deployed in turn. Few fields: a seed must be cheap."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from typing import Literal, get_args

from transform.contract import Contract
from transform.contract_file import parse_contract
from transform.pipeline import Transform
from transform.plan import Plan
from transform.plans import Plans
from transform.records import Generation
from transform.verbs import Verbs

NAME = "simulated"
TEMPERATURE_MAX = {1: 100, 2: 200, 3: 200}
"""By contract version: the second takes what the first rejects."""

NEWEST = 3
"""The version that has one field more, a note. It is published, and never deployed."""

BODY_BYTES_MAX = 300
FUTURE_SECONDS_MAX = 300
HOT_DAYS = 30
SAMPLE = 0.7

Verb = Literal[
    "filter",  # what is cold is dropped
    "explode",  # a message is a list of readings
    "choose",  # messages say their type: a reading, a beat without a temperature, or another
    "versions",  # messages may name the version that reads them
    "sample",  # only some records are kept
    "hash",  # there is an owner, of whom nobody shall know
    "latest",  # the hot table has one item a device
]
"""What a scenario's contract has beside its fields, whatever its version."""

LATEST: frozenset[Verb] = frozenset({"latest"})
VERBS: tuple[Verb, ...] = tuple(verb for verb in get_args(Verb) if verb not in LATEST)
"""Those that messages are made for."""

NO_VERBS: frozenset[Verb] = frozenset()

FILTER, EXPLODE, CHOOSE, SAMPLED = "warm", "explode", "choose", "sample"
"""The rules by which rows are dropped."""

MARKER = "_marker"
"""... and that by which a record is that no producer sent."""

READING, BEAT = "reading", "beat"
"""The types of messages that are not dropped."""


def contract(version: int, verbs: Iterable[Verb] = NO_VERBS) -> Contract:
    """A version of the simulated contract; the third has a field that the others do not know."""
    return _contract(version, frozenset(verbs))


@cache
def _contract(version: int, verbs: frozenset[Verb]) -> Contract:
    text = "\n".join([_head(version, verbs), *_fields(version, verbs)])
    return parse_contract(text.encode(), f"{NAME}-{version}.toml")


def _head(version: int, verbs: frozenset[Verb]) -> str:
    own = ", ".join(f'"{name}"' for name in identity(verbs))
    parts = {
        "filter": f'[[filter]]\nname = "{FILTER}"\ndrop = "temperature < 0"',
        "explode": '[explode]\npath = "readings"\nempty = "drop"',
        "choose": _CHOOSE + ('"part"]' if "explode" in verbs else "]"),
        "versions": '[schema]\npath = "schema"',
        "sample": f"[sample]\nkeep = {SAMPLE}",
    }
    chosen = [text for verb, text in parts.items() if verb in verbs]
    limits = _LIMITS.format(bytes=BODY_BYTES_MAX, seconds=FUTURE_SECONDS_MAX, days=HOT_DAYS)
    if "latest" in verbs:
        limits += '\nlayout = "latest"'
    named = f'name = "{NAME}"\nversion = {version}\n[identity]\ndevice = "device_id"'
    return "\n".join([named, f'event_time = "event_time"\nrecord_id = [{own}]', limits, *chosen])


def identity(verbs: Iterable[Verb]) -> tuple[str, ...]:
    """The fields that make two records the same."""
    own = ("device_id", "event_time", "sequence")
    return (*own, "part") if "explode" in verbs else own


def _fields(version: int, verbs: frozenset[Verb]) -> Iterable[str]:
    of = 'of = "reading"' if "explode" in verbs else ""
    yield _field("device_id", "string")
    yield _field("event_time", "timestamp", 'path = "ts"\nformat = "epoch_millis"')
    yield _field("sequence", "int64", 'path = "seq"')
    if "explode" in verbs:
        yield _field("part", "int64", of)
    wanted = f"required = true\nmax = {TEMPERATURE_MAX[version]}"
    yield _field("temperature", "float64", f"{wanted}\n{of}")
    if "hash" in verbs:
        yield _field("owner", "string", 'privacy = "hash"')
    if version == NEWEST:
        yield _field("note", "string")


def _field(name: str, kind: str, keys: str = "") -> str:
    return f'[[field]]\nname = "{name}"\ntype = "{kind}"\n{keys}'


_LIMITS = """[limits]
max_body_bytes = {bytes}
max_future_seconds = {seconds}
[hot]
ttl_days = {days}"""

_CHOOSE = f"""[choose]
path = "kind"
otherwise = "drop"
[[choose.case]]
value = "{READING}"
[[choose.case]]
value = "{BEAT}"
fields = ["""


def coded(generation: Generation, code: int) -> Generation:
    """A generation as another version of the code would have made it, which judges alike."""
    if not code:
        return generation
    named = f"{generation.digest}/{code}".encode()
    return Generation(
        epoch=generation.epoch,
        version=generation.version + code,
        digest=hashlib.blake2b(named, digest_size=8).hexdigest(),
    )


_READY: dict[tuple[str, ...], tuple[Plans, dict[Plan, Verbs]]] = {}


def ready(rules: Transform) -> tuple[Plans, dict[Plan, Verbs]]:
    """What a Transform is made ready with, once for all seeds: it takes longer than a Delivery."""
    made = (*(c.digest for c in (rules.contract, *rules.older)), rules.hash_key.hex())
    if made not in _READY:
        _READY[made] = (rules.plans, rules.verbs)
    return _READY[made]
