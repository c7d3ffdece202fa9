"""The account counts what is parked, but only where no better fate is there."""

from __future__ import annotations

from infra import account
from infra.fates import Follower, Settlement
from infra.lake import Lake
from infra.push import Sent
from sinks import ledger
from tests.support import cloud, reading
from tests.test_verify import SHARD, STREAM, TELEMETRY, State


class Known(Follower):
    """A follower whose news is the whole ledger, whatever the time."""

    def follow(self) -> list[ledger.Attempt]:
        return list(ledger.attempts(self._table))


def test_a_position_that_is_parked_and_delivered_counts_as_delivered():
    sent = Sent()
    for sequence in ("100", "101", "102", "103"):
        sent.add(STREAM, SHARD, sequence, 1)
    with cloud() as made:
        state = State(made)
        state.deliver(reading(seq=1), b"no")
        settlement = Settlement(made.bucket, Known(made.ledger, None))
        settlement.follow()
        parked = {(STREAM, SHARD, sequence) for sequence in ("100", "101", "102")}
        lake = Lake(made.bucket, made.ledger, [TELEMETRY])
        told = account.take(lake, TELEMETRY, made.hot, settlement, sent, parked, 1)
    assert (told.delivered, told.quarantined) == (1, {"malformed_json": 1})
    assert (told.parked, told.unaccounted, told.conserved) == (1, 1, False)
