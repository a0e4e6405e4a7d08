"""Whether a container still has what ADD answered."""

from fargate_agent.cniplugins.errors import CniError
from fargate_agent.cniplugins.results import Result
from fargate_agent.cniplugins.sandboxes import Place
from fargate_agent.network.link_requests import (
    LinkState,
    find_link,
    list_addresses,
    list_routes,
)
from fargate_agent.network.rtnetlink import TABLE_MAIN


def check_interface(container: Place, ifname: str, previous: Result) -> LinkState:
    """Return the interface of a container that is as a result says; more than that is fine.

    Raises:
        CniError: something of it is missing, or is another.
        NetlinkError: the kernel refused.
    """
    told = [
        (at, one)
        for at, one in enumerate(previous.interfaces)
        if one.name == ifname and one.sandbox
    ]
    if not told:
        raise CniError(f"prevResult has no interface {ifname} of the container")
    at, interface = told[0]
    link = find_link(container.link, ifname)
    if link is None:
        raise CniError(f"interface {ifname} is missing in the container")
    if interface.mac and interface.mac.lower() != link.mac:
        raise CniError(f"interface {ifname} has mac address {link.mac}, not {interface.mac}")
    there = [one for ifindex, one in list_addresses(container.link) if ifindex == link.ifindex]
    for ip in previous.ips:
        if ip.interface in {None, at} and ip.address not in there:
            raise CniError(f"interface {ifname} has no address {ip.address}")
    _check_routes(container, previous)
    return link


def _check_routes(container: Place, previous: Result) -> None:
    versions = {one.to.version for one in previous.routes}
    there = [one for version in versions for one in list_routes(container.link, version)]
    for wanted in previous.routes:
        table = TABLE_MAIN if wanted.table is None else wanted.table
        if not any(
            (one.to, one.table) == (wanted.to, table) and wanted.gateway in {None, one.gateway}
            for one in there
        ):
            raise CniError(f"the container has no route to {wanted.to} by {wanted.gateway}")
