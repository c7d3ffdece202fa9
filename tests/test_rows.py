"""Whatever a contract says and messages hold: Transform makes of them what an oracle makes.

Contracts of all verbs and messages in any layers are drawn from seeds (`drawn_rules`); the oracle
goes row by row (`row_oracle`). Then what must hold without one: a record is what it is, wherever
and whenever it came.
"""

import gzip
import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import drawn_rules
from tests.drawn_rules import Draw, Record, encoded
from tests.row_oracle import CSV, Fate, fates
from tests.support import NOON, SECOND
from tests.verbs import KEY, conserved, delivery, one_file
from transform import gathered
from transform.contract_file import parse_contract
from transform.kpl import aggregate
from transform.pipeline import Transform

seeds = st.integers(0, 2**32)
MANY = settings(max_examples=1_000, deadline=None)
SOME = settings(max_examples=200, deadline=None)


def drawn(seed):
    draw = Draw(seed)
    rules = drawn_rules.rules(draw)
    contract = parse_contract(rules.text().encode(), f"{seed}.toml", one_file(CSV))
    return draw, rules, Transform(contract, hash_key=KEY)


def raw_table(records):
    sent = delivery(
        [record.body for record in records],
        [record.attributes for record in records],
        [record.arrival for record in records],
    )
    return sent.table()


def expected(rules, records):
    """By place, the fate of every element."""
    return {
        (index, sub, child): fate
        for index, record in enumerate(records)
        for sub, messages in enumerate(record.members)
        for child, fate in enumerate(fates(rules, messages, record.attributes, record.arrival))
    }


def found_in(batch):
    """The same of a batch."""
    columns = batch.rows.column_names
    names = [*columns[: columns.index("_rescued")], "_rescued", "_record_id", "_skew", "_late"]
    found = {place: Fate("row", plain(row, names)) for place, row in by_place(batch.rows)}
    for place, row in by_place(batch.rejects):
        found[place] = Fate("reject", (row["_step"], row["_reason"], row["_field"]))
    for place, row in by_place(batch.drops):
        found[place] = Fate("drop", row["_rule"])
    return found


def by_place(table):
    for row in table.to_pylist():
        yield (row["_index"], row["_sub"], row["_child"]), row


def plain(row, names):
    """A row's values as the oracle has them: microseconds, and JSON as what it says."""
    found = {name: row[name] for name in names}
    for name, value in found.items():
        if hasattr(value, "timestamp"):
            found[name] = round(value.timestamp() * SECOND)
    if found["_rescued"] is not None:
        found["_rescued"] = json.loads(found["_rescued"])
    return found


@MANY
@given(seeds)
def test_transform_makes_what_an_oracle_makes_row_by_row(seed):
    draw, rules, transform = drawn(seed)
    records = drawn_rules.records(draw, rules)
    batch = transform.apply(raw_table(records), "raw/x")
    conserved(batch)
    assert found_in(batch) == expected(rules, records)


def test_seeds_reach_every_fate():
    met = Counter()
    for seed in range(400):
        draw, rules, _ = drawn(seed)
        met.update(map(told, expected(rules, drawn_rules.records(draw, rules)).values()))
    assert met["row"] > 300
    least = {
        *("malformed_json", "not_an_object", "missing_field", "wrong_type", "out_of_range"),
        *("not_allowed", "bad_timestamp", "future_time", "no_value", "no_readings"),
        *("unknown_type", "unknown_field", "choose", "explode", "sample", "rule-0", "rule-1"),
    }
    assert {name for name in least if met[name] < 5} == set()


def told(fate):
    return {"row": "row", "drop": fate.of, "reject": [*fate.of][1]}[fate.what]


@SOME
@given(seeds)
def test_a_verdict_depends_on_neither_its_batch_nor_its_place_in_memory(seed):
    draw, rules, transform = drawn(seed)
    raw = raw_table(drawn_rules.records(draw, rules))
    together = transform.apply(raw, "raw/x")
    cut = draw.randint(0, raw.num_rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gathered, "ROWS_MAX", draw.randint(1, 3))
        parts = [
            transform.apply(raw.slice(0, cut), "raw/x"),
            transform.apply(raw.slice(cut), "raw/x", first=cut),
        ]
    for name in ("rows", "rejects", "drops"):
        whole = sorted(by_place(getattr(together, name)), key=lambda one: one[0])
        both = [one for part in parts for one in by_place(getattr(part, name))]
        assert repr(sorted(both, key=lambda one: one[0])) == repr(whole)
    assert sum(part.hot_rows for part in parts) == together.hot_rows
    assert sum(part.counts.delivered for part in parts) == together.counts.delivered


# What a record is

LINEAGE = {
    *("_stream", "_shard", "_sequence", "_arrival", "_raw", "_index", "_sub", "_child"),
    *("_elements", "_skew", "_late"),
}


def identified(batch):
    """By identity, what all its rows are in what is their record's own."""
    known = {}
    for row in batch.rows.to_pylist():
        own = {name: value for name, value in row.items() if name not in LINEAGE}
        known.setdefault((row["_record_id"], row["_digest"]), set()).add(repr(own))
    return known


def sent(transform, *records):
    return identified(transform.apply(raw_table(records), "raw/x"))


@SOME
@given(seeds)
def test_equal_identities_are_equal_records(seed):
    """A hot item is a function of id and digest, wherever and whenever its record came."""
    draw, rules, transform = drawn(seed)
    messages = [drawn_rules.message(draw, rules) for _ in range(3)]
    messages += [message | {"x": 1} for message in messages]
    inner = [reading for message in messages for reading in readings_of(message)]
    for message in messages[:3] if inner else []:
        messages.append(with_readings(message, draw.choices(inner, k=3)))
    every = [encoded(message) for message in messages]
    records = [
        Record(
            body,
            [],
            draw.some(0.7, S=["x", "y"], kind=["a", "7"]),
            draw.choice([NOON, NOON + SECOND]),
        )
        for body in (*every, *every, b"[" + b",".join(every) + b"]")
    ]
    for identity, rows in sent(transform, *records).items():
        assert len(rows) == 1, (identity, rows)


def readings_of(message):
    nested = message.get("deep")
    found = [message.get("rs"), nested.get("rs") if isinstance(nested, dict) else None]
    return [reading for one in found if isinstance(one, list) for reading in one]


def with_readings(message, readings):
    """The message with other readings."""
    changed = {name: readings if name == "rs" else value for name, value in message.items()}
    nested = changed.get("deep")
    return changed | ({"deep": nested | {"rs": readings}} if isinstance(nested, dict) else {})


@SOME
@given(seeds)
def test_what_is_sent_again_is_the_same_record(seed):
    """Alone, in an array, compressed, aggregated: the same bytes under the same attributes."""
    draw, rules, transform = drawn(seed)
    body, *others = (encoded(drawn_rules.message(draw, rules)) for _ in range(3))
    own = draw.some(0.7, S=["x", "y"], kind=["a", "7"])
    by_arrival = any("_arrival" in condition for _, _, condition in rules.filters)
    later = NOON if by_arrival else NOON + SECOND
    once = sent(transform, Record(body, [], own))
    for way in (
        b"[" + b",".join([*others, body]) + b"]",
        gzip.compress(body),
        aggregate([("k", body), ("l", body)]),
    ):
        assert once.keys() <= sent(transform, Record(way, [], own, later)).keys()


@SOME
@given(seeds)
def test_a_reading_that_is_sent_again_in_another_list_is_the_same_record(seed):
    draw, rules, transform = drawn(seed)
    if not rules.explode or any("_reading" in (spec.expr or "") for spec in rules.fields):
        return
    message = drawn_rules.message(draw, rules)
    for reading in readings_of(message):
        alone = encoded(with_readings(message, [reading]))
        among = encoded(with_readings(message, [0, reading, {"x": 1}]))
        one, other = (sent(transform, Record(body, [], {})) for body in (alone, among))
        assert one.keys() <= other.keys()
