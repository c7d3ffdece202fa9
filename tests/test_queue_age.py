"""A queue's age is what CloudWatch knows of it, never less, and nothing where it knows nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from moto import mock_aws

from ingest.queue_age import METRIC, NAMESPACE, oldest
from sinks.errors import Unavailable
from tests.support import NOON, SECOND, client, json_error, loopback

NOW = NOON / SECOND + 10


@pytest.fixture
def cloudwatch() -> Iterator[Any]:
    with mock_aws():
        yield client("cloudwatch")


def put_age(cloudwatch: Any, queue: str, seconds: float, at: datetime) -> None:
    """What SQS tells CloudWatch of a queue."""
    cloudwatch.put_metric_data(
        Namespace=NAMESPACE,
        MetricData=[
            {
                "MetricName": METRIC,
                "Dimensions": [{"Name": "QueueName", "Value": queue}],
                "Timestamp": at,
                "Value": seconds,
                "Unit": "Seconds",
            }
        ],
    )


def minutes_ago(count: int) -> datetime:
    return datetime.fromtimestamp(NOON / SECOND, UTC) - timedelta(minutes=count)


def test_it_is_the_newest_minutes_and_what_has_passed_since(cloudwatch: Any):
    put_age(cloudwatch, "q", 500, minutes_ago(4))
    put_age(cloudwatch, "q", 7, minutes_ago(2))
    put_age(cloudwatch, "q", 30, minutes_ago(2) + timedelta(seconds=20))
    put_age(cloudwatch, "another", 3, minutes_ago(1))
    assert oldest(cloudwatch, "q", NOW) == 30 + 120 + 10


def test_of_a_queue_that_nothing_was_told_of_nothing_is_known(cloudwatch: Any):
    put_age(cloudwatch, "q", 7, minutes_ago(60))
    assert oldest(cloudwatch, "q", NOW) is None


def test_that_it_does_not_answer_is_weather():
    with loopback(json_error(500, "InternalServiceFault")) as server:
        answers = server.client("cloudwatch")
        with pytest.raises(Unavailable, match="age of queue q"):
            oldest(answers, "q", NOW)
