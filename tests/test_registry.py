"""Versions of a contract side by side: published once, named by records, and gone back to."""

from __future__ import annotations

import json

import pytest

from ingest.settings import Wiring
from sinks import contracts, registry
from sinks.deadline import Deadline
from sinks.registry import Index, RegistryError
from tests.support import SETTINGS, Clock, Cloud, cloud, delivery
from transform.contract_file import parse_contract
from transform.pipeline import Transform

BASE = """
name = "fleet"
version = {version}

[identity]
device = "device"
event_time = "at"
record_id = ["device", "at"]

[schema]
path = "v"

[[field]]
name = "device"
type = "string"
{privacy}

[[field]]
name = "at"
type = "timestamp"
format = "epoch_seconds"
"""
HUMIDITY = '[[field]]\nname = "humidity"\ntype = "{kind}"\nrequired = true\n'


def contract(version, kind="float64", privacy="", *, more=True):
    text = BASE.format(version=version, privacy=privacy)
    text += HUMIDITY.format(kind=kind) if more else ""
    return parse_contract(text.encode(), f"fleet-{version}.toml")


OLD, NEW = contract(1, more=False), contract(2)


@pytest.fixture
def account():
    with cloud() as made:
        yield made


def wired(account: Cloud, tmp_path, carried=OLD) -> Wiring:
    file = tmp_path / "fleet.toml"
    file.write_bytes(carried.source)
    wiring = Wiring(type(SETTINGS)(**{**vars(SETTINGS), "contract": str(file)}), Clock())
    wiring.bucket = account.bucket
    return wiring


def test_published_versions_are_read_within_half_a_minute_and_name_one_another(account, tmp_path):
    wiring = wired(account, tmp_path)
    assert wiring.transform(0).contract == OLD
    registry.publish(account.bucket, NEW)
    assert wiring.transform(0).contract == OLD
    wiring.clock.now += 31
    rules = wiring.transform(0)
    assert (rules.contract.source, [c.version for c in rules.older]) == (NEW.source, [1])


def test_a_record_is_read_by_the_version_it_names(account, tmp_path):
    registry.publish(account.bucket, NEW)
    rules = wired(account, tmp_path).transform(0)
    messages = [
        {"device": "a", "at": 1, "humidity": 40},
        {"device": "b", "at": 1, "v": 1},
        {"device": "c", "at": 1, "v": "fleet@2", "humidity": 1.5},
        {"device": "d", "at": 1, "v": 3},
        {"device": "e", "at": 1},
    ]
    batch = rules.apply(delivery([json.dumps(m).encode() for m in messages]).table(), "raw/1")
    rows = [(r["device"], r["humidity"], r["_schema"]) for r in batch.rows.to_pylist()]
    assert rows == [("a", 40.0, 2), ("b", None, 1), ("c", 1.5, 2)]
    rejects = [(r["_index"], r["_reason"]) for r in batch.rejects.to_pylist()]
    assert rejects == [(3, "unknown_schema"), (4, "missing_field")]
    assert batch.rows.schema.field("humidity").nullable
    assert len(set(batch.rows.column("_generation").to_pylist())) == 1


def test_a_version_is_published_once(account):
    registry.publish(account.bucket, OLD)
    assert registry.publish(account.bucket, OLD) == Index(1, ((1, OLD.digest),))
    other = contract(1)
    with pytest.raises(RegistryError, match="version 1 of fleet is published with other rules"):
        registry.publish(account.bucket, other)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (contract(3, kind="int64"), "field 'humidity' has type int64 in version 3, float64 in 2"),
        (contract(3, privacy='privacy = "hash"'), "field 'device' has privacy hash in version 3"),
    ],
)
def test_what_cannot_stand_in_one_table_is_refused(account, other, why):
    registry.publish(account.bucket, NEW)
    with pytest.raises(RegistryError, match=why):
        registry.publish(account.bucket, other)


def test_there_is_a_way_back(account, tmp_path):
    registry.publish(account.bucket, OLD)
    registry.publish(account.bucket, NEW)
    assert registry.use(account.bucket, "fleet", 1).current == 1
    assert wired(account, tmp_path).transform(0).contract.version == 1
    with pytest.raises(RegistryError, match="fleet has no version 7; published are 1, 2"):
        registry.use(account.bucket, "fleet", 7)


def test_a_newer_contract_that_the_function_carries_is_current(account, tmp_path):
    registry.publish(account.bucket, OLD)
    rules = wired(account, tmp_path, NEW).transform(0)
    assert (rules.contract.version, [c.version for c in rules.older]) == (2, [1])


def test_the_bucket_keeps_what_a_generation_was_of(account):
    rules = Transform(NEW, 0, (OLD,), b"key")
    soon = Deadline(60.0, lambda: 0.0)
    contracts.Contracts().keep(account.bucket, rules, soon)
    told = contracts.generations(account.bucket)[rules.generation.digest]
    assert told == {"epoch": 0, "contract": NEW.digest, "older": [OLD.digest], "hashed": True}
    kept = set(account.bucket.keys("contracts/fleet/"))
    assert kept == {contracts.key_of("fleet", c.digest) for c in (OLD, NEW)}
    assert rules.generation != Transform(NEW).generation
