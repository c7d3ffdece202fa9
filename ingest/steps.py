"""Steps of the lake's upkeep, by name, as its workflow asks for them.

Each step is one commit or none, so that an execution may end anywhere. What the world refuses is
raised: the workflow tries again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ingest import log
from ingest.settings import Wiring

Step = Callable[[Mapping[str, Any], Wiring], dict[str, Any]]
"""What the workflow's state says in, counts out."""


def step(steps: Mapping[str, Step], state: Mapping[str, Any], wiring: Wiring) -> dict[str, Any]:
    """Do what `state["step"]` names; returns counts. Raises `Raced`, `Clash`, a `SinkError`."""
    name = state.get("step", "")
    if name not in steps:
        there = ", ".join(sorted(steps))
        raise ValueError(f"step is {name!r}; the steps of this function are: {there}")
    told = steps[name](state, wiring)
    log.info("lake upkeep", step=name, contract=wiring.contract.name, **told)
    return told
