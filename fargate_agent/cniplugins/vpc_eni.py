"""vpc-eni: moves a NIC of the host, found by its name or MAC, into a container.

Names and messages: amazon-vpc-cni-plugins, plugins/vpc-eni, whose ADD hides what fails in the
container. Here it fails, and the NIC is given back.
"""

from typing import Final

from fargate_agent.cniplugins.call import Call
from fargate_agent.cniplugins.errors import INVALID_CONFIG, CniError
from fargate_agent.cniplugins.fields import Fields
from fargate_agent.cniplugins.macs import read_mac
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
from fargate_agent.network.link_requests import LinkState, find_link

NAME: Final = "vpc-eni"


def read_eni(config: Fields) -> WantedNic:
    """Read a configuration.

    Raises:
        CniError: it isn't right.
    """
    name, mac = config.text("eniName"), config.text("eniMACAddress")
    if not name and not mac:
        text = "missing required parameter eniName or eniMACAddress"
        raise CniError(text, INVALID_CONFIG)
    mac = read_mac(mac, "eniMACAddress") if mac else ""
    addresses = tuple(
        parse_address_with_range(one, "eniIPAddresses") for one in config.texts("eniIPAddresses")
    )
    if not addresses:
        raise CniError("missing required parameter eniIPAddresses", INVALID_CONFIG)
    if config.flag("useExistingNetwork"):
        raise CniError("useExistingNetwork is for Windows only", INVALID_CONFIG)

    def find(host: Place) -> LinkState:
        nic = find_nic(host, mac) if mac else find_link(host.link, name)
        if nic is None:
            raise CniError(f"failed to find link {mac or name}")
        return nic

    return WantedNic(
        plugin=NAME,
        find=find,
        mac=mac,
        addresses=addresses,
        gateways=tuple(
            parse_address(one, "gatewayIPAddresses") for one in config.texts("gatewayIPAddresses")
        ),
        blocks_imds=config.flag("blockInstanceMetadata"),
        stays_down=config.flag("opStateDown"),
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


PLUGIN: Final = Plugin(
    NAME,
    {"ADD": add, "DEL": delete, "CHECK": check, "GC": collect, "STATUS": tell_status},
    capabilities=("awsvpc-network-mode",),
    log_file_variable="VPC_CNI_LOG_FILE",
    log_level_variable="VPC_CNI_LOG_LEVEL",
)
