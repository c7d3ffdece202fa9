"""A gateway in a process of its own, for tests that kill it.

It says each number that was accepted, on a line of stdout.

    python -m tests.gateway ENDPOINT SPILL WHEN FIRST
"""

import sys

import boto3
from botocore.config import Config

from ingest.producer import Producer, Spill, Stream


def main(endpoint: str, spill: str, when: str, first: str) -> None:
    once = Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=2)
    kinesis = boto3.client(
        "kinesis",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=once,
    )
    kept = Spill(spill, when=when)
    with Producer(Stream(kinesis, "s", together="g"), kept, linger_seconds=0.01) as producer:
        if first == "drain":
            return
        for number in range(int(first), sys.maxsize):
            producer.put("k", b"%d" % number + b"." * (number % 200))
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
