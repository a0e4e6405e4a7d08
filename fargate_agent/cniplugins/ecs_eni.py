"""ecs-eni: moves a NIC of the host, an elastic network interface (ENI), into a container.

Names and messages: amazon-ecs-cni-plugins, plugins/eni. Other than there, a failed ADD gives the
NIC back, and so does DEL.
"""

from typing import Final

from fargate_agent.cniplugins.eni_verbs import EniVerbs
from fargate_agent.cniplugins.enis import EniConfig
from fargate_agent.cniplugins.errors import INVALID_CONFIG, CniError
from fargate_agent.cniplugins.fields import Fields
from fargate_agent.cniplugins.program import Plugin
from fargate_agent.cniplugins.results import parse_address, parse_address_with_range

NAME: Final = "ecs-eni"


def read_eni(config: Fields) -> EniConfig:
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
    return EniConfig(
        read_mac(config.text("mac")),
        addresses,
        gateways,
        config.flag("block-instance-metadata"),
        config.flag("stay-down"),
        mtu,
    )


def read_mac(text: str) -> str:
    """Return a MAC as the kernel writes it.

    Raises:
        CniError: it is none.
    """
    octets = text.lower().replace("-", ":").split(":")
    is_right = all(len(one) == 2 and one.isalnum() for one in octets)
    try:
        mac = bytes.fromhex("".join(octets))
    except ValueError:
        mac = b""
    if not is_right or len(mac) != 6:
        raise CniError("newconf types: malformatted mac address specified", INVALID_CONFIG)
    return mac.hex(":")


def _require(value: object, name: str) -> None:
    if not value:
        text = f"newconf types: missing required parameter in config: '{name}'"
        raise CniError(text, INVALID_CONFIG)


PLUGIN = Plugin(NAME, EniVerbs(NAME, read_eni).by_name(), capabilities=("awsvpc-network-mode",))
