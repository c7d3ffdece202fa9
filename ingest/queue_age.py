"""How old a queue's oldest message is, as CloudWatch knows it: SQS itself does not say.

The metric does not count a message of a standard queue that came back three times [SQS guide,
available CloudWatch metrics], and is told minutes late: what stands on it is approximate.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sinks.errors import translated

NAMESPACE = "AWS/SQS"
METRIC = "ApproximateAgeOfOldestMessage"
PERIOD_SECONDS = 60  # SQS tells its metrics each minute
LOOK_BACK = timedelta(minutes=15)


def oldest(cloudwatch: Any, queue: str, now: float) -> float | None:
    """How many seconds ago a queue's oldest message was sent, at most; None where nothing is told.

    Of the newest minute that is told: all that came since it began is younger than its oldest then.
    """
    metric = {
        "Namespace": NAMESPACE,
        "MetricName": METRIC,
        "Dimensions": [{"Name": "QueueName", "Value": queue}],
    }
    until = datetime.fromtimestamp(now, UTC)
    with translated(f"ask CloudWatch for the age of queue {queue}"):
        answer = cloudwatch.get_metric_data(
            MetricDataQueries=[
                {
                    "Id": "age",
                    "MetricStat": {"Metric": metric, "Period": PERIOD_SECONDS, "Stat": "Maximum"},
                }
            ],
            StartTime=(until - LOOK_BACK).replace(second=0, microsecond=0),  # as CloudWatch rounds
            EndTime=until,
            ScanBy="TimestampDescending",
        )
    [age] = answer["MetricDataResults"]
    if not age["Values"]:
        return None
    since: timedelta = until - age["Timestamps"][0]
    return float(age["Values"][0]) + since.total_seconds()
