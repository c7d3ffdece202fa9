"""S3 in a folder: a bucket is a directory, an object a file, for as many processes as like.

The client's calls that `sinks.bucket` makes, with its conditions. What is written appears whole.
"""

from __future__ import annotations

import fcntl
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from infra.doubles.world import Call, refused
from sinks.bucket import Bucket

PAGE_KEYS = 1_000  # ListObjectsV2: keys a page
NAME = "bucket"


def bucket(root: Path) -> Bucket:
    """The bucket under a folder, made if it is not there."""
    made = FolderS3(root)
    made.create_bucket(Bucket=NAME)
    return Bucket(cast("Any", made), NAME)


def path(root: Path, key: str) -> Path:
    """Where the object of `bucket(root)` lies."""
    return root / NAME / key


@dataclass(frozen=True)
class FolderS3:
    """A client whose buckets are the directories of `root`."""

    root: Path

    def create_bucket(self, *, Bucket: str) -> dict[str, Any]:  # noqa: N803  as boto3
        (self.root / Bucket).mkdir(parents=True, exist_ok=True)
        return {}

    def put_object(
        self,
        *,
        Bucket: str,  # noqa: N803  as boto3
        Key: str,  # noqa: N803
        Body: bytes,  # noqa: N803
        IfNoneMatch: str | None = None,  # noqa: N803
        IfMatch: str | None = None,  # noqa: N803
    ) -> dict[str, Any]:
        call = Call("s3", "PutObject", Key)
        file = self._file(call, Bucket, Key)
        file.parent.mkdir(parents=True, exist_ok=True)
        with self._alone():
            held = _tag(file.stat()) if file.exists() else None
            if IfMatch and held is None:
                raise refused(call, "NoSuchKey", 404)
            if (IfNoneMatch and held) or (IfMatch and IfMatch != held):
                raise refused(call, "PreconditionFailed", 412)
            made = self.root / "written"
            made.unlink(missing_ok=True)
            made.write_bytes(Body)
            return {"ETag": _tag(made.replace(file).stat())}

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803  as boto3
        call = Call("s3", "GetObject", Key)
        try:
            with self._file(call, Bucket, Key).open("rb") as file:
                data, tag = file.read(), _tag(os.fstat(file.fileno()))
        except FileNotFoundError:
            raise refused(call, "NoSuchKey", 404) from None
        return {"Body": io.BytesIO(data), "ContentLength": len(data), "ETag": tag}

    def head_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803  as boto3
        call = Call("s3", "HeadObject", Key)
        try:
            found = self._file(call, Bucket, Key).stat()
        except FileNotFoundError:
            raise refused(call, "404", 404) from None  # a HEAD has no body to say more
        return {"ContentLength": found.st_size, "ETag": _tag(found)}

    def delete_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803  as boto3
        self._file(Call("s3", "DeleteObject", Key), Bucket, Key).unlink(missing_ok=True)
        return {}

    def delete_objects(self, *, Bucket: str, Delete: dict[str, Any]) -> dict[str, Any]:  # noqa: N803
        for entry in Delete["Objects"]:
            self.delete_object(Bucket=Bucket, Key=entry["Key"])
        return {"Deleted": [{"Key": entry["Key"]} for entry in Delete["Objects"]]}

    def get_paginator(self, operation: str) -> _Pages:
        if operation != "list_objects_v2":
            raise NotImplementedError(operation)
        return _Pages(self)

    def listed(self, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
        """The objects under a prefix, in S3's order."""
        top = self._file(Call("s3", "ListObjectsV2", prefix), bucket, "")
        files = top.joinpath(prefix.rpartition("/")[0]).rglob("*")
        keys = (str(file.relative_to(top)) for file in files if file.is_file())
        for key in sorted((k for k in keys if k.startswith(prefix)), key=str.encode):
            try:
                found = (top / key).stat()
            except FileNotFoundError:  # deleted since
                continue
            modified = datetime.fromtimestamp(int(found.st_mtime), UTC)
            size, tag = found.st_size, _tag(found)
            yield {"Key": key, "LastModified": modified, "Size": size, "ETag": tag}

    def _file(self, call: Call, bucket: str, key: str) -> Path:
        folder = self.root / bucket
        if not folder.is_dir():
            raise refused(call, "NoSuchBucket", 404)
        return folder / key

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Between a condition and the write nobody else writes. Processes wait, threads too."""
        with (self.root / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _tag(found: os.stat_result) -> str:
    """Another for each write. S3's own is a digest of the bytes, for which no reader has to pay."""
    return f'"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"'


@dataclass(frozen=True)
class _Pages:
    client: FolderS3

    def paginate(self, *, Bucket: str, Prefix: str = "") -> Iterator[dict[str, Any]]:  # noqa: N803
        found = list(self.client.listed(Bucket, Prefix))
        for start in range(0, max(len(found), 1), PAGE_KEYS):
            page = found[start : start + PAGE_KEYS]
            more = start + PAGE_KEYS < len(found)
            listed = {"Contents": page} if page else {}  # an empty page has no Contents at all
            yield {"KeyCount": len(page), "IsTruncated": more} | listed
