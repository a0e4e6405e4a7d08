"""What every kind of ENI needs once its interface is in the network namespace."""

from fargate_agent.network.netlink import Link, Netlink
from fargate_agent.plan import EniPlan


async def configure(netlink: Netlink, interface: Link, eni: EniPlan) -> bool:
    """Bring the interface up with its addresses and routes; whether its address is new there.

    Raises:
        NetlinkError: the kernel refused.
    """
    await netlink.set_up(interface.index)
    is_new = await netlink.add_address(interface.index, eni.address)
    if eni.ipv6_address is not None:
        await netlink.add_address(interface.index, eni.ipv6_address)
    if eni.primary:
        await netlink.set_default_route(interface.index, eni.gateway)
        if eni.ipv6_gateway is not None:
            await netlink.set_default_route(interface.index, eni.ipv6_gateway)
    return is_new
