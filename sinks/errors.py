"""What can go wrong with the world, and the one policy for each.

    SinkError
    ├── Unavailable       weather: throttled, timed out, 5xx, no connection   → handed back, retried
    ├── DeadlinePassed    the time given is over before the work is           → handed back, retried
    ├── Gone              the object has expired, or was deleted              → handed back, retried
    └── Misconfigured     no such bucket or table, no permission              → handed back, and an
                                                                                operator is needed

Bad data is none of these: it is a value (`transform.records.Rejection`). Whatever is not a
`SinkError` is a defect; it is raised through, the invocation fails and the batch is retried whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004  botocore's own: connection and timeout errors
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
)

THROTTLES = frozenset(
    {
        "BandwidthLimitExceeded",
        "KmsThrottlingException",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
TIMEOUTS = frozenset({"RequestTimeout", "RequestTimeoutException"})  # S3's is a 400
SETUP = frozenset(
    {
        "AWS.SimpleQueueService.NonExistentQueue",
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignatureException",
        "InvalidAccessKeyId",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "NoSuchBucket",
        "QueueDoesNotExist",
        "ResourceNotFoundException",
        "SignatureDoesNotMatch",
        "StateMachineDoesNotExist",
        "UnrecognizedClientException",
    }
)


NO_SUCH_KEY = "NoSuchKey"
SERVER_ERROR = 500  # and above
TOO_MANY_REQUESTS = 429

_BROKEN_ANSWERS = (
    ConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
)
"""No answer came, or half of one: cut short, or garbled on the way."""


class SinkError(Exception):
    """A resting place could not take what it was given."""

    reason = "sink_error"


class Unavailable(SinkError):
    """Weather: the same request may succeed later."""

    reason = "unavailable"


class DeadlinePassed(SinkError):
    """No effect is begun after the deadline."""

    reason = "deadline"


class Gone(SinkError):
    """There is no such object any more: a lifecycle rule or somebody has deleted it."""

    reason = "gone"


class Misconfigured(SinkError):
    """The request can succeed once an operator has mended the setup."""

    reason = "misconfigured"


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn botocore's errors into ours, `what` saying the action and its object."""
    try:
        yield
    except ClientError as error:
        translated_error = _of(error, what)
        if translated_error is None:
            raise
        raise translated_error from error
    except NoCredentialsError as error:
        raise Misconfigured(f"{what}: {error}") from error
    except _BROKEN_ANSWERS as error:
        raise Unavailable(f"{what}: {error}") from error
    except BotoCoreError as error:
        raise Misconfigured(f"{what}: {error}") from error


def _of(error: ClientError, what: str) -> SinkError | None:
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in THROTTLES | TIMEOUTS or status >= SERVER_ERROR or status == TOO_MANY_REQUESTS:
        return Unavailable(f"{what}: {code or status}")
    if code == NO_SUCH_KEY:
        return Gone(f"{what}: {code}")
    if code in SETUP:
        return Misconfigured(f"{what}: {error}")
    return None
