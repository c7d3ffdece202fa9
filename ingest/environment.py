"""A function's environment variables, each read as what it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


class SettingsError(RuntimeError):
    """The function's environment is incomplete: a deployment error, named by variable."""


@dataclass(frozen=True)
class Environment:
    """Variables by name. Whatever is missing or wrong raises a `SettingsError` that names it."""

    variables: Mapping[str, str]

    def need(self, name: str) -> str:
        """What must be said."""
        value = self.variables.get(name, "")
        if not value:
            raise SettingsError(f"the environment variable {name} is not set")
        return value

    def text(self, name: str, default: str = "") -> str:
        """What may be said."""
        return self.variables.get(name, default)

    def number(self, name: str, default: int) -> int:
        """A number that is whole and not negative."""
        value = self.text(name, str(default))
        if not (value.isascii() and value.isdecimal()):
            raise SettingsError(f"the environment variable {name} is {value!r}, no number")
        return int(value)

    def share(self, name: str, default: float) -> float:
        """A number from 0 to 1."""
        value = self.text(name, str(default))
        try:
            found = float(value)
        except ValueError:
            found = math.nan
        if not 0 <= found <= 1:
            raise SettingsError(f"the environment variable {name} is {value!r}, not 0 to 1")
        return found
