"""What names say of numbers: their unit, and limits that no good reading can break.

Limits are only physics or the definition of a scale (a percentage, a latitude), never what the
sample happened to show. A concentration has none: a sensor's zero drifts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ABSOLUTE_ZERO = {"Cel": -273.15, "degF": -459.67, "K": 0.0}


@dataclass(frozen=True)
class Quantity:
    """A unit (as RFC 8428 and UCUM write it), limits, and why."""

    unit: str = ""
    low: float | None = None
    high: float | None = None
    why: str = ""


NONE = Quantity()
_PERCENT = Quantity("%", 0, 100, "a percentage")
_BY_WORD = {
    "humidity": Quantity("%RH", 0, 100, "relative humidity is 0 to 100 %"),
    "rh": Quantity("%RH", 0, 100, "relative humidity is 0 to 100 %"),
    "hum": Quantity("%RH", 0, 100, "relative humidity is 0 to 100 %"),
    "lat": Quantity("deg", -90, 90, "a latitude"),
    "latitude": Quantity("deg", -90, 90, "a latitude"),
    "lon": Quantity("deg", -180, 180, "a longitude"),
    "lng": Quantity("deg", -180, 180, "a longitude"),
    "longitude": Quantity("deg", -180, 180, "a longitude"),
    "voltage": Quantity("V"),
    "volts": Quantity("V"),
    "volt": Quantity("V"),
    "rssi": Quantity("dBm"),
    "snr": Quantity("dB"),
    "lux": Quantity("lx"),
    "illuminance": Quantity("lx"),
    "co2": Quantity("ppm"),
    "co": Quantity("ppm"),
    "lpg": Quantity("ppm"),
    "smoke": Quantity("ppm"),
    "voc": Quantity("ppb"),
    "tvoc": Quantity("ppb"),
    "frequency": Quantity("Hz"),
}
_TEMPERATURE = {"temp", "temperature", "celsius", "fahrenheit", "kelvin", "dewpoint"}
_SCALES = {"c": "Cel", "celsius": "Cel", "f": "degF", "fahrenheit": "degF", "k": "K", "kelvin": "K"}
_BY_SUFFIX = {
    "celsius": "Cel",
    "fahrenheit": "degF",
    "kelvin": "K",
    "degc": "Cel",
    "degf": "degF",
    "mv": "mV",
    "v": "V",
    "ma": "mA",
    "ua": "uA",
    "mw": "mW",
    "kw": "kW",
    "kwh": "kWh",
    "wh": "Wh",
    "pa": "Pa",
    "hpa": "hPa",
    "kpa": "kPa",
    "mbar": "mbar",
    "bar": "bar",
    "psi": "psi",
    "ms": "ms",
    "us": "us",
    "ns": "ns",
    "s": "s",
    "sec": "s",
    "secs": "s",
    "seconds": "s",
    "mm": "mm",
    "cm": "cm",
    "km": "km",
    "meters": "m",
    "metres": "m",
    "kmh": "km/h",
    "mps": "m/s",
    "kg": "kg",
    "lux": "lx",
    "ppm": "ppm",
    "ppb": "ppb",
    "dbm": "dBm",
    "db": "dB",
    "hz": "Hz",
    "khz": "kHz",
    "mhz": "MHz",
    "ghz": "GHz",
    "deg": "deg",
    "rpm": "rpm",
    "ml": "mL",
    "bytes": "By",
}


TIME_WORDS = {
    *("ts", "time", "timestamp", "date", "datetime", "at", "epoch", "when", "t", "clock"),
    *("moment", "created", "updated", "recorded", "measured", "received", "observed"),
}
READINGS_WORDS = {
    *("readings", "reading", "measurements", "measurement", "measures", "metrics", "samples"),
    *("values", "points", "records", "observations", "events", "series", "entries", "data", "list"),
}


def named_like_time(words: Sequence[str]) -> bool:
    return bool(TIME_WORDS & set(words))


def named_like_readings(words: Sequence[str]) -> bool:
    return bool(READINGS_WORDS & set(words))


def quantity(words: Sequence[str]) -> Quantity:
    """What the words of a name say; `NONE` if nothing. The last words count most."""
    if not words:
        return NONE
    last = words[-1]
    if last in ("percent", "pct", "percentage"):
        return _PERCENT
    if _TEMPERATURE & set(words[-2:]):
        unit = _SCALES.get(last, "Cel")
        return Quantity(unit, ABSOLUTE_ZERO[unit], None, "nothing is colder than absolute zero")
    if len(words) > 1 and last in _BY_SUFFIX:
        return Quantity(_BY_SUFFIX[last])
    return _BY_WORD.get(last, NONE)
