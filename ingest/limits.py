"""Names and numbers of the edge that a description of the system needs, without its libraries."""

from __future__ import annotations

FIFO = ".fifo"  # how the name of an SQS FIFO queue ends
READ_TIMEOUT_STEP_SECONDS = 10  # a client is kept for each step of timeout that was needed
