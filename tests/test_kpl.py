"""KPL aggregates, against bytes written here by hand and against digests that others published.

The format: https://github.com/awslabs/amazon-kinesis-producer/blob/master/aggregation-format.md
"""

import hashlib
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transform import kpl_reader
from transform.contract_file import load_contract
from transform.envelope import JSON, open_record
from transform.kpl import KPL_MAGIC, Aggregate, aggregate, is_aggregate, members_max
from transform.kpl_reader import deaggregate
from transform.pipeline import Transform
from transform.records import Delivery, Rejection

SOME = settings(max_examples=150, deadline=None)


# Protobuf by hand, so that nothing here rests on what it tests


def varint(number):
    low = []
    while number > 0x7F:
        low.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*low, number])


def number(field, value):
    return varint(field << 3) + varint(value)


def data(field, value):
    return varint(field << 3 | 2) + varint(len(value)) + value


def key(text):
    return data(1, text)


def hash_key(text):
    return data(2, text)


def record(*parts):
    return data(3, b"".join(parts))


def wrapped(*parts):
    packed = b"".join(parts)
    return KPL_MAGIC + packed + hashlib.md5(packed, usedforsecurity=False).digest()


PLAIN = wrapped(key(b"k"), record(number(1, 0), data(3, b"one")))


def opened(body):
    assert is_aggregate(body)
    return list(deaggregate(body))


@dataclass
class Found:
    """What came out of many source records, one list entry for each message; rejects by record."""

    bodies: list[bytes] = field(default_factory=list)
    index: list[int] = field(default_factory=list)
    sub: list[int] = field(default_factory=list)
    groups: list[str | None] = field(default_factory=list)
    rejects: dict[int, Rejection] = field(default_factory=dict)


def opened_all(bodies, groups):
    found = Found()
    for index, (body, group) in enumerate(zip(bodies, groups, strict=True)):
        record = open_record(body, group, None, "kinesis", JSON, 1)
        found.bodies += record.bodies
        found.index += [index] * len(record.bodies)
        found.sub += record.subs
        found.groups += record.groups
        for sub, child, _, whole, rejection in record.rejects:
            assert (sub, child, whole) == (0, 0, body)
            found.rejects[index] = rejection
    return found


# What others wrote


def test_an_aggregate_of_the_kpl_itself():
    # Written by the KPL: `kpl_generated_ka_rec` in python/test/test_deagg.py of
    # awslabs/kinesis-aggregation. That the MD5 agrees shows that all 240 bytes do.
    texts = [b"RECORD %d pjqrcfbxafzdndzmbgane" % n for n in (2005, 2006, 2007, 2008)]
    body = wrapped(
        key(b"1562602074896"),
        hash_key(b"339606600942967391854603552402021847292"),
        *(record(number(1, 0), number(2, 0), data(3, text)) for text in texts),
    )
    assert len(body) == 240
    assert body[-16:].hex() == "07acba97020a49393f2fd65a7cd6033f"
    assert opened(body) == [("1562602074896", text) for text in texts]


def test_an_aggregate_of_two_keys_is_written_as_others_write_it():
    # `should support 2 KPL records` in test/transformation.test.js of the AWS Lambda Fan-Out
    # Utility (awslabs/aws-lambda-fanout); again the MD5 stands for all the bytes.
    members = [
        ("key-0", b"Testing KPL Aggregated Record 2-0"),
        ("key-1", b"Testing KPL Aggregated Record 2-1"),
    ]
    body = wrapped(
        key(b"key-0"),
        key(b"key-1"),
        record(number(1, 0), data(3, members[0][1])),
        record(number(1, 1), data(3, members[1][1])),
    )
    assert body[-16:].hex() == "1d2523861cdf5ee9cffa0fc44e748421"
    assert aggregate(members) == body
    assert opened(body) == members


# What the format allows


def test_the_bytes_of_the_smallest_aggregate():
    assert PLAIN[:4] == bytes.fromhex("f3899ac2")
    assert PLAIN[4:-16] == bytes.fromhex("0a016b") + bytes.fromhex("1a0708001a036f6e65")
    assert aggregate([("k", b"one")]) == PLAIN


members = st.lists(st.tuples(st.text(max_size=8), st.binary(max_size=300)), min_size=1, max_size=20)


@SOME
@given(members)
@example([("", b"")])
@example([("k", b""), ("k", b""), ("l", PLAIN)])
def test_what_is_aggregated_is_opened_unchanged(pairs):
    body = aggregate(pairs)
    assert opened(body) == pairs
    assert kpl_reader._parsed(body).SerializeToString() == body[4:-16]  # as the library writes it


@SOME
@given(members, st.integers(0, 600))
def test_an_aggregate_knows_its_size_and_takes_what_fits(pairs, most):
    made = Aggregate()
    taken = [pair for pair in pairs if made.put(*pair, most)]
    body = made.pack()
    assert len(body) == made.size
    assert made.members == len(taken) >= 1
    assert made.size <= most or made.members == 1
    assert opened(body) == taken


def test_an_aggregate_takes_no_more_members_than_are_opened():
    made = Aggregate()
    while made.put("k", b"", 51_200):
        pass
    assert made.members == members_max(made.size) == 32
    while made.put("k", b"x" * 14, 51_200):
        pass
    assert made.members <= members_max(made.size)


@SOME
@given(members)
def test_aggregates_written_by_hand_are_opened(pairs):
    """Every record with a key entry of its own, as the format allows."""
    body = wrapped(
        *(key(k.encode()) for k, _ in pairs),
        *(record(number(1, i), data(3, v)) for i, (_, v) in enumerate(pairs)),
    )
    assert opened(body) == pairs


@pytest.mark.parametrize(
    "body",
    [
        wrapped(key(b"k"), hash_key(b"7"), record(number(1, 0), number(2, 0), data(3, b"one"))),
        wrapped(key(b"k"), record(number(1, 0), number(2, 99), data(3, b"one"))),
        wrapped(key(b"k"), hash_key(b"\xff"), record(number(1, 0), data(3, b"one"))),
        wrapped(key(b"k"), record(number(1, 0), data(3, b"one"), data(4, data(1, b"t")))),
        wrapped(
            key(b"k"),
            record(number(1, 0), data(3, b"one"), data(4, data(1, b"t") + data(2, b"v"))),
        ),
    ],
    ids=["hash key", "hash key out of range", "hash key not UTF-8", "tag", "tag with value"],
)
def test_explicit_hash_keys_and_tags_are_ignored(body):
    assert opened(body) == [("k", b"one")]


@pytest.mark.parametrize(
    "body",
    [
        wrapped(record(number(1, 0), data(3, b"one")), key(b"k")),
        wrapped(key(b"k"), record(data(3, b"one"), number(1, 0))),
        wrapped(key(b"k"), number(9, 1), record(number(1, 0), data(3, b"one"), number(9, 1))),
        wrapped(key(b"k"), key(b"unused"), record(number(1, 0), data(3, b"one"))),
    ],
    ids=["records before keys", "fields in another order", "unknown fields", "a key unused"],
)
def test_protobuf_leaves_room_for_other_writers(body):
    assert opened(body) == [("k", b"one")]


# What is not an aggregate


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        KPL_MAGIC,
        KPL_MAGIC + b"\0" * 15,
        KPL_MAGIC + b"\0" * 16,
        KPL_MAGIC + hashlib.md5(b"", usedforsecurity=False).digest()[:-1],
        b"\xf3\x89\x9a\xc3" + PLAIN[4:],
        PLAIN[1:],
        b" " + PLAIN,
        PLAIN + b" ",
        PLAIN[:-1],
        PLAIN[:-1] + bytes([PLAIN[-1] ^ 1]),
        PLAIN[:4] + bytes([PLAIN[4] ^ 1]) + PLAIN[5:],
    ],
)
def test_other_bytes_are_a_plain_record_and_stay_whole(body):
    assert not is_aggregate(body)
    elements = opened_all([body], ["group"])
    assert (elements.bodies, elements.groups) == ([body], ["group"])
    assert (elements.index, elements.sub, elements.rejects) == ([0], [0], {})


@SOME
@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_are_opened_or_kept_and_nothing_is_raised(content, signed):
    body = wrapped(content) if signed else KPL_MAGIC + content
    elements = opened_all([body], [None])
    assert (not elements.bodies) == bool(elements.rejects)


ONE = record(number(1, 0), data(3, b"one"))
MALFORMED = {
    "empty": wrapped(),
    "keys only": wrapped(key(b"k")),
    "no keys": wrapped(ONE),
    "key index out of range": wrapped(key(b"k"), ONE, record(number(1, 1), data(3, b"two"))),
    "a huge key index": wrapped(key(b"k"), record(number(1, 2**64 - 1), data(3, b"one"))),
    "no key index": wrapped(key(b"k"), ONE, record(data(3, b"two"))),
    "no data": wrapped(key(b"k"), ONE, record(number(1, 0))),
    "a tag without key": wrapped(key(b"k"), record(number(1, 0), data(3, b"one"), data(4, b""))),
    "cut off": wrapped(key(b"k"), ONE[:-1]),
    "no protobuf": wrapped(b"\xff" * 20),
    "a key that is not UTF-8": wrapped(key(b"\xff"), ONE),
    "a key that is half a surrogate pair": wrapped(key(b"\xed\xa0\x80"), ONE),
    "an unused key that is not UTF-8": wrapped(key(b"k"), key(b"\xff"), ONE),
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_aggregate_is_rejected_as_one(body):
    assert is_aggregate(body)
    elements = opened_all([PLAIN, body, b"plain"], ["a", "b", "c"])
    assert elements.bodies == [b"one", b"plain"]  # its neighbours are opened all the same
    assert elements.index == [0, 2]
    rejection = elements.rejects[1]
    assert (rejection.step, rejection.reason, rejection.field) == (
        "envelope",
        "malformed_aggregate",
        None,
    )
    assert rejection.detail.startswith("the aggregate ")


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_aggregate_is_quarantined_whole(body):
    delivery = Delivery(
        source="kinesis",
        stream="s",
        shards=["shardId-000000000000"],
        sequences=["1"],
        groups=["group"],
        arrivals=[0],
        attributes=[None],
        bodies=[body],
    )
    batch = Transform(load_contract("telemetry")).apply(delivery.table(), "raw/object")
    (reject,) = batch.rejects.to_pylist()
    assert reject["_body"] == body
    assert reject["_digest"] == hashlib.blake2b(body, digest_size=16).digest()
    assert (reject["_step"], reject["_reason"]) == ("envelope", "malformed_aggregate")
    assert (reject["_index"], reject["_sub"], reject["_partition_key"]) == (0, 0, "group")
    assert batch.rows.num_rows == 0
    assert batch.counts.quarantined == 1


def test_members_are_numbered_within_their_source_record():
    pairs = [("a", b"1"), ("b", b"2"), ("a", b"3")]
    elements = opened_all([b"x", aggregate(pairs), b"y"], ["g", "h", None])
    assert elements.bodies == [b"x", b"1", b"2", b"3", b"y"]
    assert elements.index == [0, 1, 1, 1, 2]
    assert elements.sub == [0, 0, 1, 2, 0]
    assert elements.groups == ["g", "a", "b", "a", None]


def test_an_aggregate_within_an_aggregate_is_data():
    assert opened_all([aggregate([("k", PLAIN)])], [None]).bodies == [PLAIN]


# What could not be held


def test_an_aggregate_of_more_messages_than_its_bytes_can_hold_is_rejected_as_one():
    most = members_max(0)
    full, over = aggregate([("k", b"")] * most), aggregate([("k", b"")] * (most + 1))
    elements = opened_all([PLAIN, full, over, b"plain"], ["a", "b", "c", "d"])
    assert elements.index == [0] + [1] * most + [3]
    assert (elements.rejects[2].step, elements.rejects[2].reason) == (
        "envelope",
        "too_many_elements",
    )
    assert (
        elements.rejects[2].detail
        == f"{most + 1} messages in {len(over)} bytes; at most 32 are opened"
    )


def test_no_aggregate_of_messages_that_can_be_delivered_holds_too_many():
    smallest = b'{"d":"a","t":0}'
    body = aggregate([("", smallest)] * 10_000)
    assert len(opened_all([body], ["k"]).bodies) == 10_000


def test_a_contract_of_hundreds_of_fields_takes_fewer_messages_of_one_aggregate():
    assert members_max(4_400_000, fields=10) == 220_000
    assert members_max(4_400_000, fields=500) == 80_000
    assert members_max(1_048_576, fields=500) == members_max(1_048_576)


def test_a_partition_key_that_kinesis_would_not_take_makes_an_aggregate_malformed():
    key_of = lambda characters: aggregate([("é" * characters, b"one")])  # noqa: E731
    elements = opened_all([key_of(256), key_of(257)], ["a", "b"])
    assert elements.groups == ["é" * 256]
    assert elements.rejects[1].reason == "malformed_aggregate"
    assert "over 256 characters" in elements.rejects[1].detail
