"""ecs-ipam: gives addresses out of subnets, one after the other.

Names and messages: amazon-ecs-cni-plugins, plugins/ipam. Other than there, an address belongs to
the attachment that asked for it: only its DEL frees it, and one that has none is as it should be.
"""

from ipaddress import ip_interface

from fargate_agent.cniplugins.call import Call
from fargate_agent.cniplugins.errors import NOT_AVAILABLE, CniError
from fargate_agent.cniplugins.ipam_config import (
    Family,
    IpamConfig,
    read_ipam,
    read_store_path,
    read_timeout_s,
)
from fargate_agent.cniplugins.ipam_store import Holder, Store, open_store
from fargate_agent.cniplugins.program import Plugin
from fargate_agent.cniplugins.results import AddressWithRange, Ip, Result


def add(call: Call) -> Result:
    """Give an address of each subnet."""
    ipam = read_ipam(call.config)
    holder = _holder(call, ipam)
    with open_store(read_store_path(), read_timeout_s()) as store:
        _refuse_known(store, holder)
        ips = tuple(Ip(_give(store, one, holder), one.gateway) for one in ipam.families)
    return Result(ips=ips, routes=tuple(way for one in ipam.families for way in one.routes))


def delete(call: Call) -> None:
    """Free the addresses of an attachment."""
    holder = _holder(call, read_ipam(call.config))
    with open_store(read_store_path(), read_timeout_s()) as store:
        for address in _find(store, holder):
            store.free(address)


def check(call: Call) -> None:
    """See that the addresses are still the attachment's."""
    ipam = read_ipam(call.config)
    holder = _holder(call, ipam)
    previous = {str(one.address.ip) for one in call.previous().ips}
    with open_store(read_store_path(), read_timeout_s()) as store:
        found = _find(store, holder)
    if len(found) != len(ipam.families):
        raise CniError(f"no ip address associated with the given id: {holder.id}")
    for address in found:
        if address not in previous:
            raise CniError(f"{holder.id} has address {address}, which prevResult doesn't have")


def collect(call: Call) -> None:
    """Free all addresses of the network whose attachments aren't there any more."""
    kept = call.attachments()
    with open_store(read_store_path(), read_timeout_s()) as store:
        for address, holder in [*store.holders.items()]:
            attachment = (holder.container_id, holder.ifname)
            if holder.network == call.network and attachment not in kept:
                store.free(address)


def tell_status(call: Call) -> None:
    """See that there are addresses to give."""
    ipam = read_ipam(call.config)
    try:
        with open_store(read_store_path(), read_timeout_s()) as store:
            for one in ipam.families:
                store.keep_gateway(one.subnet, one.gateway)
                _find_address(store, one)
    except (CniError, OSError) as error:
        raise CniError(f"ecs-ipam: {error}", NOT_AVAILABLE) from error


def _holder(call: Call, ipam: IpamConfig) -> Holder:
    own_id = ipam.id or f"{call.container_id}:{call.ifname}"
    return Holder(own_id, call.network, call.container_id, call.ifname)


def _refuse_known(store: Store, holder: Holder) -> None:
    for other in store.holders.values():
        if other.id == holder.id or other.is_same_attachment(holder):
            raise CniError(f"assign ipstore: id already exists, id: {other.id}")


def _find(store: Store, holder: Holder) -> list[str]:
    return [one for one, other in store.holders.items() if other.is_same_attachment(holder)]


def _give(store: Store, family: Family, holder: Holder) -> AddressWithRange:
    store.keep_gateway(family.subnet, family.gateway)
    address = _find_address(store, family)
    store.give(family.subnet, address.ip, holder)
    return address


def _find_address(store: Store, family: Family) -> AddressWithRange:
    """Return the address that is wanted, or one that is free."""
    if family.address is not None:
        if not store.is_free(family.subnet, family.address.ip):
            raise CniError(
                f"getIPV{family.subnet.version}Address commands: failed to mark this ip"
                f" {family.address} as used: it is used already"
            )
        return family.address
    free = store.find_free(family.subnet)
    if free is None:
        raise CniError(
            f"getAvailableIP ipstore: failed to find available ip addresses in the subnet"
            f" {family.subnet}"
        )
    return ip_interface(f"{free}/{family.subnet.prefixlen}")


PLUGIN = Plugin(
    "ecs-ipam",
    {"ADD": add, "DEL": delete, "CHECK": check, "GC": collect, "STATUS": tell_status},
)
