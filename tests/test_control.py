from __future__ import annotations

from collections.abc import Iterator

import pytest

from sinks import control
from tests.support import Cloud, cloud


@pytest.fixture
def clouded() -> Iterator[Cloud]:
    with cloud() as made:
        yield made


def test_a_decision_never_made_is_none(clouded: Cloud):
    assert control.read(clouded.bucket, "epoch") is None


def test_the_last_decision_stands_whole(clouded: Cloud):
    control.write(clouded.bucket, "epoch", {"epoch": 1, "why": "new contract"})
    control.write(clouded.bucket, "epoch", {"epoch": 2})
    assert control.read(clouded.bucket, "epoch") == {"epoch": 2}
    assert clouded.keys("control/") == ["control/epoch.json"]
