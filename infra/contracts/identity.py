"""Which of a sample's fields say who measured, when, and what makes two records the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from infra.contracts.guess import Guess, epoch_format
from infra.contracts.naming import words
from transform.exact_reader import DEVICE_ID_MAX_BYTES

SHARE_MIN = 0.9  # of the records that have it; those without will be rejected
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


def devices(guesses: Sequence[Guess], records: int) -> list[Guess]:
    """Fields that could name the device, the best first: text in (nearly) every record."""
    fitting = [
        guess
        for guess in guesses
        if guess.type == "string"
        and guess.seen.given - guess.seen.empty >= SHARE_MIN * records
        and guess.seen.longest <= DEVICE_ID_MAX_BYTES
        and not _one_of_each(guess, records)
    ]
    return sorted(fitting, key=lambda guess: _rank(guess, records, DEVICE_NAMES, MESSAGE_WORDS))


def event_times(guesses: Sequence[Guess], records: int) -> list[Guess]:
    """Fields that could say when, the best first: a timestamp in (nearly) every record.

    Without any, a number that would be an epoch of this century, whatever it is called.
    """
    often = [guess for guess in guesses if guess.seen.given >= SHARE_MIN * records]
    fitting = [guess for guess in often if guess.type == "timestamp"]
    if not fitting:
        fitting = [_as_time(guess) for guess in often if _could_be_time(guess)]
    return sorted(fitting, key=lambda guess: _rank(guess, records, TIME_NAMES, LATER_WORDS))


def sequences(guesses: Sequence[Guess], records: int) -> list[Guess]:
    """Fields that could tell two records of one device and moment apart, the best first."""
    fitting = [
        guess
        for guess in guesses
        if guess.type in ("int64", "string")
        and guess.seen.given == records
        and _place(guess, SEQUENCE_NAMES) < len(SEQUENCE_NAMES)
    ]
    return sorted(fitting, key=lambda guess: _place(guess, SEQUENCE_NAMES))


def record_id(
    device: Guess,
    event_time: Guess,
    others: Sequence[Guess],
    conflicts: Callable[[Sequence[str]], int],
) -> tuple[list[str], list[str]]:
    """The fields of a record's id, none for identity by position, and why.

    `conflicts` counts ids that stand for different records, were these fields the id.
    """
    base = [device.name, event_time.name]
    ids = [base, *([*base, other.name] for other in others)]
    if others:  # a sequence is there to be part of it, needed by this sample or not
        ids = [*ids[1:], base]
    counted = []
    for fields in ids:
        count = conflicts(fields)
        if not count:
            return fields, [f"No two different records of the sample share {_and(fields)}."]
        counted.append(f"{_and(fields)} stand for different records {count:,} times")
    return [], [f"Each record is its own, because in the sample {'; '.join(counted)}."]


def _one_of_each(guess: Guess, records: int) -> bool:
    """Whether every record has another value, as a message's own id has."""
    return (
        records > 1
        and not guess.seen.many
        and len(guess.seen.values) == records
        and (
            _place(guess, DEVICE_NAMES) == len(DEVICE_NAMES)
            or bool(_own_words(guess) & MESSAGE_WORDS)
        )
    )


def _could_be_time(guess: Guess) -> bool:
    number = guess.type in ("int64", "float64")
    return number and epoch_format(guess.seen.low, guess.seen.high) is not None


def _as_time(guess: Guess) -> Guess:
    form = epoch_format(guess.seen.low, guess.seen.high)
    why = f"Numbers that would be {form} of the years 2001 to 2100, and nothing else could be."
    return replace(guess, type="timestamp", format=form, why=[why])


def _rank(
    guess: Guess, records: int, names: Sequence[str], against: set[str]
) -> tuple[bool, bool, int, int, int]:
    """The smaller the better: in all, nothing against it, well named, high up, few values."""
    return (
        guess.seen.given - guess.seen.empty < records,
        bool(_own_words(guess) & against),
        _place(guess, names),
        len(guess.path),
        len(guess.seen.values),
    )


def _place(guess: Guess, names: Sequence[str]) -> int:
    """Where in a list of names this field's own stands: its key, or that with the one above."""
    own = "_".join(words(guess.path[-1:]))
    longer = "_".join(words(guess.path[-2:]))
    return min(names.index(one) if one in names else len(names) for one in (own, longer))


def _own_words(guess: Guess) -> set[str]:
    return set(words(guess.path[-1:]))


def _and(fields: Sequence[str]) -> str:
    return " and ".join((", ".join(fields[:-1]), fields[-1]))
