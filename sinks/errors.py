"""What can go wrong with the world, and the one policy for each.

    SinkError
    ├── Unavailable       weather: throttled, timed out, 5xx, no connection   → handed back, retried
    ├── DeadlinePassed    the time given is over before the work is           → handed back, retried
    ├── Gone              the object has expired, or was deleted              → handed back, retried
    └── Misconfigured     no such bucket or table, no permission              → handed back, and an
                                                                                operator is needed

Bad data is none of these: it is a value (`transform.records.Rejection`). Whatever is not a
`SinkError`, as `Refused`, is a defect; it is raised through, the invocation fails and the batch is
retried whole.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

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
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignatureException",
        "InvalidAccessKeyId",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "NoSuchBucket",
        "PermanentRedirect",
        "QueueDoesNotExist",
        "RequestTimeTooSkewed",
        "ResourceNotFoundException",
        "SignatureDoesNotMatch",
        "StateMachineDoesNotExist",
        "UnrecognizedClientException",
    }
)

NO_SUCH_KEY = "NoSuchKey"
SERVER_ERROR = 500  # and above
TOO_MANY_REQUESTS = 429
SAID_MAX = 300  # of a service's own words


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


class Refused(Exception):
    """The service will never accept this request, or not as it asks: mostly a defect.

    `status` is HTTP's; a condition that does not hold is one too.
    """

    def __init__(self, what: str, status: int, code: str) -> None:
        super().__init__(what)
        self.status = status
        self.code = code


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn boto3's errors into ours, `what` saying the action and its object."""
    try:
        yield
    except Exception as error:
        ours = _of_boto3(error, what)
        if ours is None:
            raise
        raise ours from error


def of_answer(what: str, status: int, code: str, said: str) -> SinkError | Refused:
    """What an answer of AWS that is an error means, by its status and code.

    Of what was `said` the first line is told: below, a refused signature's own text may follow.
    """
    if code in THROTTLES | TIMEOUTS or status >= SERVER_ERROR or status == TOO_MANY_REQUESTS:
        return Unavailable(f"{what}: {code or status}")
    if code == NO_SUCH_KEY:
        return Gone(f"{what}: {code}")
    first = said.partition("\n")[0][:SAID_MAX]
    told = f"{what}: {code or status}{first and ': '}{first}"
    return Misconfigured(told) if code in SETUP else Refused(told, status, code)


def _of_boto3(error: Exception, what: str) -> SinkError | Refused | None:
    """Our error for one of boto3's, None for any other. Imports nothing: who raised it has."""
    raised = sys.modules.get("botocore.exceptions")
    if raised is None:
        return None
    if isinstance(error, raised.ClientError):
        said = error.response.get("Error", {})
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return of_answer(what, status, said.get("Code") or "", said.get("Message") or "")
    if not isinstance(error, raised.BotoCoreError):
        return None
    broken = (  # no answer came, or half of one: cut short, or garbled on the way
        raised.ConnectionError,
        raised.FlexibleChecksumError,
        raised.HTTPClientError,
        raised.IncompleteReadError,
    )
    return (Unavailable if isinstance(error, broken) else Misconfigured)(f"{what}: {error}")
