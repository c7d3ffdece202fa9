"""How far devices' clocks are from ours: the view `device_clocks`, one row per contract and device.

Skew is arrival minus event time: positive for what came late, whether the network or the clock was
slow, negative for a clock that is ahead.
"""

from __future__ import annotations

from transform.contract import Contract

VIEW = "device_clocks"
LATE_SECONDS = 3_600  # beyond it a record counts as late


def device_clocks(contract: Contract, records: str) -> str:
    """SQL for the rows of a contract, whose records are in the view `records`."""
    return f"""
        SELECT '{contract.name}' AS _contract, "{contract.device}"::VARCHAR AS device,
            count(*) AS records,
            quantile_cont(skew, 0.5) AS skew_p50, quantile_cont(skew, 0.95) AS skew_p95,
            min(skew) AS skew_min, max(skew) AS skew_max,
            avg(({_late("skew")})::INT) AS late_share, max(_arrival) AS last_seen
        FROM (SELECT *, {_skew_seconds(contract)} AS skew FROM {records})
        GROUP BY ALL
    """  # noqa: S608  our own names


def _skew_seconds(contract: Contract) -> str:
    """Of text, which an event time can be where versions of a contract differ, where it is one."""
    event_time = f'TRY_CAST("{contract.event_time}" AS TIMESTAMPTZ)'
    return f"(epoch_us(_arrival) - epoch_us({event_time})) / 1e6"


def _late(skew: str) -> str:
    return f"{skew} > {LATE_SECONDS}"
