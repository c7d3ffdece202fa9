"""Times as people give them on the command line: a type of option."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import click

from transform.timestamps import EPOCH, TimestampError, parse_timestamp

LENGTH = re.compile(r"(\d+)([smhd])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
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


class _Duration(click.ParamType[timedelta]):
    """A number of seconds, minutes, hours or days: `90m`. The command gets a timedelta."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        if isinstance(value, timedelta):
            return value
        option = param.opts[0] if param else self.name
        match = LENGTH.fullmatch(value)
        if match is None:
            what = f"{option} {value!r}: a number and s, m, h or d, such as 90m"
            raise click.UsageError(what, ctx)
        try:
            return timedelta(**{UNITS[match[2]]: int(match[1])})
        except OverflowError:
            raise click.UsageError(f"{option} {value!r} is too long", ctx) from None


DURATION = _Duration()


def micros(moment: datetime) -> int:
    """Microseconds since 1970."""
    return (moment - EPOCH) // timedelta(microseconds=1)
