"""One function in a fresh process: imported, made ready, or given one payload.

    python -m loadtests.bench.fresh MODULE [CLIENT,...|handler PAYLOAD]

It prints what the handler answers and the process's peak of resident memory. It imports next to
nothing itself, because what a process costs is what is measured.
"""

import importlib
import json
import sys


class Context:
    """Lambda's context object, the little of it that handlers use."""

    function_name = "bench"

    def get_remaining_time_in_millis(self) -> int:
        return 60_000


def main() -> None:
    answer = None
    if len(sys.argv) > 1:
        module = importlib.import_module(sys.argv[1])
        if sys.argv[2:3] == ["handler"]:
            with open(sys.argv[3], "rb") as file:  # noqa: PTH123  pathlib would be one more import
                payload = json.loads(file.read())
            answer = module.handler(payload, Context())
        elif len(sys.argv) > 2:  # noqa: PLR2004  the clients are the third
            wiring = importlib.import_module("ingest.settings").wiring()
            for client in sys.argv[2].split(","):
                getattr(wiring, client)
    sys.stdout.write("\n" + json.dumps({"answer": answer, "peak_mb": peak_mb()}) + "\n")


def peak_mb() -> float:
    """VmHWM: unlike `ru_maxrss` it does not begin with the peak of whoever started the process."""
    with open("/proc/self/status") as file:  # noqa: PTH123  as above
        return int(file.read().partition("VmHWM:")[2].split()[0]) / 1_024


if __name__ == "__main__":
    main()
