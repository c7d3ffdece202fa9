"""Many rows come to the same items as few, though they are never held with all their columns."""

from __future__ import annotations

from functools import partial
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.doubles.dynamodb import DynamoDB
from infra.doubles.world import Calm
from sinks import hot, parquet
from sinks.deadline import Deadline
from sinks.landing import Landing
from sinks.table import Table
from tests.support import NOON, SECOND, Clock, reading
from tests.test_hot_latest import POSITIONAL as LATEST_POSITIONAL
from tests.test_hot_latest import TELEMETRY as LATEST
from tests.test_hot_latest import rows_of
from transform.contract_file import load_contract, parse_contract

TELEMETRY = load_contract("telemetry")
POSITIONAL = parse_contract(
    TELEMETRY.source.replace(b'record_id = ["device_id", "event_time", "sequence"]', b""), "p.toml"
)
DAY = 86_400 * SECOND
CONTRACTS = {
    "readings": TELEMETRY,
    "readings by position": POSITIONAL,
    "latest": LATEST,
    "latest by position": LATEST_POSITIONAL,
}


def written(rows: Any, contract: Any, parts: hot.Parts | None, *, calls: int) -> Any:
    """What a table holds after a write that has time for a few calls, and what was said of it."""
    clock = Clock()
    table = Table(DynamoDB(Calm(clock), {"t": {}}), "t")  # type: ignore[arg-type]
    deadline = Deadline(clock.now + (60 if calls else 0), clock)
    result = hot.write(table, rows, contract, deadline, clock.waiting(), parts)
    return list(table.scan()), result


@pytest.mark.parametrize("name", CONTRACTS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_parts_come_to_the_same_items(name: str, data: st.DataObject):
    contract = CONTRACTS[name]
    at = st.sampled_from([NOON, NOON + SECOND, NOON - 400 * DAY])  # the last is past its TTL
    body = st.builds(reading, st.sampled_from(["a", "b"]), at, seq=st.integers(0, 1))
    bodies = data.draw(st.lists(body, min_size=1, max_size=12))
    rows = rows_of(*bodies, contract=contract)
    if data.draw(st.booleans()):  # the same elements once more, at the same positions
        rows = pa.concat_tables([rows, rows]).combine_chunks()
    landed = Landing("landing/c/x", parquet.File(parquet.encode(rows)))
    columns = hot.columns_of(contract, landed.names)
    parts = partial(landed.parts, columns, data.draw(st.integers(1, 5)))
    few = landed.placed(hot.key_columns_of(contract))
    for calls in (0, 1):
        whole = written(landed.rows(columns), contract, None, calls=calls)
        assert written(few, contract, parts, calls=calls) == whole
    for item in range(len(hot.Wanted.of(few, contract, parts))):
        both = (hot.Wanted.of(some, contract).rows_of([item]) for some in (rows, few))
        first, second = (found.to_pylist() for found in both)
        assert first == second
