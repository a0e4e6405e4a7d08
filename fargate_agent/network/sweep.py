"""What a crashed agent left on the host, found by name and taken back.

Only what this agent's instance made: the `lo` of a network namespace and the name and alias of an
interface say whose it is.
"""

import logging
from pathlib import Path

from fargate_agent.network.blocking import NetlinkError, delete_link
from fargate_agent.network.bridge import Bridges
from fargate_agent.network.names import (
    NETNS_PREFIX,
    instance_alias,
    metadata_netns_name,
    netns_alias,
    ours_prefix,
)
from fargate_agent.network.namespaces import in_thread, is_netns, unmount_netns
from fargate_agent.network.netlink import Netlink

log = logging.getLogger(__name__)


async def sweep(bridges: Bridges, netns_dir: Path, keep: set[str]) -> list[str]:
    """Take back what belongs to none of the network namespaces named in `keep`; return the names.

    Where tasks find their metadata stays as long as there is one.
    For the start of an agent, before it attaches any ENI, and for its end. What can't be taken back
    is logged and left.
    """
    shared = {metadata_netns_name(bridges.instance)} if keep else set()
    swept = await _sweep_netns(bridges.instance, netns_dir, keep | shared)
    try:
        swept += await _sweep_interfaces(bridges.instance, keep)
        swept += await bridges.release_unused()
    except NetlinkError as error:
        log.warning("could not clean up interfaces: %s", error)
    return swept


async def _sweep_netns(instance: str, netns_dir: Path, keep: set[str]) -> list[str]:
    swept = []
    for netns in await in_thread(_list_netns, netns_dir):
        try:
            if netns.name not in keep and await _is_ours(netns, instance):
                await in_thread(unmount_netns, netns)
                swept.append(netns.name)
        except (NetlinkError, OSError) as error:
            log.warning("could not clean up network namespace %s: %s", netns.name, error)
    return swept


def _list_netns(netns_dir: Path) -> list[Path]:
    return sorted(netns_dir.glob(f"{NETNS_PREFIX}*"))


async def _is_ours(netns: Path, instance: str) -> bool:
    """An empty file has no owner; whoever is about to mount on it makes another."""
    if not is_netns(netns):
        return True
    async with Netlink.open(netns) as netlink:
        loopback = await netlink.get_link("lo")
    return loopback.alias == instance_alias(instance)


async def _sweep_interfaces(instance: str, keep: set[str]) -> list[str]:
    prefix = f"{ours_prefix(instance)}v"
    kept = tuple(f"{netns_alias(instance, name)}:" for name in keep)
    async with Netlink.open() as netlink:
        left = [
            link
            for link in await netlink.links()
            if link.name.startswith(prefix) and not (link.alias or "").startswith(kept)
        ]
    for link in left:
        await in_thread(delete_link, None, link.index)
    return [link.name for link in left]
