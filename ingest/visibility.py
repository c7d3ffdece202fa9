"""Messages that failed come back soon, not when the queue's visibility timeout is over.

That timeout has to outlast the slowest attempt; a message that was handed back need not wait so
long. The wait doubles with each receive, with full jitter, so that an outage is not hammered and
what failed together does not come back together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ingest import log
from ingest.settings import Context, Wiring
from sinks.errors import Refused, SinkError, translated
from transform.records import Delivery

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import ChangeMessageVisibilityBatchRequestEntryTypeDef

BATCH_MAX = 10  # SQS ChangeMessageVisibilityBatch: entries a call
FIRST_SECONDS = 2
MAX_SECONDS = 900
KEEP_MILLIS = 1_000  # of the function's time, for its answer


def hasten(delivery: Delivery, answer: dict[str, Any], wiring: Wiring, context: Context) -> None:
    """Shorten the visibility of the messages that `answer` hands back, as far as time allows.

    Best effort: what cannot be shortened comes back after the queue's own timeout.
    """
    failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
    back = [index for index, name in enumerate(delivery.sequences) if name in failed]
    if not back:
        return
    waits = _waits(delivery, back, wiring)
    entries: list[ChangeMessageVisibilityBatchRequestEntryTypeDef] = [
        {
            "Id": str(index),
            "ReceiptHandle": delivery.receipts[index],
            "VisibilityTimeout": waits[index],
        }
        for index in back
    ]
    try:
        url = wiring.queue_url(delivery.stream)
        for at in range(0, len(entries), BATCH_MAX):
            if context.get_remaining_time_in_millis() < KEEP_MILLIS:
                return
            with translated(f"shorten visibility in {delivery.stream}"):
                wiring.sqs.change_message_visibility_batch(
                    QueueUrl=url, Entries=entries[at : at + BATCH_MAX]
                )
    except (SinkError, Refused) as error:
        log.warning("visibility not shortened", error=str(error), messages=len(back))


def _waits(delivery: Delivery, back: list[int], wiring: Wiring) -> dict[int, int]:
    """Seconds for each message. Those of one FIFO group wait alike: none may overtake another."""
    waits: dict[int, int] = {}
    of_group: dict[str, int] = {}
    for index in back:
        most = min(FIRST_SECONDS * 2 ** min(delivery.receives[index], 30), MAX_SECONDS)
        wait = round(wiring.waiting.uniform(1, most))
        group = delivery.groups[index]
        waits[index] = wait if group is None else of_group.setdefault(group, wait)
    return waits
