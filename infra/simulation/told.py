"""What producers were told, held against what lies in quarantine and how executions went."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.doubles.stepfunctions import Execution
from infra.simulation.known import Row, Violation

TELL = "Tell producers"
KIND = ("_step", "_reason", "_field", "_version", "_generation")


@dataclass(frozen=True)
class Told:
    """The events on the bus, and what must agree with them. `bad` is whether the bus had faults."""

    entries: Sequence[Mapping[str, Any]]
    quarantine: Iterable[tuple[str, Row]]
    executions: Iterable[Execution]
    bad: bool

    def judge(self) -> Iterator[Violation]:
        """An event says what lies in quarantine, an answer without a word that all were put."""
        kinds = Counter((key, *(row[name] for name in KIND)) for key, row in self.quarantine)
        details = [json.loads(entry["Detail"]) for entry in self.entries]
        for detail in details:
            kind = (detail.get(name.removeprefix("_")) for name in KIND)
            if kinds[detail["quarantine_key"], *kind] != detail["count"]:
                yield Violation("an event is wrong", f"{detail}")
        there = Counter((detail["quarantine_key"], detail["id"]) for detail in details)
        for execution in self.executions:
            if TELL not in execution.entered:
                continue
            if execution.status == "SUCCEEDED":
                yield from self._execution(execution.output, there)
            elif execution.status == "FAILED":
                yield Violation("the feed changed an outcome", execution.error)

    def _execution(
        self, output: dict[str, Any], there: Counter[tuple[str, str]]
    ) -> Iterator[Violation]:
        done = output["transform"]
        if "not_told" in output:
            if not self.bad:
                yield Violation("producers were not told", output["not_told"])
            return
        for event in done["rejected"]:
            if not there[done["quarantine_key"], event["id"]]:
                yield Violation("an event is missing", f"{done['quarantine_key']} {event}")
