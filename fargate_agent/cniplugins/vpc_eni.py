"""vpc-eni: moves a NIC of the host, an elastic network interface (ENI), into a container.

Names and messages: amazon-vpc-cni-plugins, plugins/vpc-eni. Other than there, what goes wrong in
the container is told, a failed ADD gives the NIC back, and so does DEL, under its own name.
"""

from typing import Final

from fargate_agent.cniplugins.eni_verbs import EniVerbs
from fargate_agent.cniplugins.enis import EniConfig
from fargate_agent.cniplugins.errors import INVALID_CONFIG, UNSUPPORTED_FIELD, CniError
from fargate_agent.cniplugins.fields import Fields
from fargate_agent.cniplugins.program import Plugin
from fargate_agent.cniplugins.results import Address, AddressWithRange
from fargate_agent.cniplugins.vpc_values import parse_address, parse_cidr, parse_mac

NAME: Final = "vpc-eni"
LOG_FILE, LOG_LEVEL = "VPC_CNI_LOG_FILE", "VPC_CNI_LOG_LEVEL"


def read_vpc_eni(config: Fields) -> EniConfig:
    """Read a configuration.

    Raises:
        CniError: it isn't right.
    """
    name, mac_text = config.text("eniName"), config.text("eniMACAddress")
    addresses = config.texts("eniIPAddresses")
    if config.flag("useExistingNetwork"):  # of Windows
        raise CniError("unsupported field: useExistingNetwork: true", UNSUPPORTED_FIELD)
    if not name and not mac_text:
        raise _wrong("missing required parameter ENIName or ENIMACAddress")
    if not addresses:
        raise _wrong("missing required parameter ENIIPAddresses")
    mac = parse_mac(mac_text) if mac_text else ""
    if mac is None:
        raise _wrong(f"invalid ENIMACAddress {mac_text}")
    return EniConfig(
        mac=mac,
        addresses=tuple(map(_read_address, addresses)),
        gateways=tuple(map(_read_gateway, config.texts("gatewayIPAddresses"))),
        blocks_imds=config.flag("blockInstanceMetadata"),
        stays_down=config.flag("opStateDown"),
        mtu=0,
        device=name,
    )


def _read_address(text: str) -> AddressWithRange:
    address = parse_cidr(text)
    if address is None:
        raise _wrong(f"invalid ENIIPAddress {text}")
    return address


def _read_gateway(text: str) -> Address:
    gateway = parse_address(text)
    if gateway is None:
        raise _wrong(f"invalid GatewayIPAddress {text}")
    return gateway


def _wrong(message: str) -> CniError:
    return CniError(message, INVALID_CONFIG)


PLUGIN = Plugin(
    NAME,
    EniVerbs(NAME, read_vpc_eni).by_name(),
    capabilities=("awsvpc-network-mode",),
    log_file_variable=LOG_FILE,
    log_level_variable=LOG_LEVEL,
)
