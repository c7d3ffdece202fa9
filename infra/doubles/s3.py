"""S3 in memory: whole objects, conditional writes, listings by page, lifecycle expiry."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from infra.doubles.world import Call, World, refused

PAGE_KEYS = 1_000  # ListObjectsV2: keys a page
KEY_BYTES_MAX = 1_024


@dataclass(frozen=True)
class Stored:
    """An object's bytes, and when they were written (seconds since 1970)."""

    data: bytes
    written_at: float

    @cached_property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.data, usedforsecurity=False).hexdigest()}"'


@dataclass
class S3:
    """A client of the account whose buckets are `buckets`: clients may share them.

    `expiry_seconds` is a lifecycle rule by key prefix: what is older is gone.
    """

    world: World
    buckets: dict[str, dict[str, Stored]] = field(default_factory=dict)
    expiry_seconds: dict[str, float] = field(default_factory=dict)
    page_keys: int = PAGE_KEYS

    def create_bucket(self, *, Bucket: str) -> dict[str, Any]:  # noqa: N803  as boto3
        self.buckets.setdefault(Bucket, {})
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

        def act() -> dict[str, Any]:
            objects = self._objects(call, Bucket)
            if len(Key.encode()) > KEY_BYTES_MAX:
                raise refused(call, "KeyTooLongError")
            if IfNoneMatch not in {None, "*"}:
                raise refused(call, "NotImplemented", 501)
            if IfMatch and Key not in objects:
                raise refused(call, "NoSuchKey", 404)
            if (IfNoneMatch and Key in objects) or (IfMatch and IfMatch != objects[Key].etag):
                raise refused(call, "PreconditionFailed", 412)
            objects[Key] = stored = Stored(bytes(Body), self.world.clock())
            return {"ETag": stored.etag}

        return self.world.effect(call, act)

    def get_object(
        self,
        *,
        Bucket: str,  # noqa: N803  as boto3
        Key: str,  # noqa: N803
        Range: str = "bytes=0-",  # noqa: N803
    ) -> dict[str, Any]:
        call = Call("s3", "GetObject", Key)
        first, _, last = Range.removeprefix("bytes=").partition("-")

        def act() -> dict[str, Any]:
            stored = self._objects(call, Bucket).get(Key)
            if stored is None:
                raise refused(call, "NoSuchKey", 404)
            data = stored.data[int(first) : int(last) + 1 if last else None]
            body = io.BytesIO(data)
            return {"Body": body, "ContentLength": len(data), "ETag": stored.etag}

        return self.world.effect(call, act)

    def head_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803  as boto3
        call = Call("s3", "HeadObject", Key)

        def act() -> dict[str, Any]:
            stored = self._objects(call, Bucket).get(Key)
            if stored is None:
                raise refused(call, "404", 404)  # a HEAD has no body to say more
            return {"ContentLength": len(stored.data), "ETag": stored.etag}

        return self.world.effect(call, act)

    def delete_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803  as boto3
        call = Call("s3", "DeleteObject", Key)

        def act() -> dict[str, Any]:
            self._objects(call, Bucket).pop(Key, None)
            return {}

        return self.world.effect(call, act)

    def delete_objects(self, *, Bucket: str, Delete: dict[str, Any]) -> dict[str, Any]:  # noqa: N803
        call = Call("s3", "DeleteObjects")

        def act() -> dict[str, Any]:
            objects = self._objects(call, Bucket)
            for entry in Delete["Objects"]:
                objects.pop(entry["Key"], None)
            return {"Deleted": [{"Key": entry["Key"]} for entry in Delete["Objects"]]}

        return self.world.effect(call, act)

    def list_objects_v2(
        self,
        *,
        Bucket: str,  # noqa: N803  as boto3
        Prefix: str = "",  # noqa: N803
        StartAfter: str = "",  # noqa: N803
        ContinuationToken: str = "",  # noqa: N803
    ) -> dict[str, Any]:
        call = Call("s3", "ListObjectsV2", Prefix)

        def act() -> dict[str, Any]:
            objects = self._objects(call, Bucket)
            after = max(StartAfter, ContinuationToken)
            keys = sorted(k for k in objects if k.startswith(Prefix) and k > after)
            page = keys[: self.page_keys]
            answer: dict[str, Any] = {"KeyCount": len(page), "IsTruncated": len(page) < len(keys)}
            if page:  # an empty page has no Contents at all
                answer["Contents"] = [_listed(key, objects[key]) for key in page]
            if answer["IsTruncated"]:
                answer["NextContinuationToken"] = page[-1]
            return answer

        return self.world.effect(call, act)

    def get_paginator(self, operation: str) -> _Pages:
        if operation != "list_objects_v2":
            raise NotImplementedError(operation)
        return _Pages(self)

    def _objects(self, call: Call, bucket: str) -> dict[str, Stored]:
        if bucket not in self.buckets:
            raise refused(call, "NoSuchBucket", 404)
        objects = self.buckets[bucket]
        for prefix, seconds in self.expiry_seconds.items():
            self._expire(objects, prefix, self.world.clock() - seconds)
        return objects

    def _expire(self, objects: dict[str, Stored], prefix: str, before: float) -> None:
        old = [k for k, o in objects.items() if k.startswith(prefix) and o.written_at <= before]
        for key in old:
            del objects[key]


def _listed(key: str, stored: Stored) -> dict[str, Any]:
    """An object as a listing has it."""
    modified = datetime.fromtimestamp(stored.written_at, UTC).replace(microsecond=0)
    size = len(stored.data)
    return {"Key": key, "LastModified": modified, "Size": size, "ETag": stored.etag}


@dataclass(frozen=True)
class _Pages:
    client: S3

    def paginate(self, **asked: Any) -> Iterator[dict[str, Any]]:
        token: dict[str, Any] = {}
        while True:
            page = self.client.list_objects_v2(**asked, **token)
            yield page
            if not page["IsTruncated"]:
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}
