"""How DynamoDB says no."""

from __future__ import annotations

import msgspec

DYNAMODB = "com.amazonaws.dynamodb.v20120810#"
CORAL = "com.amazon.coral.service#"  # the frame in front of it: protocol, signatures
BAD_REQUEST, TOO_LARGE, BROKEN = "400 Bad Request", "413 Payload Too Large", "500 Server Error"


class Refused(Exception):
    """A request that is answered with an error, and changes nothing."""

    def __init__(
        self, code: str, message: str, *, space: str = DYNAMODB, status: str = BAD_REQUEST
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.space, self.status = code, message, space, status

    @property
    def body(self) -> bytes:
        return msgspec.json.encode({"__type": self.space + self.code, "message": self.message})


def invalid(message: str) -> Refused:
    """The request can never be accepted."""
    return Refused("ValidationException", message)


def invalid_values(message: str) -> Refused:
    return invalid(f"One or more parameter values were invalid: {message}")


def not_served(what: str) -> Refused:
    """DynamoDB may know it; this table does not pretend to."""
    return invalid(f"the fast table does not serve {what}; start with --table emulator")


def unreadable(message: str) -> Refused:
    return Refused("SerializationException", message, space=CORAL)


def unsigned(code: str, message: str) -> Refused:
    return Refused(code, message, space=CORAL)


def unknown_table() -> Refused:
    return Refused("ResourceNotFoundException", "Requested resource not found")
