"""Fixtures that the tests of several modules share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ingest import telemetry
from tests.edge import Edge
from tests.support import Cloud, cloud


@pytest.fixture(scope="session", autouse=True)
def namespace() -> Iterator[None]:
    """What a deployment sets in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(telemetry.metrics.provider, "namespace", "Millrace")
        yield


@pytest.fixture
def account() -> Iterator[Cloud]:
    with cloud() as made:
        yield made


@pytest.fixture
def edge(account: Cloud) -> Edge:
    return Edge(account)
