"""What a function's answer means to an event source mapping.

Every rule stands in AWS's documentation; what does not is a field of `Undocumented`, so that
whoever relies on a guess has to say so, and a test can try each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import Any, Literal

SHOWN_BYTES = 2_000  # of a function's error: enough to find it, little enough to print

Source = Literal["kinesis", "sqs"]


@dataclass(frozen=True)
class Undocumented:
    """What AWS leaves open, settled. Each field's default is the reading that replays most.

    A function is safe if it is right under `every()` of them.
    """

    kinesis_unknown_fails_batch: bool = True
    """A sequence number that is not in the batch fails all of it; else that number is ignored."""
    odd_shape_fails_batch: bool = True
    """An answer of another shape (a string, a list) fails the batch; else it is total success."""
    progress_resets_retries: bool = False
    """A checkpoint that moved starts the retry count anew; else what is left inherits it."""
    split_resets_retries: bool = False
    """The halves of a bisected batch start at no retries; else they inherit their parent's."""
    bisect_halves_at_first: bool = False
    """With bisect, an answer naming a batch's first record halves it; else it is retried whole."""
    rest_is_topped_up: bool = False
    """New records join what is left of a batch; else the rest is retried as it is."""
    age_takes_whole_batch: bool = False
    """One record over the age discards its batch; else only those over the age are discarded."""

    @classmethod
    def every(cls) -> Iterator[Undocumented]:
        """Every combination of the settings."""
        for chosen in product((False, True), repeat=len(fields(cls))):
            yield cls(*chosen)


SETTLED = Undocumented()


@dataclass(frozen=True)
class Result:
    """What came of an attempt to invoke a function with a batch.

    `answered`: it returned `payload`. `failed`: it raised, timed out or died. `refused`: it was not
    invoked at all (a throttle, an error of the service).
    """

    kind: Literal["answered", "failed", "refused"]
    payload: bytes = b""
    error: str = ""


@dataclass(frozen=True)
class Meaning:
    """What a mapping makes of a `Result`; `failed` names what a partial answer hands back."""

    kind: Literal["success", "partial", "failure", "refused"]
    failed: tuple[str, ...] = ()
    reason: str = ""
    function_error: str = ""


def meaning(
    result: Result,
    batch: Sequence[str],
    source: Source,
    undocumented: Undocumented = SETTLED,
    *,
    reports: bool = True,
) -> Meaning:
    """What `result` means for the batch of these identifiers.

    `reports` is ReportBatchItemFailures: without it, whatever a function returns is success.
    """
    if result.kind == "refused":
        return Meaning("refused", reason=result.error)
    if result.kind == "failed":
        told = result.payload[:SHOWN_BYTES].decode(errors="replace")
        return Meaning("failure", (), f"function error {result.error}: {told}", result.error)
    if not reports:
        return Meaning("success")
    try:
        identifiers = list(_identifiers(result.payload))
    except ValueError as odd:
        documented = source == "sqs" and not isinstance(odd, _OddShapeError)
        if documented or undocumented.odd_shape_fails_batch:
            return Meaning("failure", reason=str(odd))
        return Meaning("success")
    return _named(identifiers, set(batch), source, undocumented)


class _OddShapeError(ValueError):
    """JSON, but nothing that the documentation mentions."""


def _identifiers(payload: bytes) -> Iterator[Any]:
    """The identifiers in an answer, whatever they are; one that is missing is None."""
    try:
        answer = json.loads(payload or b"null")
    except ValueError:
        raise ValueError("the answer is not JSON") from None
    if answer is None:
        return
    failures = answer.get("batchItemFailures") if isinstance(answer, dict) else answer
    if failures is None:
        return
    if not isinstance(answer, dict) or not isinstance(failures, list):
        raise _OddShapeError("the answer's batchItemFailures is no list")
    for failure in failures:
        yield failure.get("itemIdentifier") if isinstance(failure, dict) else None


def _named(
    identifiers: Sequence[Any], known: set[str], source: Source, undocumented: Undocumented
) -> Meaning:
    named = []
    for identifier in identifiers:
        if isinstance(identifier, str) and identifier in known:
            named.append(identifier)
            continue
        is_number = isinstance(identifier, str) and identifier != ""
        if source == "kinesis" and is_number and not undocumented.kinesis_unknown_fails_batch:
            continue
        reason = f"the answer names {identifier!r}, which is not in the batch"
        return Meaning("failure", reason=reason)
    if not named:
        return Meaning("success")
    return Meaning("partial", tuple(named), f"handed back {len(named)} of {len(known)}")
