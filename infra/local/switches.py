"""Which local event source mappings are disabled: a file for each, so that it outlasts the process.

Whoever makes or removes the file, the Lambda API of the running pipeline or a command on a stopped
state, is obeyed by the mapping's next look.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.local.emulator import ACCOUNT, REGION
from infra.topology import Topology


@dataclass(frozen=True)
class Switch:
    """One mapping, a function's from a source, and whether it is enabled."""

    function: str
    source_arn: str
    file: Path

    @property
    def uuid(self) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.source_arn} {self.function}"))

    @property
    def enabled(self) -> bool:
        return not self.file.exists()

    def turn(self, *, on: bool) -> None:
        if on:
            self.file.unlink(missing_ok=True)
        else:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.touch()

    def described(self) -> dict[str, Any]:
        """As Lambda's API tells of it."""
        return {
            "UUID": self.uuid,
            "EventSourceArn": self.source_arn,
            "FunctionArn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{self.function}",
            "State": "Enabled" if self.enabled else "Disabled",
        }


class Switches:
    """The mappings of a pipeline. `directory` holds the files."""

    def __init__(self, directory: Path, topology: Topology) -> None:
        stream, queue = topology.stream_mapping, topology.queue_mapping
        self._all = [
            Switch(
                stream.function,
                f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{stream.stream}",
                directory / stream.function,
            ),
            Switch(
                queue.function,
                f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue.queue}",
                directory / queue.function,
            ),
        ]

    def __iter__(self) -> Iterator[Switch]:
        return iter(self._all)

    def enabled(self, function: str) -> bool:
        """Whether a function's mapping is enabled; one that is not known always is."""
        return all(switch.enabled for switch in self._all if switch.function == function)

    def of(self, function: str, source_arn: str) -> list[Switch]:
        """Those of a function (by name or ARN) and a source; an empty text stands for any."""
        name = function.rpartition(":function:")[2].partition(":")[0]
        return [
            switch
            for switch in self._all
            if name in ("", switch.function) and source_arn in ("", switch.source_arn)
        ]

    def find(self, identifier: str) -> Switch | None:
        return next((switch for switch in self._all if switch.uuid == identifier), None)
