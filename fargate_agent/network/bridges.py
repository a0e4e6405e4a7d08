"""The bridges of older agents, one for each subnet, and their NAT: taken away when unused."""

from contextlib import suppress

from fargate_agent.network.blocking import NetlinkError, delete_link
from fargate_agent.network.names import bridge_prefix, nat_table_name
from fargate_agent.network.netlink import Netlink
from fargate_agent.network.nft.tables import delete_tables, read_tables
from fargate_agent.threads import in_thread


async def remove_unused_bridges(instance: str) -> list[str]:
    """Remove every bridge that has no port, and NAT that has no bridge; return their names.

    Raises:
        NetlinkError: the kernel refused.
    """
    prefix = bridge_prefix(instance)
    async with Netlink.open() as netlink:
        links = await netlink.links()
    bridges = {link.name: link.index for link in links if link.name.startswith(prefix)}
    used = {link.master for link in links}
    names = set(bridges)
    with suppress(NetlinkError):  # no packet filter, no NAT
        for table in await in_thread(read_tables):
            if table.startswith(nat_table_name(prefix)):
                names.add(table.removeprefix(nat_table_name("")))
    removed = sorted(name for name in names if bridges.get(name) not in used - {None})
    for name in removed:
        # The NAT goes first, so that a crash in between leaves a bridge, which is found again.
        with suppress(NetlinkError):
            await in_thread(delete_tables, [nat_table_name(name)])
        if name in bridges:
            await in_thread(delete_link, None, bridges[name])
    return removed
