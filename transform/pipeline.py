"""Transform itself: a raw table to a Batch.

    open envelopes → choose a plan → decode → verbs, a few thousand rows at a time → columns

The verdict on a record depends on its body and attributes, its arrival and the generation, and on
nothing else: not on what else is in the Delivery.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice, repeat
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from transform import markers
from transform.columns import whole
from transform.contract import Contract
from transform.envelope import Envelope, Unopened, all_plain, open_record, plain
from transform.erased import RULE, erased_of, is_empty
from transform.gathered import Drops, Good, Numbers, Place, Rejects
from transform.plan import Plan, Unread
from transform.plans import Plans
from transform.records import DIGEST_BYTES, Batch, Counts, Generation, Rejection
from transform.tables import INDEX, Origin, counts_of, hot_mask, landing_schema, sampled
from transform.verbs import Verbs
from transform.wrapped import Attributes, attributes_of

CODE_VERSION = (0, 4, 0)
"""Of the rules in this package. Raise it when a verdict, an identity or a value can change."""

TYPE_RULE = "choose"  # by which a message of another type is dropped
EXPLODE_RULE = "explode"  # ... and one whose list is empty
SAMPLE_RULE = "sample"  # ... and what is not in the sample

ROWS_AT_ONCE = 512  # read before they are added to a part


@dataclass(frozen=True)
class Transform:
    """A contract made ready to be applied, under one reprocessing epoch. Build once per process.

    `older` are versions of it that records may still name. `hash_key` keys what it hashes.
    """

    contract: Contract
    epoch: int = 0
    older: tuple[Contract, ...] = ()
    hash_key: bytes = b""

    @cached_property
    def generation(self) -> Generation:
        """Which rules this is: epoch, contracts, code, key. The digest names them all."""
        major, minor, patch = CODE_VERSION
        named: tuple[object, ...] = (self.epoch, self.contract.name, self.contract.version)
        named += (self.contract.digest, CODE_VERSION)
        if self.older:
            named += (sorted(contract.digest for contract in self.older),)
        if self.hash_key:
            named += (hashlib.sha256(self.hash_key).hexdigest(),)
        return Generation(
            epoch=self.epoch,
            version=self.contract.version * 10**9 + major * 10**6 + minor * 10**3 + patch,
            digest=hashlib.blake2b(repr(named).encode(), digest_size=8).hexdigest(),
        )

    @cached_property
    def schema(self) -> pa.Schema:
        return landing_schema(self.contract, self.older)

    @cached_property
    def plans(self) -> Plans:
        return Plans.of(self.contract, self.older)

    @cached_property
    def certain(self) -> bool:
        """Whether a message with a good value in every field is sure to be delivered."""
        only = self.plans.only
        plain_fields = all(not field.judged_late for field in self.contract.fields)
        drops = self.contract.filters or self.contract.sample is not None
        return only is not None and only.simple and plain_fields and not drops

    @cached_property
    def verbs(self) -> dict[Plan, Verbs]:
        return {p: Verbs.of(p.contract, p.fields, self.hash_key) for p in self.plans.every()}

    def apply(self, raw: pa.Table, raw_key: str, first: int = 0) -> Batch:
        """Every source record of `raw` (`RAW_SCHEMA`) into rows, rejects and marks, by origin.

        `first` is the place of its first record in the raw object.
        """
        marked = markers.places(raw.column("_body"))
        if not marked:
            return self._apply(raw, raw_key, first)
        origin = Origin(raw, raw_key, first, self.generation, self.contract.name, None)
        return markers.among(marked, origin, self._apply)

    def _apply(self, raw: pa.Table, raw_key: str, first: int) -> Batch:
        """The same of records of which none is a marker."""
        judged = _Judged(self, raw)
        judged.run()
        own = self.generation, self.contract.name
        origin = Origin(raw, raw_key, first, *own, judged.indexes())
        parts, left_out = [], [judged.drops.table(origin)]
        for good in judged.good.values():
            if not good.parts:
                continue
            part = good.table(origin, self.schema)
            if good.contract.sample is not None:
                mask = sampled(part, good.contract.sample)
                left_out.append(origin.marks(part.filter(pc.invert(mask)), SAMPLE_RULE))
                part = part.filter(mask)
            parts.append(part)
        rows = _in_order(parts) if parts else self.schema.empty_table()
        rejects = judged.rejects.table(origin)
        if erased := erased_of(raw):
            places = (rejects.column(name).to_pylist() for name in ("_index", "_sub"))
            empty = pa.array(
                [is_empty(erased, *place) for place in zip(*places, strict=True)], pa.bool_()
            )
            left_out.append(origin.marks(rejects.filter(empty), RULE))
            rejects = rejects.filter(pc.invert(empty))
        drops = left_out[0] if len(left_out) == 1 else pa.concat_tables(left_out)
        return Batch(
            rows=rows,
            rejects=rejects,
            drops=drops,
            counts=counts_of(origin, rows, rejects, drops),
            hot_rows=hot_mask(rows, self.contract).true_count,
        )

    def unread(self, raw: pa.Table, raw_key: str, first: int, why: str) -> Batch:
        """Every source record of `raw` into quarantine, whole and unopened.

        No rules were applied, so the generation is the least of its epoch: any verdict wins over it
        by law 5.
        """
        rejects = Rejects()
        rejection = Rejection("open", "killer", why)
        groups = raw.column("_partition_key").to_pylist()
        for index, body in enumerate(raw.column("_body").to_pylist()):
            rejects.add(rejection, body, index, 0, 0, groups[index])
        rejects.fold()
        none = Generation(self.epoch, 0, "unread")
        origin = Origin(raw, raw_key, first, none, self.contract.name, None)
        return Batch(
            rows=self.schema.empty_table(),
            rejects=rejects.table(origin),
            drops=Drops().table(origin),
            counts=Counts(raw.num_rows, 0, 0, raw.num_rows),
            hot_rows=0,
        )


class _Judged:
    """One Delivery on its way: what its messages came to. Every failure is its own element's."""

    def __init__(self, rules: Transform, raw: pa.Table) -> None:
        self._rules = rules
        self._raw = raw
        arrivals = whole(raw.column("_arrival")).view(pa.int64())
        self.rejects, self.drops = Rejects(), Drops()
        self._plain = _all_plain(raw, rules.contract.envelope)
        self.good = {
            plan: Good(plan.contract, verbs, arrivals, self.rejects, self.drops)
            for plan, verbs in rules.verbs.items()
        }

    def run(self) -> None:
        only = self._rules.plans.only
        if only is None or not only.simple:
            self._by_plan()
        elif self._plain:
            self._plainly(only)
        else:
            self._simply(only)
        for gathered in self.everything():
            gathered.fold()

    def indexes(self) -> pa.ChunkedArray | None:
        """The places in `raw` of all that was found, None where each record came to one."""
        only = self._rules.plans.only
        if self._plain and only is not None and only.simple:
            return None
        parts = (part for of in self.everything() for part in of.parts)
        return pa.chunked_array([part[INDEX] for part in parts], pa.int32())

    def everything(self) -> list[Good | Rejects | Drops]:
        """What the elements came to. The last two are added to as rows are folded."""
        return [*self.good.values(), self.rejects, self.drops]

    def _plainly(self, plan: Plan) -> None:
        """The path of an ordinary record: its decoded values are its row, many at a time."""
        bodies, groups = (self._raw.column(n).to_pylist() for n in ("_body", "_partition_key"))
        zeros = (0,) * ROWS_AT_ONCE
        for start in range(0, len(bodies), ROWS_AT_ONCE):
            end = start + ROWS_AT_ONCE
            places = range(start, end), zeros, zeros, groups[start:end]
            self._some(plan, bodies[start:end], (), *places)

    def _simply(self, plan: Plan) -> None:
        """The same of messages that had to be found first."""
        messages = iter(self._messages())
        while some := list(islice(messages, ROWS_AT_ONCE)):
            bodies, _, *places, unopened = zip(*some, strict=True)
            self._some(plan, bodies, unopened if any(unopened) else (), *places)

    def _some(
        self,
        plan: Plan,
        bodies: Sequence[bytes],
        unopened: Sequence[Rejection | None],
        *places: Sequence[Any],
    ) -> None:
        """Some messages, of which `unopened` are none; what is odd is looked at by itself."""
        rows = plan.message.fast_each(bodies)
        if unopened:
            rows = [None if why else row for row, why in zip(rows, unopened, strict=True)]
        digest = hashlib.blake2b
        names = [digest(body, digest_size=DIGEST_BYTES).digest() for body in bodies]
        odd = [] if all(rows) else [n for n, row in enumerate(rows) if row is None]
        low = 0
        for n in (*odd, len(bodies)):
            own = (of[low:n] for of in places)
            self.good[plan].extend(rows[low:n], names[low:n], bodies[low:n], *own)
            if n < len(bodies):
                index, sub, child, group = (of[n] for of in places)
                why = unopened[n] if unopened else None
                self._oddly(plan, bodies[n], why, (index, sub, child, group))
            low = n + 1

    def _oddly(self, plan: Plan, body: bytes, unopened: Rejection | None, place: Place) -> None:
        """A message that the fast reader did not take: its row, or why there is none."""
        found = unopened or plan.message.odd(body)
        if isinstance(found, Rejection):
            self.rejects.add(found, body, *place)
            return
        row, rescued = found
        name = hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest()
        self.good[plan].add(row, rescued, name, body, 0, *place)

    def _by_plan(self) -> None:
        """Messages that say how they are to be read, or that come to several rows."""
        plans = self._rules.plans
        only = (plans.only, b"") if plans.only else None
        numbers = Numbers(self._raw.column("_body"), len(self._rules.contract.fields))
        for body, attributes, index, sub, child, group, unopened in self._messages():
            place = index, sub, child, group
            chosen = unopened or only or plans.choose(body, attributes)
            if chosen is None:
                self.drops.add(TYPE_RULE, *numbers.next(*place))
            elif isinstance(chosen, Rejection):
                self.rejects.add(chosen, body, *numbers.next(*place))
            else:
                self._read(*chosen, body, attributes, place, numbers)

    def _read(  # noqa: PLR0913, PLR0917  a message, and how it is read
        self,
        plan: Plan,
        said: bytes,
        body: bytes,
        attributes: Attributes | None,
        place: Place,
        numbers: Numbers,
    ) -> None:
        found = plan.read(body, attributes, said, numbers.left(place[0]))
        if isinstance(found, Rejection):
            self.rejects.add(found, body, *numbers.next(*place))
            return
        good = self.good[plan]
        readings = 0
        for readings, reading in enumerate(found, 1):  # noqa: B007  read after the loop
            own = numbers.next(*place)
            if isinstance(reading, Unread):
                self.rejects.add(reading.rejection, reading.body, *own)
                continue
            digest = hashlib.blake2b(reading.material, digest_size=DIGEST_BYTES).digest()
            good.add(reading.row, reading.rescued, digest, reading.came, reading.place, *own)
        if not readings:
            self.drops.add(EXPLODE_RULE, *numbers.next(*place))

    def _messages(self) -> Iterable[_Message]:
        """Every message, those of one source record at a time, and what cannot be opened."""
        if not self._plain:
            return self._opened()
        raw = self._raw
        bodies, groups = (raw.column(name).to_pylist() for name in ("_body", "_partition_key"))
        none, zero = repeat(None), repeat(0)
        return zip(bodies, none, count(), zero, zero, groups, none, strict=False)

    def _opened(self) -> Iterator[_Message]:
        raw, contract = self._raw, self._rules.contract
        if not raw.num_rows:
            return
        source = raw.column("_source")[0].as_py()
        envelope, fields = contract.envelope, len(contract.fields)
        bodies, groups, attributes = (
            raw.column(name).to_pylist() for name in ("_body", "_partition_key", "_attributes")
        )
        arrivals = raw.column("_arrival").cast(pa.int64()).to_pylist()
        for index, (body, group) in enumerate(zip(bodies, groups, strict=True)):
            outer = attributes[index]
            if plain(body, envelope):
                own = attributes_of(outer) if outer else None
                yield body, own, index, 0, 0, group, None
                continue
            of = open_record(body, group, outer, source, envelope, fields, arrivals[index])
            places = (repeat(index), of.subs, of.children, of.groups)
            found = zip(_taken(of.bodies), of.attributes, *places, repeat(None), strict=False)
            yield from _with_rejects(found, index, of.rejects) if of.rejects else found


def _all_plain(raw: pa.Table, envelope: Envelope) -> bool:
    """Whether every source record is a message as it is, of which nothing else is said."""
    attributes = raw.column("_attributes")
    said = attributes.null_count < len(attributes)
    return not said and all_plain(raw.column("_body"), envelope)


def _taken(bodies: list[bytes]) -> Iterator[bytes]:
    """Bodies in their order, none of which is held any longer: they may be most of the memory."""
    bodies.reverse()
    while bodies:
        yield bodies.pop()


def _with_rejects(
    found: Iterable[_Message], index: int, rejects: Iterable[Unopened]
) -> list[_Message]:
    """The messages of a record and what cannot be opened of it, as they came."""
    unopened: list[_Message] = [
        (body, None, index, sub, child, group, rejection)
        for sub, child, group, body, rejection in rejects
    ]
    return sorted([*found, *unopened], key=operator.itemgetter(3, 4))


_Message = tuple[bytes, Attributes | None, int, int, int, str | None, Rejection | None]
"""A message, its attributes and place, or what came in its stead and why it is not one. All flat:
the garbage collector would follow a tuple within."""


def _in_order(parts: Sequence[pa.Table]) -> pa.Table:
    """Rows of several plans, as they came."""
    if len(parts) == 1:
        return parts[0]
    together = pa.concat_tables(parts)
    return together.sort_by([(name, "ascending") for name in ("_index", "_sub", "_child")])
