"""Landing that the lake has taken in is gone: every command says and does what it did before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ingest import reprocess as module
from ingest.sweep import KEPT_DAYS, due
from tests import lakes
from tests.edge import HOT, WIDER, Edge, rules
from tests.support import NOON, SECOND, reading
from tests.test_hot_latest import LATEST, at, changed, times
from tests.test_reprocess import OTHER_TIME, again, moments, moved

if TYPE_CHECKING:
    import pytest

DAY = 86_400.0
HOUR = 3_600 * SECOND


def retire(edge: Edge, *keys: str) -> None:
    bucket, contract = edge.account.bucket, edge.wiring.contract
    lakes.taken_in(bucket, contract, *keys)
    lakes.without_landing(bucket, contract)


# ---- Replay ----


def test_what_was_delivered_is_not_replayed(edge: Edge) -> None:
    edge.ingest([reading(seq=1)])
    edge.park([reading(seq=1)])
    retire(edge)
    report = edge.replay()
    assert (report.chosen, report.skipped) == (0, 1)


def test_what_landed_and_nobody_reported_is_replayed(edge: Edge) -> None:
    edge.land([reading(seq=1)])
    edge.park([reading(seq=1)])
    retire(edge)
    assert edge.replay().delivered == 1
    assert len(edge.account.items()) == 1


def test_a_reject_that_was_delivered_since_does_not_open_again(edge: Edge, tmp_path: Path) -> None:
    edge.ingest([reading(seq=1, **HOT), reading(seq=2)])
    edge.deploy(rules(tmp_path, WIDER))
    assert edge.replay().delivered == 1
    retire(edge)
    assert edge.account.keys("landing/") == []
    assert edge.open() == []
    assert edge.replay().chosen == 0


# ---- Sweep ----


def test_what_lost_to_rows_that_are_gone_is_not_owed(edge: Edge, tmp_path: Path) -> None:
    """An attempt landed it and ended; newer rules settled it, with another hot item."""
    stranded = edge.land([moved(1)])
    edge.deploy(rules(tmp_path, OTHER_TIME))
    edge.ingest([moved(1)])
    settled = set(edge.account.keys("landing/")) - {stranded}
    retire(edge, *settled)
    assert edge.account.keys("landing/") == [stranded]
    edge.clock.now += (KEPT_DAYS + 2) * DAY
    assert due(edge.wiring) == []


def test_what_counts_is_owed_though_other_landing_is_gone(edge: Edge) -> None:
    edge.ingest([reading(seq=1)], first=500)
    retire(edge)
    stranded = edge.land([reading(seq=2)])
    edge.clock.now += (KEPT_DAYS + 2) * DAY
    assert [debt.landing_key for debt in due(edge.wiring)] == [stranded]


# ---- Reprocess ----


def test_hot_keys_of_rows_that_are_gone_are_removed(edge: Edge, tmp_path: Path) -> None:
    edge.ingest([moved(1), moved(2)])
    retire(edge)
    edge.deploy(rules(tmp_path, OTHER_TIME))
    report = again(edge)
    assert report.before == {"delivered": 2, "dropped": 0, "quarantined": 0}
    assert (report.hot_keys_removed, report.hot_keys_left, report.changed) == (2, 0, 2)
    assert moments(edge.account) == ["11:00:00"] * 2


def test_hot_keys_are_removed_though_a_compaction_came_first(
    edge: Edge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lake has let go of the rows that lost: an older manifest still names them."""
    edge.ingest([moved(1), moved(2)])
    retire(edge)
    edge.deploy(rules(tmp_path, OTHER_TIME))
    real = module._passes

    def passes(*given: object) -> None:
        real(*given)  # type: ignore[arg-type]
        retire(edge)

    monkeypatch.setattr(module, "_passes", passes)
    report = again(edge)
    assert report.before == {"delivered": 2, "dropped": 0, "quarantined": 0}
    assert (report.hot_keys_removed, report.changed) == (2, 2)
    assert moments(edge.account) == ["11:00:00"] * 2


def test_a_device_gets_back_the_reading_that_only_the_lake_has(edge: Edge, tmp_path: Path) -> None:
    edge.deploy(rules(tmp_path, LATEST))
    edge.ingest([at(1)], NOON + 2 * HOUR, first=300)
    edge.ingest([at(0), at(5, readings={"temperature": 100.0})], NOON + 30 * 60 * SECOND)
    assert times(edge.account.hot) == {"a": "12:00:05"}
    retire(edge)
    edge.deploy(changed(tmp_path, ("max = 125", "max = 90")))
    told = again(edge)
    assert (told.hot_keys_removed, told.hot_keys_left) == (1, 0)
    assert times(edge.account.hot) == {"a": "12:00:01"}
