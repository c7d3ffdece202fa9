"""The file job, as every peer is given it: NDJSON in, items as JSON and rows as Parquet out.

    python PEER.py LINES FOLDER

Of the lines, all well-formed, those are dropped whose values are out of the contract's ranges or
lists. The others become `rows.parquet` (zstd, the contract's fields, times as timestamps) and
`items.json` (a line each, in DynamoDB's JSON, `sk` the time and the sequence). Some write several
files; some write only one of the two, and say so. Each peer runs in an environment of its own, so
this module has nothing but the standard library.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

STRINGS = ("device_id", "firmware", "status")
INTEGERS = ("sequence", "signal")
TTL_SECONDS = 30 * 86_400
PATHS = {
    "device_id": ("id",),
    "event_time": ("ts",),
    "sequence": ("seq",),
    "firmware": ("fw",),
    "temperature": ("temp",),
    "humidity": ("hum",),
    "pressure": ("press",),
    "wind_speed": ("wind", "speed"),
    "wind_direction": ("wind", "dir"),
    "rain": ("rain",),
    "battery": ("bat",),
    "signal": ("rssi",),
    "latitude": ("lat",),
    "longitude": ("lon",),
    "charging": ("charging",),
    "status": ("status",),
}
RANGES = {
    "sequence": (0, 2**63 - 1),
    "temperature": (-60, 125),
    "humidity": (0, 100),
    "pressure": (300, 1_200),
    "wind_speed": (0, 120),
    "wind_direction": (0, 360),
    "rain": (0, 500),
    "battery": (0, 5),
    "signal": (-150, 0),
    "latitude": (-90, 90),
    "longitude": (-180, 180),
}
ALLOWED = ("ok", "low_battery", "degraded")
NUMBERS = tuple(RANGES)


def measured(work: Callable[[Path, Path], None]) -> None:
    """Do the job on what the command line names, and print the CPU seconds that it took."""
    lines, folder = map(Path, sys.argv[1:3])
    began, wall = time.process_time(), time.perf_counter()
    work(lines, folder)
    told = {"cpu": time.process_time() - began, "wall": time.perf_counter() - wall}
    sys.stdout.write(json.dumps(told) + "\n")
