"""What a contract makes of rows once they are read: columns in, columns and a fate for each out.

    convert → look up → derive → judge what was made → identity → filter → hide

Every step is a handful of Arrow kernels over all rows; a row that fails is named, with its reason,
and the others go on. The first reason stands, and what is rejected is dropped by no rule.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from transform import exact_reader
from transform.columns import least
from transform.contract import ARRIVAL, READING, Contract, Field, Filter, Lookup
from transform.field_types import ARROW_TYPES
from transform.lookups import KEY
from transform.records import UTC_MICROS, Reason, Rejection
from transform.tables import SKEW
from transform.timestamps import EARLIEST, LATEST

MICROS = 1_000_000
HASH_HEX_DIGITS = 32  # of an HMAC-SHA256: 128 bits tell every device of a fleet apart
HIDDEN = exact_reader.HIDDEN


@dataclass
class Rows:
    """Rows that one plan read: the contract's fields as columns, and the fate of those that fell.

    `arrivals` are microseconds since 1970, `readings` the place of each row in its list.
    """

    columns: dict[str, pa.Array]
    arrivals: pa.Array
    readings: Sequence[int]
    rejected: dict[int, Rejection] = field(default_factory=dict)
    dropped: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.arrivals)

    def kept(self) -> list[int] | None:
        """The places of the rows that are left, None where all are."""
        if not self.rejected and not self.dropped:
            return None
        return [n for n in range(len(self)) if n not in self.rejected and n not in self.dropped]

    def reject(self, mask: pa.Array, why: Callable[[int], Rejection]) -> None:
        """Reject the rows of a mask, null among them being false; `why` is asked for each."""
        if pc.any(mask).as_py():
            for place in pc.indices_nonzero(pc.fill_null(mask, fill_value=False)).to_pylist():
                if place not in self.rejected:
                    self.rejected[place] = why(place)

    def drop(self, mask: pa.Array, rule: str) -> None:
        if pc.any(mask).as_py():
            for place in pc.indices_nonzero(pc.fill_null(mask, fill_value=False)).to_pylist():
                self.dropped.setdefault(place, rule)

    def named(self) -> dict[str, pa.Array]:
        """What expressions can name."""
        return {**self.columns, ARRIVAL: self.arrivals.cast(UTC_MICROS), READING: self._places}

    @cached_property
    def _places(self) -> pa.Array:
        return pa.array(self.readings, pa.int64())


Step = Callable[[Rows], None]


@dataclass(frozen=True)
class Verbs:
    """A contract's verbs, made ready. `fields` are those that these rows have.

    `hash_key` is what hashed values are keyed with. Build once per process.
    """

    steps: tuple[Step, ...]

    @classmethod
    def of(cls, contract: Contract, fields: tuple[Field, ...], hash_key: bytes) -> Verbs:
        steps: list[Step] = [_convert(f) for f in fields if f.conversion and not f.mixed]
        for lookup in contract.lookups:
            found = [f for f in fields if f.lookup == lookup.name]
            steps += [_look_up(lookup, found)] if found else []
        steps += [_derive(f) for f in fields if f.expression is not None]
        steps += [_judge(f) for f in fields if f.judged_late]
        if not contract.field(contract.device).in_message:
            steps.append(_device(contract))
        steps.append(_future(contract))
        steps += [_filter(rule) for rule in contract.filters]
        steps += [_hide(f, hash_key) for f in fields if f.privacy]
        return cls(tuple(steps))

    def apply(self, rows: Rows) -> Rows:
        """Rows with every column made, those that fell named; the columns keep all of them."""
        for step in self.steps:
            step(rows)
        for place in rows.rejected:
            rows.dropped.pop(place, None)
        return rows


def _convert(spec: Field) -> Step:
    conversion = spec.conversion

    def step(rows: Rows) -> None:
        if conversion is not None:
            rows.columns[spec.name] = _filled(conversion.of(rows.columns[spec.name]), spec)

    return step


def _look_up(lookup: Lookup, fields: list[Field]) -> Step:
    def step(rows: Rows) -> None:
        if lookup.table is None:
            raise ValueError(f"lookup {lookup.name!r} was not loaded")
        places = _places(rows.columns[lookup.on], lookup.table.column(KEY))
        for spec in fields:
            rows.columns[spec.name] = _filled(lookup.table.column(spec.name).take(places), spec)

    return step


def _places(values: pa.Array, keys: pa.ChunkedArray) -> pa.Array:
    """Where each value is among the keys, which are many: only those that occur are hashed."""
    near = pc.indices_nonzero(pc.is_in(keys, value_set=pc.unique(values)))
    return near.take(pc.index_in(values, value_set=keys.take(near)))


def _derive(spec: Field) -> Step:
    expression = spec.expression

    def step(rows: Rows) -> None:
        if expression is not None:
            rows.columns[spec.name] = _filled(expression.evaluate(rows.named(), len(rows)), spec)

    return step


def _filled(values: pa.Array | pa.ChunkedArray, spec: Field) -> pa.Array:
    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    whole = whole.cast(ARROW_TYPES[spec.type], safe=False)  # an int64 is the nearest float64
    if spec.default is None:
        return whole
    return pc.fill_null(whole, pa.scalar(spec.default, _plain(spec)).cast(whole.type))


def _plain(spec: Field) -> pa.DataType:
    return pa.int64() if spec.type == "timestamp" else ARROW_TYPES[spec.type]


def _judge(spec: Field) -> Step:
    """What the decoder could not judge: the value is not in the message as such."""
    source = "its lookup" if spec.lookup else "its expression" if spec.made else "its conversion"
    low, high = spec.minimum, spec.maximum

    def refused(reason: Reason, detail: str) -> Rejection:
        return Rejection("check", reason, detail[: exact_reader.DETAIL_MAX_CHARACTERS], spec.name)

    def step(rows: Rows) -> None:
        column = rows.columns[spec.name]

        def shown(place: int) -> str:
            return HIDDEN if spec.privacy else str(column[place].as_py())

        if spec.required and spec.made and column.null_count:
            rows.reject(pc.is_null(column), lambda _: refused("no_value", f"{source} has no value"))
        if spec.type == "float64":
            infinite = pc.invert(pc.is_finite(column))
            rows.reject(infinite, lambda _: refused("not_finite", f"{source} overflows a double"))
        if spec.type == "timestamp":
            micros = column.cast(pa.int64())
            outside = pc.or_(pc.less(micros, EARLIEST), pc.greater(micros, LATEST))
            years = f"{source} is not between the years 1 and 9999"
            rows.reject(outside, lambda _: refused("bad_timestamp", years))
        taken = f"the contract takes {low} to {high}"
        outside = [] if low is None else [pc.less(column, low)]
        outside += [] if high is None else [pc.greater(column, high)]
        for mask in outside:
            rows.reject(
                mask, lambda n: refused("out_of_range", f"{spec.name} is {shown(n)}; {taken}")
            )
        if spec.allowed is not None:
            known = pc.is_in(column, pa.array(spec.allowed, column.type))
            other = pc.and_(pc.invert(known), pc.is_valid(column))
            rows.reject(other, lambda n: refused("not_allowed", f"{spec.name} is {shown(n)}"))

    return step


def _device(contract: Contract) -> Step:
    """A device id that the decoder did not see can be empty, or longer than a DynamoDB key."""
    name = contract.device

    def step(rows: Rows) -> None:
        column = rows.columns[name]
        wrong = {
            device: found
            for device in pc.unique(column).to_pylist()
            if device is not None and (found := exact_reader.device_wrong(device)) is not None
        }
        if wrong:
            mask = pc.is_in(column, pa.array(wrong, column.type))
            rows.reject(mask, lambda n: Rejection("check", *wrong[column[n].as_py()], name))

    return step


def _future(contract: Contract) -> Step:
    """Event time by arrival, not by the clock: so it is judged the same on every attempt.

    From here on the rows have their skew.
    """
    name, seconds = contract.event_time, contract.max_future_seconds

    def step(rows: Rows) -> None:
        skew = pc.subtract(rows.arrivals, rows.columns[name].view(pa.int64()))
        rows.columns[SKEW] = skew
        soonest = least(skew)
        if soonest is None or soonest >= -seconds * MICROS:
            return

        def why(place: int) -> Rejection:
            return Rejection(
                "check",
                "future_time",
                f"event time is {-skew[place].as_py() / MICROS:.0f} s beyond arrival; "
                f"the contract takes {seconds} s",
                name,
            )

        rows.reject(pc.less(skew, -seconds * MICROS), why)

    return step


def _filter(rule: Filter) -> Step:
    """As SQL's WHERE: what is null is not true, so `keep` leaves it out and `drop` does not."""

    def step(rows: Rows) -> None:
        holds = pc.fill_null(rule.expression.evaluate(rows.named(), len(rows)), fill_value=False)
        rows.drop(holds if rule.drop else pc.invert(holds), rule.name)

    return step


def _hide(spec: Field, hash_key: bytes) -> Step:
    """In no table is what a contract redacts or hashes. Raw and quarantined bodies stay whole."""

    def step(rows: Rows) -> None:
        column = rows.columns[spec.name]
        if spec.privacy == "redact":
            rows.columns[spec.name] = pa.nulls(len(column), column.type)
            return
        coded = column.dictionary_encode()
        told = [None if v is None else hashed(v, hash_key) for v in coded.dictionary.to_pylist()]
        rows.columns[spec.name] = pa.array(told, pa.string()).take(coded.indices)

    return step


def hashed(value: str, key: bytes) -> str:
    """What stands for a hashed value: 32 hexadecimal digits of its HMAC-SHA256."""
    return hmac.new(key, value.encode(), hashlib.sha256).hexdigest()[:HASH_HEX_DIGITS]
