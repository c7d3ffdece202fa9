"""Units: what a device reports in to what a contract says, as exact numbers.

A unit is spelled as SenML (RFC 8428, RFC 8798) or UCUM spell it, or by a name that pint knows:
`Cel`, `%RH`, `m/s2`, `[in_i'Hg]`, `degF`, `mph`. The constants are pint's, UCUM's grammar is
ucumvert's; both are imported by the first conversion, not before.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

UNIT_MAX = 64  # characters
EXACT_MAX = 2**53  # up to here every whole number is a double

SPELLINGS = {
    "/": "dimensionless",  # from here on SenML's names, where they are not UCUM's or pint's
    "/100": "percent",
    "/1000": "permille",
    "%RH": "percent",
    "%EL": "percent",
    "EL": "second",
    "B": "byte",
    "B/s": "byte / second",
    "beat/min": "1 / minute",
    "beats": "count",
    "lat": "degree",
    "lon": "degree",
    "pH": "pH_value",
    "Bspl": "B_SPL",
    "VAs": "volt_ampere * second",
    "VAh": "volt_ampere * hour",
    "kVAh": "kilovolt_ampere * hour",
    "vars": "var * second",
    "varh": "var * hour",
    "kvarh": "kilovar * hour",
    "[pH]": "pH_value",  # from here on UCUM's, where ucumvert's words are not UCUM's table
    "G": "gauss_of_tesla",
    "mG": "milligauss_of_tesla",
    "AU": "astronomical_unit",
    "ph": "phot",
    "R": "roentgen",
    "'": "arcminute",
    "''": "arcsecond",
    "[in_i'Hg]": "inch_Hg",
    "[in_i'H2O]": "inch * kilogram / liter * standard_gravity",
    "[Cal]": "kilocalorie",
    "[Btu]": "Btu_th",
    "[cft_i]": "foot ** 3",
    "[cyd_i]": "yard ** 3",
}
"""In pint's words, whatever the libraries would read otherwise."""

MISREAD = ("[rd_br]", "[LPF]", "g%", "Mx", "Oe", "Gb")
"""UCUM's, and rare: read wrongly by the libraries, so not at all here."""

DEFINITIONS = (
    "volt_ampere_reactive = volt * ampere = var",
    "gauss_of_tesla = 1e-4 * tesla",  # of the SI; pint's does not convert
    "pH_value = [acidity]",
)
LIKE_UCUM = re.compile(r"[\[\]{}'0-9.]")
ALLOWED = re.compile(r"[\w°%/*^.+\-()\[\]{}' ]+")
ENDLESS = re.compile(r"[\d)]\s*(\*\*|\^)|\d{4}")  # 9**9**9 would be worked out
SUSPECTS = {"C": "Cel", "F": "degF"}  # coulomb and farad


class UnitError(ValueError):
    """A unit that nobody knows, or two that do not convert; says what would."""


@dataclass(frozen=True)
class Conversion:
    """`(value * multiply + add) / divide`: three whole numbers wherever they are exact.

    So 212 degF is 100 Cel, not 100.00000000000001. What is beyond a double becomes infinite.
    """

    multiply: float = 1.0
    add: float = 0.0
    divide: float = 1.0

    @property
    def scale(self) -> float:
        return self.multiply / self.divide

    @property
    def offset(self) -> float:
        return self.add / self.divide

    def of(self, values: pa.Array) -> pa.Array:
        """The converted float64 column; null stays null."""
        if self.multiply != 1.0:
            values = pc.multiply(values, self.multiply)
        if self.add:
            values = pc.add(values, self.add)
        return pc.divide(values, self.divide) if self.divide != 1.0 else values

    def one(self, value: float) -> float:
        """The converted value, to the bit that `of` gives: -0.0 + 0.0 would be 0.0."""
        value *= self.multiply
        return (value + self.add if self.add else value) / self.divide


def conversion(from_unit: str, to_unit: str) -> Conversion:
    """How a value in one unit becomes one in the other. Raises `UnitError`."""
    if from_unit == to_unit:
        return Conversion()
    source, target = _unit(from_unit), _unit(to_unit)
    if _root(source) == _root(target):
        return _affine(from_unit, to_unit, source, target)
    hints = [
        f"; did you mean {SUSPECTS[unit]!r} for {unit!r}?"
        for unit in (from_unit, to_unit)
        if unit in SUSPECTS
    ]
    raise UnitError(
        f"{from_unit!r} is {_words(source)}, {to_unit!r} is {_words(target)}: "
        f"they do not convert{''.join(hints)}"
    )


def known(unit: str) -> bool:
    """Whether `conversion` can read this spelling."""
    return _reading(unit) is not None


def _unit(unit: str) -> Any:
    reading = _reading(unit)
    if reading is None:
        names = {name.lower(): name for name in (*dir(_registry()), *SPELLINGS, "Cel", "degF")}
        close = difflib.get_close_matches(unit.lower(), names, n=1)
        hint = f"; did you mean {names[close[0]]!r}?" if close else ""
        raise UnitError(f"no unit {unit[:UNIT_MAX]!r} in SenML, UCUM or pint{hint}")
    return reading


def _reading(unit: str) -> Any | None:
    """What a spelling means: in UCUM if it looks so, else in pint first.

    For UCUM also reads `ft`, as a femtotonne, and pint `[pH]`, as a picohenry.
    """
    registry = _registry()
    if unit in SPELLINGS:
        return registry.parse_units(SPELLINGS[unit])
    if len(unit) > UNIT_MAX or unit != unit.strip() or unit in MISREAD:
        return None
    if not ALLOWED.fullmatch(unit) or ENDLESS.search(unit):
        return None
    order = (registry.parse_units, _ucum)
    for read in reversed(order) if LIKE_UCUM.search(unit) else order:
        try:
            found = read(unit)
            registry.get_root_units(found)
        except Exception:  # noqa: BLE001, S112 - two parsers, with a dozen ways to say no
            continue
        return found
    return None


def _ucum(unit: str) -> Any:
    quantity = _registry().from_ucum(unit)
    if quantity.magnitude != 1:
        raise UnitError(f"{unit!r} is a number of units")
    return quantity.units


@cache
def _registry() -> Any:
    from ucumvert import PintUcumRegistry  # noqa: PLC0415 - a third of a second

    registry = PintUcumRegistry(non_int_type=Fraction)  # so that 5/9 is 5/9
    for definition in DEFINITIONS:
        registry.define(definition)
    return registry


def _root(unit: Any) -> Any:
    """The base units it comes to. Angles, counts and bits are no plain numbers here.

    To pint they are, and rpm would convert to Hz by a factor of 2 pi.
    """
    return _registry().get_root_units(unit)[1]


def _affine(from_unit: str, to_unit: str, source: Any, target: Any) -> Conversion:
    """By way of the base unit, which is exact; straight from one to the other is not always."""
    source_scale, source_offset = _to_root(from_unit, source)
    target_scale, target_offset = _to_root(to_unit, target)
    scale = source_scale / target_scale
    offset = (source_offset - target_offset) / target_scale
    divide = math.lcm(scale.denominator, offset.denominator)
    exact = (int(scale * divide), int(offset * divide), divide)
    if max(map(abs, exact)) > EXACT_MAX:
        return Conversion(float(scale), float(offset))
    return Conversion(*map(float, exact))


def _to_root(name: str, unit: Any) -> tuple[Fraction, Fraction]:
    """Scale and offset to the unit's base unit."""
    quantity = _registry().Quantity
    zero, one, two = (
        quantity(Fraction(value), unit).to_root_units().magnitude for value in (0, 1, 2)
    )
    if not all(isinstance(each, Fraction) for each in (zero, one, two)) or two - one != one - zero:
        raise UnitError(
            f"{name!r} is no scale and offset of {_words(unit)} (a logarithm?): "
            "derive the field by an expression"
        )
    return one - zero, zero


def _words(unit: Any) -> str:
    parts = [
        f"{name}{f'^{power}' if power != 1 else ''}"
        for name, power in sorted(_registry().Quantity(1, _root(unit)).unit_items())
    ]
    return f"{' * '.join(parts) or 'a plain number'}"
