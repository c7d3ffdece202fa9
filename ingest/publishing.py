"""The lake's upkeep, its other half: show the lake to engines, then delete what nobody needs.

Apart from compaction, because pyiceberg and DuckDB together are too large for one function.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import boto3

from ingest.settings import Wiring
from ingest.upkeep import Step
from sinks.lake import iceberg, iceberg_catalogs, manifest, retire
from sinks.lake.iceberg import Target
from sinks.lake.retire import HISTORY, Keep


def published(_: Mapping[str, Any], wiring: Wiring) -> dict[str, Any]:
    """Both tables as the manifest is now: of all hours, and of sealed ones."""
    lake = manifest.read(wiring.bucket, wiring.contract.name)
    done = [iceberg.publish(target, lake) for target in targets(wiring)]
    return {
        "version": lake.version,
        "added": sum(one.added for one in done),
        "removed": sum(one.removed for one in done),
    }


def retired(_: Mapping[str, Any], wiring: Wiring) -> dict[str, Any]:
    """What the tables showed long ago goes first: what is still shown is kept."""
    now = datetime.fromtimestamp(wiring.clock(), UTC)
    shown = targets(wiring)
    for target in shown:
        iceberg.expire(target, now - HISTORY)
    keep = Keep(needed=frozenset().union(*map(iceberg.needed, shown)))
    return vars(retire.retire(wiring.bucket, wiring.contract.name, now, keep))


def targets(wiring: Wiring) -> list[Target]:
    """The contract's tables in Glue; where the environment names an endpoint, that one's."""
    client = boto3.client("glue")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    reached = {"s3.region": client.meta.region_name}
    catalog = iceberg_catalogs.glue(
        client, reached | {"s3.endpoint": endpoint} if endpoint else reached
    )
    url, contract = f"s3://{wiring.bucket.name}", wiring.contract
    return [Target(catalog, url, contract), Target(catalog, url, contract, sealed_only=True)]


PUBLISH: Mapping[str, Step] = {"publish": published, "retire": retired}
