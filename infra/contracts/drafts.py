"""A contract's draft from a sample: the file's text, every guess explained beside it.

The draft is proven on the sample itself: a field that would reject a record of it is left out, and
that is said too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from infra.contracts import identity, toml_text
from infra.contracts.guess import Guess, Left, guesses
from infra.contracts.naming import Path, words
from infra.contracts.observed import Seen, observe
from infra.contracts.samples import Sample, SampleError
from infra.contracts.trial import Trial, tried
from transform.contract import Contract
from transform.contract_file import BODY_MAX_BYTES, parse_contract
from transform.timestamps import LATEST

BODY_ROOM = 4  # times the largest record of the sample
BODY_LEAST_BYTES = 1_024
CONTRACT_NAME_MAX_CHARACTERS = 40


@dataclass(frozen=True)
class Draft:
    """A contract file's text, what the sample becomes under it, and what to look at first."""

    text: str
    contract: Contract
    trial: Trial
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Parts:
    """What a draft is written from."""

    name: str
    sample: Sample
    records: int
    fields: list[Guess]
    left: list[Left]
    device: Guess
    event_time: Guess


def draft(sample: Sample, name: str, now: int) -> Draft:
    """A contract that takes the sample; `now`, in microseconds, is when its records arrive.

    Raises `SampleError` where no contract can be made: no record, no device, no time.
    """
    messages = _messages(sample)
    seen = observe(messages)
    fields, left = guesses(seen, len(messages))
    device = _first(identity.devices(fields, len(messages)), "device", seen)
    event_time = _first(identity.event_times(fields, len(messages)), "event time", seen)
    fields = [event_time if guess.path == event_time.path else guess for guess in fields]
    parts = _Parts(
        name, sample, len(messages), _ordered(fields, device, event_time), left, device, event_time
    )
    while True:
        made = _made(parts, now)
        blamed = {rejected.field: rejected for rejected in made.trial.rejected}
        kept = [g for g in parts.fields if g.name not in blamed or g in (device, event_time)]
        if len(kept) == len(parts.fields):
            return made
        gone = [
            Left(
                guess.path, f"as {guess.type} it would reject records: {blamed[guess.name].detail}"
            )
            for guess in parts.fields
            if guess not in kept
        ]
        parts = replace(parts, fields=kept, left=[*parts.left, *gone])


def contract_name(file: str) -> str:
    """A contract's name from a file's: `Fleet readings.ndjson.gz` is `fleet-readings`."""
    stem = file.replace("\\", "/").rpartition("/")[2].partition(".")[0]
    name = "-".join(words((stem,)))[:CONTRACT_NAME_MAX_CHARACTERS].rstrip("-")
    return (
        name if name[:1].isalpha() else f"fleet-{name}".rstrip("-")[:CONTRACT_NAME_MAX_CHARACTERS]
    )


def _messages(sample: Sample) -> list[dict[str, Any]]:
    """The JSON objects among the records. Raises `SampleError` where there is none."""
    found = []
    for body in sample.bodies:
        try:
            message = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            continue
        if isinstance(message, dict):
            found.append(message)
    if not found:
        raise SampleError(
            f"{sample.file} holds no JSON object in {len(sample.bodies):,} {sample.unit}s, such as "
            f"{sample.where(0)}: {toml_text.shown(sample.bodies[0].decode(errors='replace'))}"
        )
    return found


def _first(candidates: Sequence[Guess], role: str, seen: dict[Path, Seen]) -> Guess:
    if candidates:
        return candidates[0]
    must = {
        "device": "text, never empty, in every record, and not another in each",
        "event time": "a time in every record: ISO-8601 with an offset, or epoch seconds or millis",
    }[role]
    there = ", ".join(
        f"{'.'.join(path)} ({'/'.join(one.kinds) or 'null'} in {one.given:,})"
        for path, one in list(seen.items())[:10]
    )
    raise SampleError(
        f"no field can be the {role}: it must be {must}; the sample has {there}. Have the producer "
        "send one, or write the contract by hand"
    )


def _ordered(fields: list[Guess], device: Guess, event_time: Guess) -> list[Guess]:
    """Device and time first."""
    first = (device.path, event_time.path)
    return sorted(fields, key=lambda guess: first.index(guess.path) if guess.path in first else 2)


def _made(parts: _Parts, now: int) -> Draft:
    """The draft of these parts, with the first record id that tells the records apart."""

    def conflicts(fields: Sequence[str]) -> int:
        text = "\n".join(_lines(parts, fields, []))
        return tried(parse_contract(text.encode(), parts.name), parts.sample, LATEST).conflicts

    others = identity.sequences(parts.fields, parts.records)
    fields, why = identity.record_id(parts.device, parts.event_time, others, conflicts)
    text = "\n".join(_lines(parts, fields, why)) + "\n"
    contract = parse_contract(text.encode(), parts.name)
    trial = tried(contract, parts.sample, now)
    return Draft(text, contract, trial, tuple(_warnings(parts, trial, fields, why)))


def _warnings(parts: _Parts, trial: Trial, fields: Sequence[str], why: list[str]) -> Iterator[str]:
    if not fields:
        yield f"no record id: {why[0]}"
    if trial.repeats:
        yield f"{trial.repeats:,} records of the sample are repeats of others, byte for byte"
    for guess in (parts.device, parts.event_time):
        if guess.seen.given < parts.records:
            yield f"{guess.name} is not in all records; those without are rejected"
    for rejected in trial.rejected:
        about = f" ({rejected.field})" if rejected.field else ""
        yield (
            f"{rejected.count:,} rejected: {rejected.reason}{about}, such as {rejected.where}: "
            f"{rejected.detail}"
        )


def _lines(parts: _Parts, record_id: Sequence[str], why: list[str]) -> Iterator[str]:
    """The contract file."""
    device, event_time = parts.device.name, parts.event_time.name
    yield from toml_text.comment(
        f"Drafted from {parts.records:,} records of {parts.sample.file}. Each guess is explained: "
        "correct what you know better, then run `millrace contract check` with the sample."
    )
    yield ""
    yield f"name = {toml_text.value(parts.name)}"
    yield "version = 1"
    yield ""
    yield "[identity]"
    for key, guess in (("device", parts.device), ("event_time", parts.event_time)):
        yield from toml_text.comment(_identity_why(key, guess, parts.records))
        yield f"{key} = {toml_text.value(guess.name)}"
    yield from toml_text.comment(*why)
    if record_id:
        yield f"record_id = {toml_text.value(list(record_id))}"
    yield ""
    yield "[limits]"
    largest = max(map(len, parts.sample.bodies))
    yield from toml_text.comment(f"The largest record has {largest:,} bytes; this leaves room.")
    yield f"max_body_bytes = {_room(largest)}"
    for guess in parts.fields:
        yield ""
        yield from field_lines(guess, identity=guess.name in (device, event_time))
    yield from left_lines(parts.left)


def _identity_why(key: str, guess: Guess, records: int) -> str:
    values = f"{len(guess.seen.values):,}{' or more' * guess.seen.many} values"
    where = "every record" if guess.seen.given == records else f"{guess.seen.given:,} records"
    what = "names the device" if key == "device" else "says when"
    return f"{'.'.join(guess.path)} {what}: it is in {where}, with {values}."


def _room(largest: int) -> int:
    """A power of two with room above the largest record."""
    return min(max(1 << (BODY_ROOM * largest - 1).bit_length(), BODY_LEAST_BYTES), BODY_MAX_BYTES)


def field_lines(guess: Guess, *, identity: bool = False) -> Iterator[str]:
    """A `[[field]]` table, what speaks for it above; an identity field is required anyway."""
    yield from toml_text.comment(*(guess.why[:1] if identity else guess.why))
    yield "[[field]]"
    yield f"name = {toml_text.value(guess.name)}"
    if guess.path != (guess.name,):
        yield f"path = {toml_text.path(guess.path)}"
    yield f"type = {toml_text.value(guess.type)}"
    given = {
        "format": guess.format,
        "required": (guess.required and not identity) or None,
        "min": guess.minimum,
        "max": guess.maximum,
        "unit": guess.unit or None,
    }
    yield from (f"{k} = {toml_text.value(v)}" for k, v in given.items() if v is not None)


def left_lines(left: Sequence[Left]) -> Iterator[str]:
    """What no field holds, as comments."""
    if left:
        yield ""
        yield from toml_text.comment("No field holds these; they are kept, as JSON, in _rescued:")
    for one in left:
        keys = ".".join(toml_text.shown(key).strip('"') for key in one.path[:8])
        yield from toml_text.comment(f"- {keys}: {one.why}.")
