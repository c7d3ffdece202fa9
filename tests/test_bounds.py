"""A 6 MB event of the worst shape fits its functions, ends named, and harms no neighbour.

Each shape goes through ingest, Transform and Hot in processes of their own, under a ceiling on
their address space; what is compared is their peak of resident memory and the processor's time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support import TOPOLOGY
from tests.worst_shapes import PAYLOAD_MAX_BYTES
from transform.exact_reader import DETAIL_MAX_CHARACTERS

ROOT = Path(__file__).parent.parent
ADDRESS_SPACE_MB = 6_000  # so that what is out of all proportion dies rather than takes the machine
RUNTIME_MB = 80  # of Lambda's own, and of what a deployed function imports more than these do
INGEST_MB = TOPOLOGY.ingest_stream.memory_mb - RUNTIME_MB
STAGE_MB = 256  # of a stage's peak; Transform's function has 1,769, for its vCPU
OPENED_MB = 680  # ... of zstd: five opened bodies of 32 MB each are quarantined whole
READINGS_MB = 560  # ... where a list of readings repeats 20 fields of its message in each row
STAGE_CPU_SECONDS = 20  # a stage's timeout; the worst takes a third of it

WORST: dict[str, dict[str, int]] = {
    "nested arrays": {"too_large": 1},
    "nested as deep as allowed": {},
    "half an escaped string": {"malformed_json": 16},
    "a number of millions of digits": {"too_large": 1},
    "digits in a field": {"not_finite": 16},
    "a million keys": {"too_large": 1},
    "keys": {},
    "one key again and again": {},
    "keys and NaN": {"not_finite": 16},
    "half surrogates": {"lone_surrogate": 16},
    "a wrong type as long as may be": {"wrong_type": 16},
    "gzip": {"too_large": 1},
    "zstd": {"too_large": 1},
    "gzip in gzip in gzip": {"too_large": 1},
    "a million gzip members": {"malformed_json": 1},
    "zstd as large as is opened": {"too_large": 5},
    "small zstd as large as is opened": {"malformed_json": 9_990},
    "an array of empty objects": {"too_many_elements": 1},
    "an array of digits": {"too_many_elements": 1},
    "an array of empty objects, zstd": {"too_many_elements": 1},
    "an array of the smallest messages": {},
    "small arrays of digits": {"not_an_object": 319_680},
    "lines of empty objects": {"too_many_elements": 1},
    "blank lines": {"missing_field": 2},
    "gzip of as many lines as are opened": {},
    "gzip of as many bad lines as are opened": {"not_finite": 366_666},
    "empty members": {"too_many_elements": 1},
    "empty members, huge key": {"too_many_elements": 1},
    "empty members in many aggregates": {"too_many_elements": 4_500},
    "aggregates in aggregates": {"too_large": 1},
    "groups in groups": {"malformed_aggregate": 1},
    "dense bad members, wide key": {"not_finite": 191_258},
    "tiny good members, all different": {},
}
"""Shapes, and what is set aside of them; the others of `worst_shapes` are for measuring by hand."""


HEAVY = (
    "dense bad members, wide key",
    "tiny good members, all different",
    "gzip of as many lines as are opened",
    "gzip of as many bad lines as are opened",
)
"""What takes seconds each; the others are measured by one command."""


@pytest.mark.parametrize("shape", WORST)
def test_the_worst_shapes_fit_and_are_named(shape: str):
    told = costs(*((shape,) if shape in HEAVY else LIGHT))[shape]
    assert told["make"]["event_bytes"] <= PAYLOAD_MAX_BYTES
    transform = told["transform"]
    assert transform.get("reasons", {}) == WORST[shape], told
    account = transform["account"]
    assert account["outcome"] == "done"
    assert account["delivered"] >= 2  # the neighbours
    assert account["quarantined"] == min(told["ingest"]["records"] - 2, sum(WORST[shape].values()))
    assert len(transform.get("detail", "")) <= DETAIL_MAX_CHARACTERS
    assert told["hot"]["written"] == transform["hot_rows"] >= 2
    assert told["ingest"]["peak_mb"] < INGEST_MB
    most = OPENED_MB if "zstd" in shape else STAGE_MB
    for stage in ("transform", "hot"):
        assert told[stage]["peak_mb"] < most, told
        assert told[stage]["cpu_seconds"] < STAGE_CPU_SECONDS


def test_a_contract_of_500_fields_has_its_own_limit():
    shape = "tiny good members, all different"
    told = costs("--wide", shape)[shape]
    assert told["transform"]["reasons"] == {"too_many_elements": 1}
    assert told["hot"]["written"] == 2


READINGS: dict[str, dict[str, int]] = {
    "readings, all different": {"missing_field": 2},  # the neighbours, which have no list
    "more readings than are read": {"missing_field": 2, "too_many_elements": 16},
    "small lists of readings": {"missing_field": 2},
}


def test_lists_of_readings_fit_with_all_that_is_made_of_them():
    for shape, told in costs("--verbs", *READINGS).items():
        assert told["transform"]["reasons"] == READINGS[shape]
        for stage in {"transform", "hot"} & told.keys():
            assert told[stage]["peak_mb"] < READINGS_MB, told
            assert told[stage]["cpu_seconds"] < STAGE_CPU_SECONDS, told


LIGHT = tuple(shape for shape in WORST if shape not in HEAVY)


@cache
def costs(*arguments: str) -> dict[str, dict[str, Any]]:
    """What each stage said of each shape, and what it took."""
    command = [sys.executable, "-m", "tests.worst_shapes", "--limit-mb", str(ADDRESS_SPACE_MB)]
    done = subprocess.run(
        [*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = {told["shape"]: told for told in map(json.loads, done.stdout.splitlines())}
    for told in found.values():
        assert not [stage for stage in told.values() if "died" in stage], told
    return found
