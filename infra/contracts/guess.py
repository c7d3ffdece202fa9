"""What a sample's paths could be in a contract: type, limits, unit, each with its why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.contracts import toml_text
from infra.contracts.naming import Path, names, words
from infra.contracts.observed import Kind, Seen, is_time
from infra.contracts.opened import Observed
from infra.contracts.quantities import NONE, Quantity, named_like_time, quantity
from transform.contract_fields import FIELDS_MAX
from transform.contract_paths import KEY, PATH_KEYS_MAX
from transform.field_types import FieldType, Value
from transform.timestamps import TimestampFormat

REQUIRED_RECORDS_MIN = 20  # below, that a field was always there says little
FEW_VALUES_MAX = 12  # that are shown as what could be allowed
REPEATED_MIN = 5  # times, on average, that a value of a short list comes up
EARLIEST_SECONDS, LATEST_SECONDS = 1e9, 4.1e9  # the years 2001 to 2099
EPOCHS: Mapping[TimestampFormat, float] = {"epoch_seconds": 1, "epoch_millis": 1e3}
FINER = {"microseconds": (1e15, 4.1e15), "nanoseconds": (1e18, 4.1e18)}


@dataclass
class Guess:
    """A field as it could stand in a contract, and why.

    `total` is how many messages, or readings, there were that could have had it.
    """

    name: str
    path: Path
    type: FieldType
    seen: Seen
    total: int
    of_reading: bool = False
    expression: str = ""
    format: TimestampFormat | None = None
    required: bool = False
    minimum: Value | None = None
    maximum: Value | None = None
    unit: str = ""
    why: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Left:
    """A path that no field can hold as it is; what it holds is kept in `_rescued`."""

    path: Path
    why: str


def guesses(sample: Observed) -> tuple[list[Guess], list[Left]]:
    """Fields for all that one type can hold, and what is left out."""
    left: dict[Path, Left] = {}
    usable: list[Path] = []
    for path, one in sample.seen.items():
        if path == sample.explode or any(path[:d] in left for d in range(1, len(path))):
            continue
        why = _unusable(one) or _mixed(one)
        if why:
            left[path] = Left(path, why)
        elif one.given and "object" not in one.kinds:
            usable.append(path)
    every = [_guess(name, path, sample) for path, name in names(usable).items()]
    kept = sorted(every, key=lambda guess: -guess.seen.given)[:FIELDS_MAX]
    names_kept = {guess.name for guess in kept}
    for guess in every:
        if guess.name not in names_kept:
            left[guess.path] = Left(guess.path, f"a contract holds {FIELDS_MAX} fields at most")
    return [guess for guess in every if guess.name in names_kept], list(left.values())


def _unusable(seen: Seen) -> str:
    """Why no path can lead there, if so."""
    key = seen.path[-1]
    if not key or not KEY.fullmatch(key):
        return "its key is empty, or holds quotes, \\ or control characters"
    if len(seen.path) > PATH_KEYS_MAX:
        return f"it lies more than {PATH_KEYS_MAX} keys deep"
    if seen.kinds["list"] == seen.given > 0:
        held = "objects" if seen.lists_of_objects else "values"
        return f"a list of {held}, in {seen.given:,} records"
    if seen.kinds["big_int"]:
        return f"integers of more than 64 bits, such as {toml_text.shown(seen.high)}"
    return ""


def _mixed(seen: Seen) -> str:
    """Why no one type holds what is there, if so."""
    kinds = {"float" if kind == "int" else kind for kind in seen.kinds}
    if len(kinds) <= 1:
        return ""
    told = ", ".join(f"{count:,} x {_WORDS[kind]}" for kind, count in seen.kinds.most_common())
    return f"no one type holds all of it: {told}"


def _type(seen: Seen, latest: float) -> tuple[FieldType, TimestampFormat | None, str]:
    """Type and format of a path of one kind, and why; no time is beyond `latest`, epoch seconds."""
    if seen.kinds["bool"]:
        return "bool", None, "true or false in all"
    if seen.kinds["string"]:
        return _text_type(seen, latest)
    form = (
        epoch_format(seen.low, seen.high, latest)
        if named_like_time(words(seen.path[-1:]))
        else None
    )
    if form:
        return "timestamp", form, f"named like a time, and all are {form} since 2001"
    if seen.kinds["float"]:
        return "float64", None, f"numbers, {seen.low:.6g} to {seen.high:.6g}"
    why = f"whole numbers, {seen.low} to {seen.high}"
    for unit, (low, high) in FINER.items():
        if named_like_time(words(seen.path[-1:])) and within(seen.low, seen.high, low, high):
            why += f"; they look like epoch {unit}, which no timestamp format reads"
    return "int64", None, why


def _text_type(seen: Seen, latest: float) -> tuple[FieldType, TimestampFormat | None, str]:
    count = seen.kinds["string"]
    if seen.iso == count:
        return "timestamp", "iso8601", "ISO-8601 with an offset in all"
    if seen.digits == count and named_like_time(words(seen.path[-1:])):
        numbers = [float(text) for text in seen.values]
        form = epoch_format(min(numbers), max(numbers), latest)
        if form:
            return "timestamp", form, f"named like a time, and all are {form} written as text"
    some = next(iter(seen.values), "")
    if is_time(f"{some}Z", "iso8601"):
        return "string", None, "text; it looks like a time, but has no offset, so no moment is sure"
    return "string", None, "text in all"


def _guess(name: str, path: Path, sample: Observed) -> Guess:
    seen, of_reading = sample.seen[path], sample.of_reading(path)
    kind, form, why = _type(seen, sample.latest)
    total = sample.readings if of_reading else sample.messages
    own = path[len(sample.explode or ()) :] if of_reading else path
    guess = Guess(name, own, kind, seen, total, of_reading=of_reading, format=form)
    guess.why.append(f"{_capital(why)}.")
    what = "readings" if of_reading else "records"
    if seen.given == total and total >= REQUIRED_RECORDS_MIN:
        guess.required = True
        guess.why.append(f"Required: in each of the {total:,} {what}.")
    elif seen.given == total:
        guess.why.append(f"In all of the {what}, but {total} are too few to require it.")
    else:
        guess.why.append(f"In {seen.given:,} of {total:,} {what}.")
    if kind in ("int64", "float64"):
        _measure(guess, quantity(words(seen.path)))
    if kind == "string":
        guess.why.append(_few(seen))
    return guess


def _measure(guess: Guess, said: Quantity) -> None:
    """Unit and limits by the name, where the sample does not speak against them."""
    low, high = guess.seen.low, guess.seen.high
    if said is NONE or low is None or high is None:
        return
    below, above = (
        said.low is not None and low < said.low,
        said.high is not None and high > said.high,
    )
    if below or above:
        guess.why.append(f"No limits, though it is named like {said.why}: the sample is beyond.")
        return
    if said.high == 100 and high <= 1 and guess.seen.given > 1:  # noqa: PLR2004  per cent
        guess.why.append("Named like a percentage, but never above 1: perhaps a fraction.")
        return
    guess.unit = said.unit
    if said.unit == "degF":
        guess.why.append('To have it in Celsius: unit = "Cel" and from_unit = "degF".')
    guess.minimum, guess.maximum = _own(guess, said.low), _own(guess, said.high)
    limits = f", limits: {said.why}" if said.why and (said.low, said.high) != (None, None) else ""
    guess.why.append(f"Unit by its name{limits}.")


def _own(guess: Guess, limit: float | None) -> Value | None:
    """A limit as people write it; for an integer a whole one, downwards."""
    if limit is None:
        return None
    return int(limit // 1) if guess.type == "int64" or limit == int(limit) else limit


def _few(seen: Seen) -> str:
    """What could be allowed, where only few values come up again and again."""
    few = 1 < len(seen.values) <= FEW_VALUES_MAX
    if not few or seen.given < REPEATED_MIN * len(seen.values) or seen.longest > 40:  # noqa: PLR2004
        return ""
    listed = ", ".join(toml_text.text(text) for text in sorted(seen.values))
    return f"Only these so far, if no other may come: allowed = [{listed}]"


def epoch_format(low: Any, high: Any, latest: float = LATEST_SECONDS) -> TimestampFormat | None:
    """As which epoch numbers are times from 2001 to `latest`, if as any."""
    for form, scale in EPOCHS.items():
        if within(low, high, EARLIEST_SECONDS * scale, latest * scale):
            return form
    return None


def within(low: Any, high: Any, least: float, most: float) -> bool:
    return low is not None and least <= low and high <= most


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


_WORDS: Mapping[Kind, str] = {
    "string": "text",
    "int": "whole number",
    "big_int": "number of more than 64 bits",
    "float": "number",
    "bool": "true or false",
    "object": "object",
    "list": "list",
}
