"""A state's lakes as tables of Iceberg, in a catalog of one file beside their objects.

pyiceberg is imported by the first call, for it takes a second or more: other commands do without.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from infra.local.emulator import ENVIRONMENT, REGION
from infra.local.state import State
from infra.topology import BUCKET
from sinks.bucket import Bucket
from sinks.lake import manifest
from transform.contract import Contract

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from pyiceberg.catalog import Catalog

    from sinks.lake.iceberg import Published, Target

CATALOG = "catalog.db"


def publish(state: State, s3: S3Client, contracts: Iterable[Contract]) -> list[Published]:
    """Make the tables show what the manifests say, sealed hours in tables of their own."""
    from sinks.lake import iceberg  # noqa: PLC0415  see above

    with catalog(state, s3) as made:
        return [
            iceberg.publish(target, lake)
            for contract in contracts
            for lake in [manifest.read(Bucket(s3, BUCKET), contract.name)]
            for target in targets(made, contract)
        ]


def expire(state: State, s3: S3Client, contract: Contract, before: datetime) -> frozenset[str]:
    """Forget what was shown before; returns what snapshots still need, for `retire`."""
    from sinks.lake import iceberg  # noqa: PLC0415  see above

    with catalog(state, s3) as made:
        both = targets(made, contract)
        for target in both:
            iceberg.expire(target, before)
        return frozenset().union(*map(iceberg.needed, both))


def targets(made: Catalog, contract: Contract) -> list[Target]:
    """The table of all hours, and that of sealed ones."""
    from sinks.lake.iceberg import Target  # noqa: PLC0415  see above

    url = f"s3://{BUCKET}"
    return [Target(made, url, contract), Target(made, url, contract, sealed_only=True)]


@contextmanager
def catalog(state: State, s3: S3Client) -> Iterator[Catalog]:
    """The state's catalog; objects are where this client reaches them."""
    from sinks.lake import iceberg_catalogs  # noqa: PLC0415  see above

    key, secret = ENVIRONMENT["AWS_ACCESS_KEY_ID"], ENVIRONMENT["AWS_SECRET_ACCESS_KEY"]
    reached = iceberg_catalogs.emulated(s3.meta.endpoint_url, REGION, key, secret)
    with iceberg_catalogs.sqlite(state / CATALOG, reached) as made:
        yield made
