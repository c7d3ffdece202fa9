"""The messages in a sample's records: opened and unwrapped as Transform would, their list found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import msgspec

from infra.contracts import toml_text
from infra.contracts.naming import Path, words
from infra.contracts.observed import Seen, observe
from infra.contracts.quantities import named_like_readings, named_like_time
from infra.contracts.samples import Sample, SampleError
from transform.contract_paths import KEY, PATH_KEYS_MAX
from transform.envelope import Envelope, open_record
from transform.wrapped import Wrapper

LOOKED_AT_MAX = 200  # records by which wrappers are told
WRAPPED_SHARE_MIN = 0.9
WRAPPERS_MAX = 3

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Observed:
    """What a sample's messages hold. Paths below `explode` are of its readings."""

    seen: Mapping[Path, Seen]
    messages: int
    readings: int
    largest_bytes: int
    unwrap: tuple[Wrapper, ...]
    explode: Path | None
    some_empty: bool
    latest: float

    def of_reading(self, path: Path) -> bool:
        depth = len(self.explode or ())
        return self.explode is not None and len(path) > depth and path[:depth] == self.explode


def observed(sample: Sample, latest: float) -> Observed:
    """Every path in a sample, in which no time is beyond `latest`, in seconds since 1970.

    Raises `SampleError` where it holds no JSON object.
    """
    unwrap = _wrappers(sample.bodies[:LOOKED_AT_MAX])
    bodies = [body for record in sample.bodies for body in _opened(record, unwrap)]
    messages = list(_objects(bodies))
    if not messages:
        raise SampleError(
            f"{sample.file} holds no JSON object in {len(sample.bodies):,} {sample.unit}s, such as "
            f"{sample.where(0)}: {toml_text.shown(sample.bodies[0].decode(errors='replace'))}"
        )
    seen = observe(messages)
    explode = _list_of_readings(seen, len(messages))
    readings: list[Message] = []
    if explode is not None:
        readings = [one for message in messages for one in _at(message, explode)]
        seen |= {(*explode, *path): one for path, one in _renamed(observe(readings), explode)}
    return Observed(
        seen=seen,
        messages=len(messages),
        readings=len(readings),
        largest_bytes=max(map(len, bodies)),
        unwrap=unwrap,
        explode=explode,
        some_empty=explode is not None and bool(seen[explode].empty_lists),
        latest=latest,
    )


def _wrappers(bodies: Sequence[bytes]) -> tuple[Wrapper, ...]:
    """Which wrappers nearly all of these are in, from the outside in."""
    found: tuple[Wrapper, ...] = ()
    while len(found) < WRAPPERS_MAX:
        before = [_opened(body, found) for body in bodies]
        for name in get_args(Wrapper):
            after = [_opened(body, (*found, name)) for body in bodies]
            changed = sum(one != other for one, other in zip(before, after, strict=True))
            if changed >= WRAPPED_SHARE_MIN * len(bodies):
                found = (*found, name)
                break
        else:
            break
    return found


def _opened(body: bytes, unwrap: tuple[Wrapper, ...]) -> list[bytes]:
    return open_record(body, None, None, "kinesis", Envelope(unwrap=unwrap), 1).bodies


def _objects(bodies: Sequence[bytes]) -> Iterator[Message]:
    for body in bodies:
        try:
            message = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            continue
        if isinstance(message, dict):
            yield message


def _list_of_readings(seen: Mapping[Path, Seen], messages: int) -> Path | None:
    """The list of objects that every message has; of several, that with the most elements.

    Where messages hold numbers beside it, it must be named like readings: what a gateway adds is
    often a list too.
    """
    numbers = any(
        one.kinds["int"] + one.kinds["float"] and not named_like_time(words(path[-1:]))
        for path, one in seen.items()
    )
    lists = [
        one
        for path, one in seen.items()
        if one.kinds["list"] == messages
        and one.lists_of_objects
        and one.lists_of_objects + one.empty_lists == messages
        and len(path) <= PATH_KEYS_MAX
        and all(KEY.fullmatch(key) for key in path)
        and (not numbers or named_like_readings(words(path[-1:])))
    ]
    return max(lists, key=lambda one: one.elements).path if lists else None


def _at(message: Message, path: Path) -> list[Message]:
    value: Any = message
    for key in path:
        value = value[key]
    return value  # type: ignore[no-any-return]


def _renamed(seen: Mapping[Path, Seen], explode: Path) -> Iterator[tuple[Path, Seen]]:
    """The same, each under its whole path."""
    for path, one in seen.items():
        one.path = (*explode, *path)
        yield path, one
