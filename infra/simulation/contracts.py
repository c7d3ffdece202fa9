"""The contracts and code versions that are deployed in turn. Few fields: a seed must be cheap."""

from __future__ import annotations

import hashlib
from functools import cache

from transform.contract import Contract, HotLayout
from transform.contract_file import parse_contract
from transform.decode import Decoder
from transform.pipeline import Transform
from transform.records import Generation

NAME = "simulated"
TEMPERATURE_MAX = {1: 100, 2: 200, 3: 200}
"""By contract version: the second takes what the first rejects."""

NEWEST = 3
"""Version of the contract that knows every field."""

CODES = ((0, 1, 0), (0, 1, 1))
"""Code versions that are deployed in turn; they judge alike, and make generations of their own."""

_TOML = """
name = "{name}"
version = {version}

[identity]
device = "device_id"
event_time = "event_time"
record_id = ["device_id", "event_time", "sequence"]

[limits]
max_body_bytes = 300
max_future_seconds = 300

[hot]
ttl_days = 30
layout = "{layout}"

[[field]]
name = "device_id"
type = "string"

[[field]]
name = "event_time"
path = "ts"
type = "timestamp"
format = "epoch_millis"

[[field]]
name = "sequence"
path = "seq"
type = "int64"

[[field]]
name = "temperature"
type = "float64"
required = true
max = {maximum}
{more}"""

_NOTE = """
[[field]]
name = "note"
type = "string"
"""


@cache
def contract(version: int, layout: HotLayout = "reading") -> Contract:
    """A version of the simulated contract; the third has a field that the others do not know."""
    more = _NOTE if version == 3 else ""  # noqa: PLR2004  the third
    text = _TOML.format(
        name=NAME, version=version, layout=layout, maximum=TEMPERATURE_MAX[version], more=more
    )
    return parse_contract(text.encode(), f"{NAME}-{version}.toml")


@cache
def decoder(version: int) -> Decoder:
    rules = contract(version)
    return Decoder.of(rules.fields, device=rules.device)


def good(body: bytes, arrival_micros: int, version: int) -> bool:
    """Whether a contract takes a message: its definition, apart from Transform's fast path."""
    rules = contract(version)
    if len(body) > rules.max_body_bytes:
        return False
    read = decoder(version).slow(body)
    if not isinstance(read, tuple):
        return False
    event_time = read[0][[f.name for f in rules.fields].index(rules.event_time)]
    return int(str(event_time)) - arrival_micros <= rules.max_future_seconds * 1_000_000


def generation(rules: Transform, code: int) -> Generation:
    """The generation of a Transform, were it of this code version (`CODES`)."""
    major, minor, patch = CODES[code]
    made = (rules.epoch, rules.contract.name, rules.contract.version, rules.contract.digest)
    named = repr((*made, CODES[code])).encode()
    return Generation(
        epoch=rules.epoch,
        version=rules.contract.version * 10**9 + major * 10**6 + minor * 10**3 + patch,
        digest=hashlib.blake2b(named, digest_size=8).hexdigest(),
    )
