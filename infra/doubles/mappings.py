"""Lambda's control plane in memory: the switches of event source mappings, which a breaker uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from infra.doubles.world import Call, World, refused


@dataclass
class Switch:
    """An event source mapping, and who is told when it is enabled or disabled."""

    function: str
    source_arn: str
    turned: Callable[[bool], None]
    enabled: bool = True

    def turn(self, *, on: bool) -> None:
        if on != self.enabled:
            self.enabled = on
            self.turned(on)


@dataclass
class Mappings:
    """A client of the account whose event source mappings are `switches`, by UUID."""

    world: World
    switches: dict[str, Switch] = field(default_factory=dict)

    def list_event_source_mappings(
        self,
        *,
        FunctionName: str,  # noqa: N803  as boto3
        EventSourceArn: str,  # noqa: N803
    ) -> dict[str, Any]:
        asked = (FunctionName, EventSourceArn)
        call = Call("lambda", "ListEventSourceMappings", EventSourceArn)
        return self.world.effect(
            call,
            lambda: {
                "EventSourceMappings": [
                    {"UUID": name, "State": "Enabled" if switch.enabled else "Disabled"}
                    for name, switch in self.switches.items()
                    if (switch.function, switch.source_arn) == asked
                ]
            },
        )

    def update_event_source_mapping(self, *, UUID: str, Enabled: bool) -> dict[str, Any]:  # noqa: N803
        call = Call("lambda", "UpdateEventSourceMapping", UUID)

        def act() -> dict[str, Any]:
            if UUID not in self.switches:
                raise refused(call, "ResourceNotFoundException", 404)
            self.switches[UUID].turn(on=Enabled)
            return {"UUID": UUID, "State": "Enabling" if Enabled else "Disabling"}

        return self.world.effect(call, act)
