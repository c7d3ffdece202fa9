"""Which of a sample's fields say who measured, when, and what makes two records the same.

A device that is a number, and a time that no format reads, are made into what a contract takes by
an expression: the candidate is then a field of its own beside the one it is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from infra.contracts.guess import FINER, Guess, epoch_format, within
from infra.contracts.naming import words
from transform.contract import READING
from transform.exact_reader import DEVICE_ID_MAX_BYTES

SHARE_MIN = 0.9  # of the records that have it; those without will be rejected
READING_PARTS_MAX = 5  # fields of a reading that are tried as what tells it from others
DEVICE_NAMES = (  # the best first; each is a name's words, or the last of them
    *("device_id", "device_eui", "dev_eui", "deviceid", "thing_name", "thing", "sensor_id"),
    *("client_id", "gateway_id", "node_id", "station_id", "machine_id", "vehicle_id", "asset_id"),
    *("mac", "imei", "serial", "serial_number", "device", "sensor", "node", "station", "machine"),
    *("vehicle", "asset", "gateway", "host", "hostname", "tag", "source", "id", "name"),
)
MESSAGE_WORDS = {"message", "msg", "event", "request", "trace", "correlation", "uuid", "record"}
TIME_NAMES = (
    *("event_time", "measured_at", "observed_at", "recorded_at", "taken_at", "sampled_at"),
    *("timestamp", "ts", "time", "datetime", "date", "at", "when", "t", "created_at"),
)
LATER_WORDS = {"received", "ingested", "processed", "arrived", "updated", "sent", "stored"}
SEQUENCE_NAMES = (
    *("sequence", "seq", "sequence_number", "seq_no", "seqno", "counter", "f_cnt", "frame_count"),
    *("message_id", "msg_id", "event_id", "record_id", "uuid", "message_uuid"),
)


def devices(guesses: Sequence[Guess]) -> list[Guess]:
    """Fields that could name the device, the best first: text in (nearly) every record."""
    often = [guess for guess in guesses if _often(guess) and not _one_of_each(guess)]
    fitting = [
        guess
        for guess in often
        if guess.type == "string" and guess.seen.longest <= DEVICE_ID_MAX_BYTES
    ]
    if not fitting:
        numbers = [
            g for g in often if g.type == "int64" and _place(g, DEVICE_NAMES) < len(DEVICE_NAMES)
        ]
        fitting = [_made(g, "device", f"string({g.name})", guesses) for g in numbers]
    return sorted(fitting, key=lambda guess: _rank(guess, DEVICE_NAMES, MESSAGE_WORDS))


def event_times(guesses: Sequence[Guess]) -> list[Guess]:
    """Fields that could say when, the best first: a timestamp in (nearly) every record.

    Without any, a number that would be an epoch of this century, whatever it is called.
    """
    often = [guess for guess in guesses if _often(guess)]
    fitting = [guess for guess in often if guess.type == "timestamp"]
    numbers = [guess for guess in often if guess.type in ("int64", "float64")]
    fitting = fitting or [_as_time(g) for g in numbers if epoch_format(g.seen.low, g.seen.high)]
    fitting = fitting or list(_finer(numbers, guesses))
    return sorted(fitting, key=lambda guess: _rank(guess, TIME_NAMES, LATER_WORDS))


def sequences(guesses: Sequence[Guess]) -> list[Guess]:
    """Fields that could tell two records of one device and moment apart, the best first."""
    whole = [g for g in guesses if g.type in ("int64", "string") and g.seen.given == g.total]
    named = [guess for guess in whole if _place(guess, SEQUENCE_NAMES) < len(SEQUENCE_NAMES)]
    return sorted(named, key=lambda guess: _place(guess, SEQUENCE_NAMES))


def parts_of_readings(guesses: Sequence[Guess]) -> list[Guess]:
    """Fields that could tell the readings of one message apart, those with few values first."""
    whole = [g for g in guesses if g.type in ("int64", "string") and g.seen.given == g.total]
    parts = [guess for guess in whole if guess.of_reading]
    return sorted(parts, key=lambda g: (g.type != "string", len(g.seen.values)))[:READING_PARTS_MAX]


def place_of_reading(event_time: Guess, guesses: Sequence[Guess]) -> Guess:
    """A field made of the reading's place in its list, which tells it from all others."""
    made = _made(event_time, "reading", READING, guesses)
    return replace(made, type="int64", why=["The reading's place in its list."])


def record_id(
    base: Sequence[str],
    sequences: Sequence[str],
    others: Sequence[str],
    conflicts: Callable[[Sequence[str]], int],
) -> tuple[list[str], list[str]]:
    """The fields of a record's id, none for identity by position, and why.

    A sequence is part of it, needed by this sample or not; `others` only where they are.
    `conflicts` counts ids that stand for different records, were these fields the id.
    """
    ids = [[*base, name] for name in sequences] + [list(base)] + [[*base, name] for name in others]
    counted = []
    for fields in ids:
        count = conflicts(fields)
        if not count:
            return fields, [f"No two different records of the sample share {_and(fields)}."]
        counted.append(f"{_and(fields)} stand for different records {count:,} times")
    return [], [f"Each record is its own, because in the sample {'; '.join(counted)}."]


def _often(guess: Guess) -> bool:
    return guess.seen.given - guess.seen.empty >= SHARE_MIN * guess.total


def _one_of_each(guess: Guess) -> bool:
    """Whether every record has another value, as a message's own id has."""
    if guess.total == 1 or guess.seen.many or len(guess.seen.values) < guess.total:
        return False
    unknown = _place(guess, DEVICE_NAMES) == len(DEVICE_NAMES)
    return unknown or bool(_own_words(guess) & MESSAGE_WORDS)


def _as_time(guess: Guess) -> Guess:
    form = epoch_format(guess.seen.low, guess.seen.high)
    why = f"Numbers that would be {form} since 2001, and nothing else could be."
    return replace(guess, type="timestamp", format=form, why=[why])


def _finer(numbers: Sequence[Guess], guesses: Sequence[Guess]) -> Iterator[Guess]:
    """Epochs of micro- or nanoseconds, as seconds."""
    for guess in numbers:
        for unit, (low, high) in FINER.items():
            if within(guess.seen.low, guess.seen.high, low, high):
                expression = f"timestamp({guess.name} / {low / 1e9:.0f})"
                made = _made(guess, "event_time", expression, guesses)
                why = f"Made of epoch {unit}, to about a microsecond: no format reads them."
                yield replace(made, type="timestamp", why=[why])


def _made(guess: Guess, name: str, expression: str, guesses: Sequence[Guess]) -> Guess:
    """A field made of another one."""
    taken = {one.name for one in guesses}
    return Guess(
        name if name not in taken else f"{name}_made",
        path=(),
        type="string",
        seen=guess.seen,
        total=guess.total,
        expression=expression,
        why=[f"Made of {guess.name}, which is a number: a device's id is text."],
    )


def _rank(
    guess: Guess, names: Sequence[str], against: set[str]
) -> tuple[bool, bool, int, int, int]:
    """The smaller the better: in all, nothing against it, well named, high up, few values."""
    return (
        guess.seen.given - guess.seen.empty < guess.total,
        bool(_own_words(guess) & against),
        _place(guess, names),
        len(guess.seen.path),
        len(guess.seen.values),
    )


def _place(guess: Guess, names: Sequence[str]) -> int:
    """Where in a list of names this field's own stands: its key, or that with the one above."""
    own = "_".join(words(guess.seen.path[-1:]))
    longer = "_".join(words(guess.seen.path[-2:]))
    return min(names.index(one) if one in names else len(names) for one in (own, longer))


def _own_words(guess: Guess) -> set[str]:
    return set(words(guess.seen.path[-1:]))


def _and(fields: Sequence[str]) -> str:
    return " and ".join((", ".join(fields[:-1]), fields[-1]))
