"""Times as people give them on the command line: a type of option."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import click

from transform.timestamps import EPOCH, TimestampError, parse_timestamp

DATE = re.compile(r"\d{4}-\d\d-\d\d")


class _Moment(click.ParamType[datetime]):
    """ISO-8601 with an offset, or a date (UTC). The command gets a datetime in UTC."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        full = f"{value}T00:00:00Z" if DATE.fullmatch(value) else value
        try:
            return EPOCH + timedelta(microseconds=parse_timestamp(full, "iso8601"))
        except TimestampError as error:
            option = param.opts[0] if param else self.name
            raise click.UsageError(f"{option}: {error}", ctx) from None


MOMENT = _Moment()


def micros(moment: datetime) -> int:
    """Microseconds since 1970."""
    return (moment - EPOCH) // timedelta(microseconds=1)
