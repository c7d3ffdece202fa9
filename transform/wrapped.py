"""Messages inside what a service puts around them: SNS, EventBridge, CloudEvents.

Only what a contract declares is unwrapped. What lies beside the message becomes attributes, text by
name; what is text there stays as it is, everything else is its JSON. A message that is not so
wrapped passes through: deployments and sources mix.
"""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Callable, Mapping, MutableMapping
from typing import Literal, TypeVar, cast

import msgspec

from transform.encoded import decoded
from transform.records import Rejection
from transform.sequences import nests_deeper

Wrapper = Literal["sns", "eventbridge", "cloudevents"]
Attributes = Mapping[str, str]
Unwrapped = tuple[bytes, Attributes | None]

WRAPPER_BYTES_MAX = 4_194_304  # services wrap a megabyte at most; members are held by their names
WRAPPER_NESTING_MAX = 200  # fixed, as the interpreter's own varies; what nests 101 is rejected
BINARY_PREFIXES = ("ce-", "ce_", "cloudevents:", "cloudevents_")
VERSIONS = ("1.0", "0.3")  # of CloudEvents


def unwrapped(
    wrapper: Wrapper, body: bytes, outer: Attributes | None
) -> Unwrapped | Rejection | None:
    """The message inside and its attributes: its own, then those from outside.

    `None` where the body is not so wrapped, a `Rejection` where it is but holds nothing readable.
    """
    return _UNWRAP[wrapper](body, outer)


def attributes_of(attributes_json: str | None) -> Attributes | None:
    """SQS message attributes, as ingest archives them, as text by name; binary stays base64."""
    if not attributes_json:
        return None
    try:
        found = json.loads(attributes_json)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    return {
        _whole_characters(name): _whole_characters(text)
        for name, value in found.items()
        if isinstance(value, dict)
        for text in (value.get("binaryValue"), value.get("stringValue"))
        if isinstance(text, str)
    }


def _sns(body: bytes, outer: Attributes | None) -> Unwrapped | Rejection | None:
    """`Message`, which is text. Beside it its attributes, and `sns_topic` and the like."""
    members = _members(_SNS, body)
    if members is None:
        return None
    message = _string(members.get("Message"))
    if message is None:
        return _bad("SNS: Message is not text that can be read")
    own = {}
    for name, value in _mapping(members.get("MessageAttributes")).items():
        own[name] = _string(_mapping(value).get("Value"))
    for name, member in _SNS_NAMES.items():
        own[name] = _string(members.get(member))
    return message.encode(), _beside(own, outer)


def _eventbridge(body: bytes, outer: Attributes | None) -> Unwrapped | None:
    """The very bytes of `detail`. Beside it `eb_source`, `eb_detail_type` and all other members."""
    members = _members(_EVENT, body)
    detail = bytes(members.pop("detail", NOTHING)) if members else b""
    if members is None or not detail.startswith(b"{"):
        return None
    own = {f"eb_{name.replace('-', '_')}": _shown(value) for name, value in members.items()}
    return detail, _beside(own, outer)


def _cloudevents(body: bytes, outer: Attributes | None) -> Unwrapped | Rejection | None:
    """The data of an event and its context as `ce_*`, whether members or message attributes."""
    members = _members(_CLOUD_EVENT, body)
    if members is None:
        return _binary(body, outer)
    data = _data(
        members.pop("data", NOTHING),
        members.pop("data_base64", NOTHING),
        _string(members.get("datacontenttype")) or "application/json",
        _string(members.pop("datacontentencoding", NOTHING)),
    )
    if isinstance(data, Rejection):
        return data
    own = {f"ce_{name}": _shown(value) for name, value in members.items()}
    return data, _beside(own, outer)


def _data(
    data: msgspec.Raw, data_base64: msgspec.Raw, media_type: str, encoding: str | None
) -> bytes | Rejection:
    """JSON data as it is; text of another media type, and base64, as what they stand for."""
    present = [value for value in (data, data_base64) if bytes(value) not in ABSENT]
    if len(present) != 1:
        return _bad(f"CloudEvents: {'data and data_base64' if present else 'no data'}")
    text = _string(present[0])
    if bytes(data_base64) not in ABSENT or encoding == "base64":
        plain = None if text is None else decoded(text.encode())
        return _bad("CloudEvents: the data is not base64") if plain is None else plain
    if text is None or media_type.partition(";")[0].strip().lower().endswith(("/json", "+json")):
        return bytes(data)
    return text.encode()


def _binary(body: bytes, outer: Attributes | None) -> Unwrapped | None:
    """The body as it is, where message attributes say that it is an event's data."""
    renamed = {_context_name(name): text for name, text in (outer or {}).items()}
    return (body, renamed) if renamed.get("ce_specversion") in VERSIONS else None


def _context_name(name: str) -> str:
    """`ce_type` for `ce-type`, `cloudEvents:type` and all other bindings' names for it."""
    lower = name.lower()
    for prefix in BINARY_PREFIXES:
        if lower.startswith(prefix):
            return "ce_" + lower.removeprefix(prefix)
    return "ce_datacontenttype" if lower == "content-type" else name


class _Sns(msgspec.Struct):
    kind: Literal["Notification"] = msgspec.field(name="Type")
    topic: str = msgspec.field(name="TopicArn")


class _Event(msgspec.Struct):
    kind: str = msgspec.field(name="detail-type")
    source: str


class _CloudEvent(msgspec.Struct):
    specversion: Literal["1.0", "0.3"]
    type: str
    source: str
    id: str


Kind = TypeVar("Kind")


def _members(recognised: msgspec.json.Decoder[Kind], body: bytes) -> dict[str, msgspec.Raw] | None:
    """The members of a body that is an object with those that are looked for."""
    if len(body) > WRAPPER_BYTES_MAX:
        return None
    try:
        recognised.decode(body)
        members = _MEMBERS.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    return None if nests_deeper(body, WRAPPER_NESTING_MAX) else members


def _beside(own: Mapping[str, str | None], outer: Attributes | None) -> Attributes:
    """`own` before `outer`, which all elements of a message share: it is not copied for each."""
    present = {name: text for name, text in own.items() if text is not None}
    if not outer:
        return present
    return ChainMap(present, cast("MutableMapping[str, str]", outer))


def _mapping(value: msgspec.Raw | None) -> dict[str, msgspec.Raw]:
    try:
        return _MEMBERS.decode(value) if value is not None else {}
    except (msgspec.DecodeError, RecursionError):
        return {}


def _string(value: msgspec.Raw | None) -> str | None:
    """The text of a JSON string; `None` for what is none, and for half a surrogate pair."""
    try:
        return _STRING.decode(value) if value is not None else None
    except msgspec.DecodeError:
        return None


def _shown(value: msgspec.Raw) -> str | None:
    """A member as text; nothing for null."""
    text = bytes(value)
    if text.startswith(b'"'):
        return _string(value)
    return None if text == b"null" else text.decode(errors="replace")


def _whole_characters(text: str) -> str:
    """`text` as UTF-8 can hold it: a question mark for half a surrogate pair."""
    return text.encode(errors="replace").decode()


def _bad(detail: str) -> Rejection:
    return Rejection("envelope", "bad_wrapper", detail)


NOTHING = msgspec.Raw(b"")
ABSENT = (b"", b"null")
_SNS_NAMES = {
    "sns_topic": "TopicArn",
    "sns_message_id": "MessageId",
    "sns_subject": "Subject",
    "sns_timestamp": "Timestamp",
}
_UNWRAP: Mapping[Wrapper, Callable[[bytes, Attributes | None], Unwrapped | Rejection | None]] = {
    "sns": _sns,
    "eventbridge": _eventbridge,
    "cloudevents": _cloudevents,
}
_SNS = msgspec.json.Decoder(_Sns)
_EVENT = msgspec.json.Decoder(_Event)
_CLOUD_EVENT = msgspec.json.Decoder(_CloudEvent)
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STRING = msgspec.json.Decoder(str)
