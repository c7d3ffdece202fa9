"""A contract's draft from a sample, proven on it.

A field that would reject a record of the sample is left out, and that is said beside the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from infra.contracts import draft_text, identity
from infra.contracts.draft_text import Parts
from infra.contracts.guess import Guess, Left, guesses
from infra.contracts.naming import words
from infra.contracts.opened import Observed, observed
from infra.contracts.samples import Sample, SampleError
from infra.contracts.trial import Trial, tried
from transform.contract import Contract
from transform.contract_file import parse_contract
from transform.timestamps import LATEST

CONTRACT_NAME_MAX_CHARACTERS = 40
PATHS_SHOWN = 10
MICROS = 1_000_000
AHEAD_SECONDS = 86_400  # of now: numbers beyond are no times, but counters
MUST = {
    "device": "text, never empty, in every record, and not another in each",
    "event time": "a time in every record: ISO-8601 with an offset, or epoch seconds or millis",
}


@dataclass(frozen=True)
class Draft:
    """A contract file's text, what the sample becomes under it, and what to look at first."""

    text: str
    contract: Contract
    trial: Trial
    warnings: tuple[str, ...]


def draft(sample: Sample, name: str, now: int) -> Draft:
    """A contract that takes the sample; `now`, in microseconds, is when its records arrive.

    Raises `SampleError` where no contract can be made: no record, no device, no time.
    """
    found = observed(sample, now / MICROS + AHEAD_SECONDS)
    fields, left = guesses(found)
    device = _first(identity.devices(fields), "device", found)
    event_time = _first(identity.event_times(fields), "event time", found)
    parts = Parts(name, sample, found, _with(fields, device, event_time), left, device, event_time)
    while True:
        made = _made(parts, now)
        blamed = {rejected.field: rejected.detail for rejected in made.trial.rejected}
        gone = [g for g in parts.fields if g.name in blamed and g.name not in parts.identified]
        if not gone:
            return made
        why = [Left(g.path, f"as {g.type} it rejects records: {blamed[g.name]}") for g in gone]
        kept = [guess for guess in parts.fields if guess not in gone]
        parts = replace(parts, fields=kept, left=[*parts.left, *why])


def contract_name(file: str) -> str:
    """A contract's name from a file's: `Fleet readings.ndjson.gz` is `fleet-readings`."""
    stem = file.replace("\\", "/").rpartition("/")[2].partition(".")[0]
    name = "-".join(words((stem,)))
    if not name[:1].isalpha():
        name = f"fleet-{name}"
    return name[:CONTRACT_NAME_MAX_CHARACTERS].rstrip("-")


def _first(candidates: Sequence[Guess], role: str, found: Observed) -> Guess:
    if candidates:
        return candidates[0]
    there = ", ".join(
        f"{'.'.join(path)} ({'/'.join(one.kinds) or 'null'} in {one.given:,})"
        for path, one in list(found.seen.items())[:PATHS_SHOWN]
    )
    raise SampleError(
        f"no field can be the {role}: it must be {MUST[role]}; the sample has {there}. Have the "
        "producer send one, or write the contract by hand"
    )


def _with(fields: Sequence[Guess], device: Guess, event_time: Guess) -> list[Guess]:
    """Device and time first; one that is made, behind all that it is made of."""
    identified = (device, event_time)
    plain = [guess for guess in identified if not guess.expression]
    names = [guess.name for guess in plain]
    rest = [guess for guess in fields if guess.name not in names]
    return [*plain, *rest, *(guess for guess in identified if guess.expression)]


def _made(parts: Parts, now: int) -> Draft:
    """The draft of these parts, with the first record id that tells the records apart."""
    base = [parts.device.name, parts.event_time.name]
    sequences = [guess.name for guess in identity.sequences(parts.fields)]
    others = [guess.name for guess in identity.parts_of_readings(parts.fields)]
    fields, why = identity.record_id(base, sequences, others, lambda ids: _conflicts(parts, ids))
    if not fields and parts.observed.explode:
        place = identity.place_of_reading(parts.event_time, parts.fields)
        placed = replace(parts, fields=[*parts.fields, place])
        found, reason = identity.record_id(
            base, [], [place.name], lambda ids: _conflicts(placed, ids)
        )
        if found:
            parts, fields, why = placed, found, reason
    text = draft_text.text(parts, fields, why)
    contract = parse_contract(text.encode(), parts.name)
    trial = tried(contract, parts.sample, now)
    return Draft(text, contract, trial, tuple(_warnings(parts, trial, fields, why)))


def _conflicts(parts: Parts, record_id: Sequence[str]) -> int:
    """How often these fields stand for different records; all arrive so late that none is early."""
    text = draft_text.text(parts, record_id, [])
    return tried(parse_contract(text.encode(), parts.name), parts.sample, LATEST).conflicts


def _warnings(parts: Parts, trial: Trial, fields: Sequence[str], why: list[str]) -> Iterator[str]:
    if not fields:
        yield f"no record id: {why[0]}"
    if trial.repeats:
        yield f"{trial.repeats:,} records of the sample are repeats of others, byte for byte"
    for guess in (parts.device, parts.event_time):
        if guess.seen.given < guess.total:
            yield f"{guess.name} is not in all records; those without are rejected"
    for rejected in trial.rejected:
        about = f" ({rejected.field})" if rejected.field else ""
        yield (
            f"{rejected.count:,} rejected: {rejected.reason}{about}, such as {rejected.where}: "
            f"{rejected.detail}"
        )
