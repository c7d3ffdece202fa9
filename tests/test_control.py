from __future__ import annotations

from sinks import control
from tests.support import Cloud


def test_a_decision_never_made_is_none(account: Cloud):
    assert control.read(account.bucket, "epoch") is None


def test_the_last_decision_stands_whole(account: Cloud):
    control.write(account.bucket, "epoch", {"epoch": 1, "why": "new contract"})
    control.write(account.bucket, "epoch", {"epoch": 2})
    assert control.read(account.bucket, "epoch") == {"epoch": 2}
    assert account.keys("control/") == ["control/epoch.json"]
