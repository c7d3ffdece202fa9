"""The machine that a benchmark runs on: its cores, and where the project lies."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
CORES = sorted(os.sched_getaffinity(0))
CLIENT_CORE, SERVER_CORE = CORES[0], CORES[-1]
"""What is measured runs on the first, whatever else is needed on the last."""
