"""What a request for a fault says, and what is wrong with it, in the words of the ECS agent.

Source: amazon-ecs-agent, ecs-agent/tmds/handlers/fault/v1/types. Where a value has the wrong type,
the ECS agent answers with the text of Go's decoder; here it is the one for values.
"""

import json
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any, Final

from fargate_agent.drivers.faults import (
    BlackHole,
    Impairment,
    Latency,
    Loss,
    Network,
    Traffic,
    Transport,
)

BLACK_HOLE: Final = "network-blackhole-port"
LATENCY: Final = "network-latency"
LOSS: Final = "network-packet-loss"

NO_BODY: Final = "required request body is missing"
_MAX_PORT: Final = 65_535
_MAX_TIME_MS: Final = (2**63 - 1) // 1_000_000
"""What the kernel has room for, which counts nanoseconds."""

Members = Mapping[str, Any]
"""By their names in lower case: Go takes them in any. Source: Go, encoding/json, `Unmarshal`."""


class FaultRequestError(Exception):
    """A request is not as it should be; its text is for who asks."""


def read_members(body: bytes) -> Members:
    """Read the first JSON value of a body, as Go's decoder does; it has to be an object.

    Raises:
        FaultRequestError: it is none.
    """
    text = body.decode(errors="replace").lstrip()
    if not text:
        raise FaultRequestError(NO_BODY)
    try:
        value, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError) as error:
        raise FaultRequestError("the request body is not valid JSON") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise FaultRequestError("the request body is not a JSON object")
    return {name.lower(): member for name, member in value.items() if member is not None}


def read_hole(members: Members) -> tuple[BlackHole, tuple[Network, ...]]:
    """Return the black hole that a request means, and what is exempt from it.

    Raises:
        FaultRequestError: something is missing, or wrong.
    """
    for name in ("Port", "Protocol", "TrafficType"):
        _require(members, name)
    hole = BlackHole(
        port=_number(members, "Port", 1, _MAX_PORT),
        transport=Transport(_choice(members, "Protocol", tuple(Transport))),
        traffic=Traffic(_choice(members, "TrafficType", tuple(Traffic))),
    )
    return hole, _networks(members, "SourcesToFilter")


def read_impairment(fault: str, members: Members) -> Impairment:
    """Return what a request wants to happen to packets.

    Raises:
        FaultRequestError: something is missing, or wrong.
    """
    needed = ("DelayMilliseconds", "JitterMilliseconds") if fault == LATENCY else ("LossPercent",)
    for name in (*needed, "Sources"):
        _require(members, name)
    effect: Latency | Loss
    if fault == LATENCY:
        delay_ms, jitter_ms = (_number(members, name, 0, _MAX_TIME_MS) for name in needed)
        if not delay_ms and not jitter_ms:
            raise FaultRequestError(
                "required either DelayMilliseconds or JitterMilliseconds to be non-zero"
            )
        effect = Latency(delay_ms=delay_ms, jitter_ms=jitter_ms)
    else:
        effect = Loss(percent=_number(members, "LossPercent", 1, 100))
    asks_for_some = "flowspercent" in members
    return Impairment(
        effect=effect,
        destinations=_networks(members, "Sources"),
        exempt=_networks(members, "SourcesToFilter"),
        flows_percent=_number(members, "FlowsPercent", 1, 100) if asks_for_some else 100,
    )


def _require(members: Members, name: str) -> None:
    if members.get(name.lower()) in (None, "", []):
        raise FaultRequestError(f"required parameter {name} is missing")


def _number(members: Members, name: str, least: int, most: int) -> int:
    value = members[name.lower()]
    if type(value) is not int or not least <= value <= most:
        raise _wrong(value, name)
    return value


def _choice(members: Members, name: str, choices: tuple[str, ...]) -> str:
    value = members[name.lower()]
    if not isinstance(value, str) or value not in choices:
        raise _wrong(value, name)
    return value


def _networks(members: Members, name: str) -> tuple[Network, ...]:
    """Return addresses and ranges; the bits behind a prefix say nothing, as for `tc`."""
    values = members.get(name.lower(), [])
    if not isinstance(values, list):
        raise _wrong(values, name)
    found = []
    for value in values:
        try:
            if not isinstance(value, str) or "%" in value or not _is_prefix(value):
                raise _wrong(value, name)
            found.append(ip_network(value, strict=False))
        except ValueError as error:
            raise _wrong(value, name) from error
    return tuple(found)


def _is_prefix(value: str) -> bool:
    """Whether what stands behind a slash, if anything, is a length and no netmask."""
    _, slash, length = value.partition("/")
    return not slash or (length.isascii() and length.isdigit())


def _wrong(value: object, name: str) -> FaultRequestError:
    shown = value if isinstance(value, str) else json.dumps(value)
    return FaultRequestError(f"invalid value {shown} for parameter {name}")
