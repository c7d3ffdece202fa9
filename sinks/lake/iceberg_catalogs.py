"""Where tables of Iceberg are known by name: SQLite beside a local state, Glue in AWS."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.glue import GlueCatalog
from pyiceberg.catalog.sql import SqlCatalog

if TYPE_CHECKING:
    from mypy_boto3_glue import GlueClient

NAME = "millrace"
IO = {"py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO"}


def emulated(url: str, region: str, key: str, secret: str) -> dict[str, str]:
    """How objects are reached at an endpoint of one's own."""
    return {
        "s3.endpoint": url,
        "s3.region": region,
        "s3.access-key-id": key,
        "s3.secret-access-key": secret,
    }


def sqlite(path: Path, s3: dict[str, str]) -> Catalog:
    """A catalog in one file; to be closed."""
    return SqlCatalog(NAME, uri=f"sqlite:///{path}", **IO, **s3)


def glue(client: GlueClient, s3: dict[str, str] | None = None) -> Catalog:
    """Glue's; objects are reached with the process's own credentials unless told otherwise."""
    return GlueCatalog(NAME, client, **IO, **(s3 or {"s3.region": client.meta.region_name}))
