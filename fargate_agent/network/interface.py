"""What every kind of ENI needs once its interface is in the network namespace."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.network.answers import route_answers
from fargate_agent.network.netlink import Netlink, get_index
from fargate_agent.plan import EniPlan
from fargate_agent.threads import in_thread

CARRIER_TIMEOUT_S: Final = 3.0
"""What a NIC takes to agree with its peer on a speed. A task whose wire is cut starts all the
same."""
PASSING_POLL_S: Final = 0.001
"""Most often the first look already finds it so."""

_SYSFS: Final = Path("/sys/class/net")


async def configure(netlink: Netlink, netns: Path, eni: EniPlan) -> bool:
    """Bring the ENI's interface up with addresses and routes; whether its address is new there.

    Raises:
        NetlinkError: the kernel refused.
    """
    index = get_index(eni.ifname, netns)
    await netlink.set_up(index)
    is_new = await netlink.add_address(index, eni.address)
    if eni.ipv6_address is not None:
        await netlink.add_address(index, eni.ipv6_address)
    if eni.primary:
        await netlink.set_default_route(index, eni.gateway)
        if eni.ipv6_gateway is not None:
            await netlink.set_default_route(index, eni.ipv6_gateway)
    await in_thread(route_answers, netns, index, eni)
    return is_new


async def wait_until_passing(name: str) -> None:
    """Return when packets go through an interface of the host that is up.

    The kernel gets there some milliseconds after it was brought up, on a worker of its own. Until
    then it drops packets, and a lost first one costs its sender a second.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(CARRIER_TIMEOUT_S):
            while not _is_passing(name):  # noqa: ASYNC110 - the kernel's news come by no Event
                await asyncio.sleep(PASSING_POLL_S)


def _is_passing(name: str) -> bool:
    """Whether it has a carrier."""
    try:
        return (_SYSFS / name / "operstate").read_text(encoding="ascii").strip() == "up"
    except FileNotFoundError:
        return False
