"""A draft's text: the contract file, with what speaks for each guess beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from infra.contracts import toml_text
from infra.contracts.guess import Guess, Left
from infra.contracts.opened import Observed
from infra.contracts.samples import Sample
from transform.contract_file import BODY_MAX_BYTES

BODY_ROOM = 4  # times the largest record of the sample
BODY_LEAST_BYTES = 1_024
KEYS_SHOWN = 8  # of a path


@dataclass(frozen=True)
class Parts:
    """What a draft is written from."""

    name: str
    sample: Sample
    observed: Observed
    fields: list[Guess]
    left: list[Left]
    device: Guess
    event_time: Guess

    @property
    def identified(self) -> tuple[str, str]:
        return self.device.name, self.event_time.name


def text(parts: Parts, record_id: Sequence[str], why: Sequence[str]) -> str:
    """The contract file; `why` speaks for the record id."""
    return "\n".join(_lines(parts, record_id, why)) + "\n"


def _lines(parts: Parts, record_id: Sequence[str], why: Sequence[str]) -> Iterator[str]:
    file = PurePath(parts.sample.file).name
    yield from toml_text.comment(
        f"Drafted from {parts.observed.messages:,} records of {file}. Each guess is explained: "
        "correct what you know better, then run `millrace contract check` with the sample."
    )
    yield from ("", f"name = {toml_text.value(parts.name)}", "version = 1", "", "[identity]")
    for key, guess in (("device", parts.device), ("event_time", parts.event_time)):
        yield from toml_text.comment(_identity_why(key, guess))
        yield f"{key} = {toml_text.value(guess.name)}"
    yield from toml_text.comment(*why)
    if record_id:
        yield f"record_id = {toml_text.value(list(record_id))}"
    largest = parts.observed.largest_bytes
    yield from ("", "[limits]")
    yield from toml_text.comment(f"The largest record has {largest:,} bytes; this leaves room.")
    yield f"max_body_bytes = {_room(largest)}"
    yield from _packing(parts)
    for guess in parts.fields:
        yield ""
        yield from field_lines(guess, identity=guess.name in parts.identified)
    yield from _left_lines(parts.left)


def _packing(parts: Parts) -> Iterator[str]:
    """How messages are wrapped, and which list in them becomes rows: one that holds a field."""
    observed = parts.observed
    if observed.unwrap:
        yield ""
        yield from toml_text.comment("Nearly all records of the sample are wrapped like this.")
        yield from ("[envelope]", f"unwrap = {toml_text.value(list(observed.unwrap))}")
    inside = any(observed.of_reading(guess.seen.path) for guess in parts.fields)
    if observed.explode is not None and inside:
        yield ""
        yield from toml_text.comment(
            f"Every message has this list of objects, {observed.readings:,} in all: each becomes a "
            "row. Fields with `of` are in it."
        )
        yield from ("[explode]", f"path = {toml_text.path(observed.explode)}")
        if observed.some_empty:
            yield 'empty = "drop"  # some are, in the sample'


def _identity_why(key: str, guess: Guess) -> str:
    values = f"{len(guess.seen.values):,}{' or more' * guess.seen.many} values"
    where = f"{guess.seen.given:,} records"
    if guess.seen.given == guess.total:
        where = "every reading" if guess.of_reading else "every record"
    what = "names the device" if key == "device" else "says when"
    return f"{'.'.join(guess.seen.path)} {what}: it is in {where}, with {values}."


def _room(largest: int) -> int:
    """A power of two with room above the largest record."""
    return min(max(1 << (BODY_ROOM * largest - 1).bit_length(), BODY_LEAST_BYTES), BODY_MAX_BYTES)


def field_lines(guess: Guess, *, identity: bool = False) -> Iterator[str]:
    """A `[[field]]` table, what speaks for it above; an identity field is required anyway."""
    yield from toml_text.comment(*(guess.why[:1] if identity else guess.why))
    yield "[[field]]"
    yield f"name = {toml_text.value(guess.name)}"
    if not guess.expression and guess.path != (guess.name,):
        yield f"path = {toml_text.path(guess.path)}"
    yield f"type = {toml_text.value(guess.type)}"
    given = {
        "format": guess.format,
        "expr": guess.expression or None,
        "of": "reading" if guess.of_reading else None,
        "required": (guess.required and not identity) or None,
        "min": guess.minimum,
        "max": guess.maximum,
        "unit": guess.unit or None,
    }
    yield from (f"{k} = {toml_text.value(v)}" for k, v in given.items() if v is not None)


def _left_lines(left: Sequence[Left]) -> Iterator[str]:
    """What no field holds, as comments."""
    if left:
        yield ""
        yield from toml_text.comment("No field holds these; they are kept, as JSON, in _rescued:")
    for one in left:
        keys = ".".join(toml_text.shown(key).strip('"') for key in one.path[:KEYS_SHOWN])
        yield from toml_text.comment(f"- {keys}: {one.why}.")
