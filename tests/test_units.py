"""Units: every spelling that SenML and UCUM have, and numbers exact to the last bit."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from fractions import Fraction
from importlib.resources import files

import pint
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ucumvert import PintUcumRegistry

from transform import units
from transform.units import Conversion, UnitError, conversion, known

# The names that RFC 8428 (section 12.1) and RFC 8798 register.
SENML = """
    m kg g s A K cd mol Hz rad sr N Pa J W C V F Ohm S Wb T H Cel lm lx Bq Gy Sv kat m2 m3 l m/s
    m/s2 m3/s l/s W/m2 cd/m2 bit bit/s lat lon pH dB dBW Bspl count / % %RH %EL EL 1/s 1/min
    beat/min beats S/m B VA VAs var vars J/m kg/m3 deg NTU ms min h MHz kW kVA kvar Ah Wh kWh varh
    kvarh kVAh Wh/km KiB GB Mbit/s B/s MB/s mV mA dBm ug/m3 mm/h m/h ppm /100 /1000 hPa mm cm km
    km/h
"""

# RFC 8798, table 3: secondary unit, primary unit, scale.
SECONDARY = [
    ("ms", "s", "1/1000"),
    ("min", "s", "60"),
    ("h", "s", "3600"),
    ("MHz", "Hz", "1000000"),
    ("kW", "W", "1000"),
    ("kVA", "VA", "1000"),
    ("kvar", "var", "1000"),
    ("Ah", "C", "3600"),
    ("Wh", "J", "3600"),
    ("kWh", "J", "3600000"),
    ("varh", "vars", "3600"),
    ("kvarh", "vars", "3600000"),
    ("kVAh", "VAs", "3600000"),
    ("Wh/km", "J/m", "18/5"),
    ("KiB", "B", "1024"),
    ("GB", "B", "1000000000"),
    ("Mbit/s", "bit/s", "1000000"),
    ("B/s", "bit/s", "8"),
    ("MB/s", "bit/s", "8000000"),
    ("mV", "V", "1/1000"),
    ("mA", "A", "1/1000"),
    ("ug/m3", "kg/m3", "1/1000000000"),
    ("mm/h", "m/s", "1/3600000"),
    ("m/h", "m/s", "1/3600"),
    ("ppm", "/", "1/1000000"),
    ("/100", "/", "1/100"),
    ("/1000", "/", "1/1000"),
    ("hPa", "Pa", "100"),
    ("mm", "m", "1/1000"),
    ("cm", "m", "1/100"),
    ("km", "m", "1000"),
    ("km/h", "m/s", "5/18"),
]

# UCUM's values that these libraries have better (the tenth digit) or in other words.
AMOUNTS = {"mol", "Bq", "bit", "Bd", "''"}  # plain numbers to UCUM, and by way of a misread '

ROUNDED = {"pc", "[in_br]", "[didot]", "cal_[15]", "[Btu_th]", "[Btu]", "m[Hg]"}

PINT = pint.UnitRegistry(non_int_type=Fraction)

doubles = st.floats(allow_nan=False, allow_infinity=False, width=64)


@pytest.mark.parametrize("unit", SENML.split())
def test_every_name_of_senml_is_known(unit):
    assert known(unit)


@pytest.mark.parametrize(("secondary", "primary", "scale"), SECONDARY)
def test_secondary_units_convert_as_their_rfc_says(secondary, primary, scale):
    made = conversion(secondary, primary)
    assert Fraction(made.multiply) / Fraction(made.divide) == Fraction(scale)
    assert made.add == 0


@pytest.mark.parametrize(
    ("value", "source", "target", "expected"),
    [
        (0.0, "degF", "Cel", -160 / 9),
        (32.0, "degF", "Cel", 0.0),
        (212.0, "[degF]", "Cel", 100.0),
        (98.6, "degF", "Cel", 37.0),
        (21.3, "Cel", "K", 294.45),
        (294.45, "K", "Cel", 21.3),
        (-40.0, "Cel", "degF", -40.0),
        (36.0, "km/h", "m/s", 10.0),
        (60.0, "mph", "m/s", 26.8224),
        (1.0, "[in_i'Hg]", "hPa", 33.86388640341),
        (29.92, "inHg", "hPa", 1013.20748),
        (14.5, "psi", "kPa", 99.97398),
        (0.5, "%", "ppm", 5000.0),
        (55.0, "%RH", "/", 0.55),
        (1.0, "[cft_i]", "l", 28.316846592),
        (350.0, "mG", "uT", 35.0),
        (90.0, "lat", "deg", 90.0),
        (1.0, "Cel/min", "K/h", 60.0),
        (6.0, "ft", "m", 1.8288),
        (1.0, "kg.m-3", "g/l", 1.0),
        (1.0, "°C", "Cel", 1.0),
        (12.0, "{beats}/min", "1/s", 0.2),
        (180.0, "deg", "rad", 3.141592653589793),
    ],
)
def test_values(value, source, target, expected):
    assert conversion(source, target).one(value) == pytest.approx(expected, rel=1e-7, abs=0)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("degF", "degC"),
        ("mile/hour", "m/s"),
        ("gallon", "liter"),
        ("kelvin", "degF"),
        ("psi", "Pa"),
    ],
)
@given(value=st.floats(-1e6, 1e6))
def test_no_further_from_the_library_than_rounding(source, target, value):
    exact = PINT.Quantity(Fraction(value), source).to(target).magnitude
    found = conversion(source, target).one(value)
    assert abs(Fraction(found) - exact) <= 2**-52 * (abs(exact) + 512)


def test_ucums_own_table():
    """Every unit of UCUM's published table has UCUM's value and base unit, or is not known."""
    wrong = []
    for atom, value, definition in ucum_table():
        if atom in AMOUNTS or not known(atom):
            continue
        base = definition.to_root_units()
        scale, offset = units._to_root(atom, units._unit(atom))
        ratio = float(scale) / float(base.magnitude) / value
        if abs(ratio - 1) > (1e-3 if atom in ROUNDED else 1e-7) or offset:
            wrong.append((atom, ratio))
        elif base.units.dimensionality != units._unit(atom).dimensionality:
            wrong.append((atom, str(base.units)))
    assert wrong == []


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        ("V", "Cel", "'V' is ampere^-1 * gram * meter^2 * second^-3, 'Cel' is kelvin"),
        ("F", "Cel", "did you mean 'degF' for 'F'?"),
        ("C", "degF", "did you mean 'Cel' for 'C'?"),
        ("celcius", "Cel", "no unit 'celcius' in SenML, UCUM or pint; did you mean 'celsius'?"),
        ("Cel", "fahrenhiet", "did you mean 'fahrenheit'?"),
        ("rpm", "Hz", "'rpm' is radian * second^-1, 'Hz' is second^-1: they do not convert"),
        ("%", "deg", "'%' is a plain number, 'deg' is radian"),
        ("dBm", "dBW", "a logarithm?"),
        ("ft", "kg", "'ft' is meter"),
    ],
)
def test_mistakes(source, target, says):
    with pytest.raises(UnitError, match=re.escape(says)):
        conversion(source, target)


@pytest.mark.parametrize(
    "unit",
    ["", " ", " m", "m\n", "x" * 65, "5 m", "9**9**9", "m**9**9", "10^999999", "(m)**9", "g%",
     "__import__('os')", "m;s", "lambda: 1", "°" * 64, "(" * 64, "[", "\ud800"],
)  # fmt: skip
def test_what_is_no_unit_is_not_known(unit):
    assert not known(unit)


@given(unit=st.text(max_size=12))
def test_any_text_is_known_or_not(unit):
    assert known(unit) in (True, False)


@example(made=Conversion(9.0, 0.0, 5.0), values=[-0.0, 5e-324, 1e308])
@given(
    made=st.builds(Conversion, doubles, doubles, doubles.filter(bool)),
    values=st.lists(st.none() | doubles),
)
def test_columns_and_single_values_agree_to_the_bit(made, values):
    column = made.of(pa.array(values, pa.float64()))
    assert column.type == pa.float64()
    assert [bits(v) for v in column.to_pylist()] == [
        None if v is None else bits(made.one(v)) for v in values
    ]


def test_slices_and_chunks_convert():
    made = conversion("degF", "Cel")
    values = pa.array([1.0, 32.0, None, 212.0])
    assert made.of(values.slice(1, 2)).to_pylist() == [0.0, None]
    assert made.of(pa.chunked_array([values, values])).length() == 8
    assert made.of(values.slice(0, 0)).to_pylist() == []


def test_the_same_unit_is_left_alone_and_costs_no_import():
    values = pa.array([1.0])
    assert conversion("Cel", "Cel").of(values) is values
    code = (
        "import sys; from transform.units import conversion; conversion('m', 'm');"
        "sys.exit(any(name.split('.')[0] in ('pint', 'ucumvert', 'lark') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_spellings_are_pints_words():
    assert all(known(unit) for unit in units.SPELLINGS)


# ---- Helpers ----


def ucum_table():
    """Each unit of UCUM's table that is a multiple of others: code, how many, of what."""
    registry = PintUcumRegistry(non_int_type=Fraction)
    text = files("ucumvert").joinpath("vendor/ucum-essence.xml").read_text()
    for unit in ET.fromstring(text):  # noqa: S314 - a file of the package
        value = next((part for part in unit if part.tag.endswith("}value")), None)
        plain = unit.tag.endswith("}unit") and unit.get("isSpecial") != "yes"
        code = unit.get("Code")
        if plain and value is not None and value.get("value") and code not in units.MISREAD:
            yield code, float(value.get("value")), registry.from_ucum(value.get("Unit"))


def bits(value):
    return None if value is None else "nan" if value != value else value.hex()  # noqa: PLR0124
