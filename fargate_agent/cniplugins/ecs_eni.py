"""ecs-eni: moves a NIC of the host, an elastic network interface (ENI), into a container.

Names and messages: amazon-ecs-cni-plugins, plugins/eni. Other than there, a failed ADD gives the
NIC back, and so does DEL.
"""

from typing import Final

from fargate_agent.cniplugins.call import Call
from fargate_agent.cniplugins.errors import INVALID_CONFIG, CniError
from fargate_agent.cniplugins.fields import Fields
from fargate_agent.cniplugins.macs import parse_mac
from fargate_agent.cniplugins.nic_calls import (
    WantedNic,
    add_nic,
    check_nic,
    collect_nics,
    delete_nic,
    tell_nic_status,
)
from fargate_agent.cniplugins.nics import find_nic
from fargate_agent.cniplugins.program import Plugin
from fargate_agent.cniplugins.results import Result, parse_address, parse_address_with_range
from fargate_agent.cniplugins.sandboxes import Place
from fargate_agent.network.link_requests import LinkState

NAME: Final = "ecs-eni"


def read_eni(config: Fields) -> WantedNic:
    """Read a configuration.

    Raises:
        CniError: it isn't right.
    """
    for name in ("eni", "mac"):
        _require(config.text(name), name)
    addresses = tuple(
        parse_address_with_range(one, "ip-addresses") for one in config.texts("ip-addresses")
    )
    _require(addresses, "ip-addresses")
    gateways = tuple(
        parse_address(one, "gateway-ip-addresses") for one in config.texts("gateway-ip-addresses")
    )
    mtu = config.number("mtu")
    if mtu < 0:
        raise CniError(f"newconf types: invalid mtu: {mtu}", INVALID_CONFIG)
    mac = parse_mac(config.text("mac"))
    if mac is None:
        raise CniError("newconf types: malformatted mac address specified", INVALID_CONFIG)

    def find(host: Place) -> LinkState:
        nic = find_nic(host, mac)
        if nic is None:
            raise CniError(f"unable to find the device with mac address {mac}")
        return nic

    return WantedNic(
        plugin=NAME,
        find=find,
        mac=mac,
        addresses=addresses,
        gateways=gateways,
        blocks_imds=config.flag("block-instance-metadata"),
        stays_down=config.flag("stay-down"),
        mtu=mtu,
    )


def add(call: Call) -> Result:
    """Move the NIC in, and give it what it is told to have."""
    return add_nic(call, read_eni(call.config))


def delete(call: Call) -> None:
    """Give the NIC back as it was."""
    delete_nic(call, read_eni(call.config))


def check(call: Call) -> None:
    """See that the container has the NIC with all that ADD gave it."""
    check_nic(call, read_eni(call.config))


def collect(call: Call) -> None:
    """Give back the NICs of attachments that aren't there any more."""
    collect_nics(call, NAME)


def tell_status(call: Call) -> None:
    """See that the NIC can be taken."""
    tell_nic_status(read_eni(call.config))


def _require(value: object, name: str) -> None:
    if not value:
        text = f"newconf types: missing required parameter in config: '{name}'"
        raise CniError(text, INVALID_CONFIG)


PLUGIN = Plugin(
    NAME,
    {"ADD": add, "DEL": delete, "CHECK": check, "GC": collect, "STATUS": tell_status},
    capabilities=("awsvpc-network-mode",),
)
