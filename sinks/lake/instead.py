"""What a lake has of landing objects that are gone.

For whoever asks what landed, long after: landing objects are deleted once the lake has had their
rows for some time (`sinks.lake.retire`). Rows that law 5 had taken away by then are nowhere any
more, but in files that manifests of the last days name.
"""

from __future__ import annotations

from collections.abc import Collection

from sinks.bucket import Bucket
from sinks.lake import manifest
from sinks.lake.manifest import Manifest
from sinks.landing import LANDING


def files(
    bucket: Bucket, contract: str, there: Collection[str], *, past: bool = False
) -> list[str]:
    """Keys of the files that have every row of a lake; none where all landing objects are `there`.

    They are to be listed first: what is deleted after that is missed when it is read. `past` asks
    for what was in the lake in the last days as well.
    """
    lake = manifest.read(bucket, contract)
    if not _lost(bucket, lake, there):
        return []
    lakes = manifest.history(bucket, contract).values() if past else (lake,)
    parts = [part for one in lakes for part in one.partitions]
    return sorted({file.key for part in parts for file in (*part.files, *part.repeats)})


def _lost(bucket: Bucket, lake: Manifest, there: Collection[str]) -> bool:
    """Whether a landing object that a lake has taken in is gone."""
    known = frozenset(there)
    taken = manifest.absorbed_keys(bucket, lake.absorbed).column("key").to_pylist()
    return any(key.startswith(f"{LANDING}/") and key not in known for key in taken)
