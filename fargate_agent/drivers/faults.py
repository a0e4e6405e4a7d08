"""What makes the network of a task worse on its own demand, as the metadata endpoint sees it.

Names and ranges are those of ECS. Source: amazon-ecs-agent, ecs-agent/tmds/handlers/fault/v1.
"""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Protocol

Network = IPv4Network | IPv6Network


class Transport(StrEnum):
    """What a black hole swallows."""

    TCP = "tcp"
    UDP = "udp"


class Traffic(StrEnum):
    """Which way a black hole lies."""

    INGRESS = "ingress"
    EGRESS = "egress"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlackHole:
    """A port whose packets vanish."""

    port: int
    transport: Transport
    traffic: Traffic

    @property
    def name(self) -> str:
        """Return its name, which ECS has for its chain, e.g. `ingress-tcp-80`."""
        return f"{self.traffic}-{self.transport}-{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Packets are sent later."""

    delay_ms: int
    jitter_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Packets are lost at random."""

    percent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Impairment:
    """What happens to packets that a task sends, and to which."""

    effect: Latency | Loss
    destinations: tuple[Network, ...]
    exempt: tuple[Network, ...] = ()
    """Destinations that it doesn't hold for, though they are among the others."""
    flows_percent: int = 100
    """Of how many flows; a flow is impaired as a whole."""


class FaultInjector(Protocol):
    """Injects faults into network namespaces of tasks, which keep them until they go.

    A method that is repeated succeeds and changes nothing, but for `impair`: what it is given takes
    the place of what was. All state is the kernel's, so the next agent goes on with it.
    """

    async def swallow(self, netns: Path, hole: BlackHole, exempt: tuple[Network, ...]) -> None:
        """Return when packets of the port are dropped, but for those from or to `exempt`.

        Raises:
            ResourceInitializationError: the kernel refused; nothing is dropped.
        """
        ...

    async def fill(self, netns: Path, hole: BlackHole) -> None:
        """Return when packets of the port pass again.

        Raises:
            ResourceInitializationError: the kernel refused.
        """
        ...

    async def swallows(self, netns: Path, hole: BlackHole) -> bool:
        """Whether packets of the port are dropped.

        Raises:
            ResourceInitializationError: the kernel doesn't say.
        """
        ...

    async def impair(self, netns: Path, ifname: str, impairment: Impairment) -> None:
        """Return when packets that leave through an interface are impaired.

        Raises:
            ResourceInitializationError: the kernel can't, or refused; nothing is impaired.
        """
        ...

    async def repair(self, netns: Path, ifname: str) -> None:
        """Return when no packets are impaired any more.

        Raises:
            ResourceInitializationError: the kernel refused.
        """
        ...

    async def find_impairment(self, netns: Path, ifname: str) -> type[Latency | Loss] | None:
        """Return what kind of impairment there is, as it was given to `impair`.

        Raises:
            ResourceInitializationError: the kernel doesn't say.
        """
        ...
