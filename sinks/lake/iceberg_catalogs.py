"""Where tables of Iceberg are known by name: SQLite beside a local state, Glue in AWS.

Each is imported by who asks for it: SQLAlchemy, say, takes half a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_glue import GlueClient
    from pyiceberg.catalog import Catalog

NAME = "millrace"
OBJECTS = {"py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO"}


def emulated(url: str, region: str, key: str, secret: str) -> dict[str, str]:
    """How objects are reached at an endpoint of one's own."""
    return {
        "s3.endpoint": url,
        "s3.region": region,
        "s3.access-key-id": key,
        "s3.secret-access-key": secret,
    }


def sqlite(path: Path, s3: Mapping[str, str]) -> Catalog:
    """A catalog in one file, to be closed: it is a context manager."""
    from pyiceberg.catalog.sql import SqlCatalog  # noqa: PLC0415  see above

    return SqlCatalog(NAME, uri=f"sqlite:///{path}", **OBJECTS, **s3)


def glue(client: GlueClient, s3: Mapping[str, str] | None = None) -> Catalog:
    """Glue's; objects are reached as AWS's libraries find credentials, unless told otherwise."""
    from pyiceberg.catalog.glue import GlueCatalog  # noqa: PLC0415  see above

    return GlueCatalog(NAME, client, **OBJECTS, **(s3 or {"s3.region": client.meta.region_name}))
