"""S3, the little of it that Millrace uses. Objects are named by the digest of their own bytes.

A key that holds the digest of the bytes can only ever hold those bytes, or what an erasure left of
them (`sinks.erasures`): so a write that finds the key taken (412) has succeeded, and a retry that
writes other bytes writes another key (law 4).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from sinks.deadline import Deadline
from sinks.errors import Gone, Refused, Unavailable, of_answer, translated

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectTypeDef

TAKEN = 412  # HTTP: the key exists, and `If-None-Match: *` was asked for
RACE = 409  # HTTP: another writer of the key was faster to begin and is not done
DELETE_MAX = 1_000  # keys of one DeleteObjects
RACES_MAX = 5  # 409 answers (two writers of one key at once) before it counts as weather


Condition = Mapping[str, str]
"""Under which an object is written: S3 answers 412 where it does not hold, 409 in a race."""

ABSENT: Condition = {"IfNoneMatch": "*"}


class Found(NamedTuple):
    """An object's bytes, and the tag by which S3 tells them from others."""

    data: bytes
    tag: str


class Objects(Protocol):
    """How objects reach a bucket and come back: the transport, and no more."""

    def get(self, key: str) -> Found:
        """An object, whole. Raises `Gone`, `Unavailable`, `Misconfigured`."""

    def put(
        self, key: str, data: bytes, condition: Condition, deadline: Deadline | None = None
    ) -> None:
        """Write an object under a condition; one that does not hold is `Refused`, with its status.

        Weather is tried again, where that is known not to come after the deadline.
        """


@dataclass(frozen=True)
class BotoObjects:
    """`Objects` by boto3's client, which tries again by itself."""

    client: S3Client
    name: str

    def get(self, key: str) -> Found:
        """An object, whole."""
        with translated(f"get s3://{self.name}/{key}"):
            found = self.client.get_object(Bucket=self.name, Key=key)
            return Found(found["Body"].read(), found.get("ETag", ""))

    def put(
        self, key: str, data: bytes, condition: Condition, deadline: Deadline | None = None
    ) -> None:
        """Write an object under a condition."""
        del deadline
        call: dict[str, Any] = {**condition}
        with translated(f"put s3://{self.name}/{key}"):
            self.client.put_object(Bucket=self.name, Key=key, Body=data, **call)


@dataclass(frozen=True)
class Bucket:
    """One S3 bucket; objects go by `objects`, or by the client."""

    client: S3Client
    name: str
    objects: Objects | None = None

    def put_once(
        self, prefix: str, arrival_micros: int, data: bytes, deadline: Deadline | None = None
    ) -> str:
        """Write `data` and return its key: `prefix/YYYY-MM-DD/HH/<sha256>.parquet`, by arrival.

        Written before counts as written. Raises `Unavailable`, `Misconfigured`, `DeadlinePassed`.
        """
        hour = datetime.fromtimestamp(arrival_micros // 1_000_000, UTC)
        digest = hashlib.sha256(data).hexdigest()
        key = f"{prefix}/{hour:%Y-%m-%d/%H}/{digest}.parquet"
        self.put_absent(key, data, deadline)
        return key

    def put_absent(self, key: str, data: bytes, deadline: Deadline | None = None) -> None:
        """Write an object whose key names its bytes: that it is there already is success.

        Raises `Unavailable`, `Misconfigured`, `DeadlinePassed`.
        """
        what = f"put s3://{self.name}/{key}"
        for _ in range(RACES_MAX):
            if deadline is not None:
                deadline.check(what)
            try:
                self._objects.put(key, data, ABSENT, deadline)
            except Refused as refused:
                if refused.status == RACE:
                    continue
                if refused.status != TAKEN:
                    raise
            return
        raise Unavailable(f"{what}: another writer of the same key kept it busy")

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises `Gone`, `Unavailable`, `Misconfigured`."""
        return self._objects.get(key).data

    def part(self, key: str, start: int, stop: int) -> bytes:
        """The object's bytes from `start` to before `stop`.

        Raises `Gone`, `Unavailable`, `Misconfigured`.
        """
        if start >= stop:
            return b""
        with translated(f"get s3://{self.name}/{key}"):
            span = f"bytes={start}-{stop - 1}"
            return self.client.get_object(Bucket=self.name, Key=key, Range=span)["Body"].read()

    def find(self, key: str) -> bytes | None:
        """The object's bytes, None where there is none. Raises `Unavailable`, `Misconfigured`."""
        try:
            return self.get(key)
        except Gone:
            return None

    def put(self, key: str, data: bytes) -> None:
        """Write an object that may be replaced: an operator's control, never a record's.

        Raises `Unavailable`, `Misconfigured`.
        """
        try:
            self._objects.put(key, data, {})
        except Refused as refused:
            if refused.status != RACE:
                raise
            raise Unavailable(str(refused)) from refused

    def change(self, key: str, change: Callable[[bytes | None], bytes]) -> bytes:
        """Replace an object by what `change` makes of it (None: there is none); returns that.

        Nobody's change gets lost: where another writer was faster, `change` is asked again. So it
        is after a lost answer, and must come to the same. Raises `Unavailable`, `Misconfigured`.
        """
        what = f"change s3://{self.name}/{key}"
        for _ in range(RACES_MAX):
            held, condition = self._held(key)
            data = change(held)
            if data == held:
                return data
            try:
                self._objects.put(key, data, condition)
            except Gone:
                continue
            except Refused as refused:
                if refused.status not in {RACE, TAKEN}:
                    raise
                continue
            return data
        raise Unavailable(f"{what}: other writers of the same key kept it busy")

    def delete(self, keys: Iterable[str]) -> int:
        """Delete objects; returns how many were asked for. Those that are not there count.

        Raises `Unavailable`, `Misconfigured`; what was not deleted then can be asked for again.
        """
        asked = list(keys)
        for start in range(0, len(asked), DELETE_MAX):
            part = asked[start : start + DELETE_MAX]
            what = f"delete {len(part)} objects of s3://{self.name}, from {part[0]}"
            with translated(what):
                answer = self.client.delete_objects(
                    Bucket=self.name,
                    Delete={"Objects": [{"Key": key} for key in part], "Quiet": True},
                )
            for refused in answer.get("Errors", []):
                code, said = refused.get("Code", ""), refused.get("Message", "")
                raise of_answer(f"delete s3://{self.name}/{refused.get('Key')}", 0, code, said)
        return len(asked)

    @cached_property
    def _objects(self) -> Objects:
        return self.objects or BotoObjects(self.client, self.name)

    def _held(self, key: str) -> tuple[bytes | None, Condition]:
        """An object's bytes, and the condition under which a write replaces just these."""
        try:
            data, tag = self._objects.get(key)
        except Gone:
            return None, ABSENT
        return data, {"IfMatch": tag}

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key under `prefix`, in S3's order."""
        for entry in self._listed(prefix):
            yield entry["Key"]

    def written(self, prefix: str) -> Iterator[tuple[str, float]]:
        """Every key under `prefix` and when its object was written, in seconds since 1970."""
        for entry in self._listed(prefix):
            yield entry["Key"], entry["LastModified"].timestamp()

    def _listed(self, prefix: str) -> Iterator[ObjectTypeDef]:
        with translated(f"list s3://{self.name}/{prefix}"):
            pages = self.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.name, Prefix=prefix):
                yield from page.get("Contents", [])
