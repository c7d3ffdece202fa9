"""A producer for devices and gateways: messages to Kinesis or SQS, at least once, network or not.

    import boto3
    from ingest.producer import Producer, Spill, Stamp, Stream

    stream = Stream(boto3.client("kinesis"), "fleet", together="gateway-7")
    stamp = Stamp("gateway-7")
    with Producer(stream, Spill("/var/lib/gateway")) as producer:
        for reading in readings:
            producer.put(reading["sensor"], stamp(reading))

It runs where boto3 does and imports nothing else: no pyarrow, nothing of the Lambda side.

    put ──▶ Outbox ──▶ Courier ──▶ Stream, Queue          (a thread sends, one request at a time)
              │ Log: what is not acknowledged, on the disk
"""

from ingest.producer.messages import (
    Acknowledged,
    Counters,
    Full,
    Message,
    Position,
    ProducerError,
    Refusal,
    SpillError,
    Unsendable,
    Unsent,
)
from ingest.producer.producer import Producer
from ingest.producer.queue import Queue
from ingest.producer.spill import Spill
from ingest.producer.stamp import Stamp
from ingest.producer.stream import Stream

__all__ = [
    "Acknowledged",
    "Counters",
    "Full",
    "Message",
    "Position",
    "Producer",
    "ProducerError",
    "Queue",
    "Refusal",
    "Spill",
    "SpillError",
    "Stamp",
    "Stream",
    "Unsendable",
    "Unsent",
]
