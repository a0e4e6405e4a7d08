"""What ecs-ipam is told: the object `ipam` of a configuration, and variables.

Names, limits and messages: amazon-ecs-cni-plugins, plugins/ipam/config.
"""

import os
from typing import Final, NamedTuple

from fargate_agent.cniplugins.errors import INVALID_CONFIG, INVALID_ENVIRONMENT, CniError
from fargate_agent.cniplugins.fields import Fields
from fargate_agent.cniplugins.locks import DIRECTORY
from fargate_agent.cniplugins.results import (
    Address,
    AddressWithRange,
    Range,
    Route,
    parse_address,
    parse_address_with_range,
    parse_range,
    parse_route,
)

DEFAULT_PATH: Final = f"{DIRECTORY}/eni-ipam.db"
"""Gone after a boot, as the containers are that have these addresses."""
DEFAULT_TIMEOUT_S: Final = 5.0
_LONGEST: Final = {4: 30, 6: 126}
"""Lengths of the smallest subnets."""
_UNITS_S: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}


class Family(NamedTuple):
    """What is told of one version of IP."""

    subnet: Range
    address: AddressWithRange | None
    """The one that is wanted; None: whichever is free."""
    gateway: Address
    routes: tuple[Route, ...]


class IpamConfig(NamedTuple):
    """All of it."""

    families: tuple[Family, ...]
    id: str
    """By what the addresses are known; empty if it isn't told."""


def read_ipam(config: Fields) -> IpamConfig:
    """Read what a configuration says of addresses.

    Raises:
        CniError: it isn't right.
    """
    if not config.has("ipam"):
        raise CniError(
            "loadIPAMConfig config: 'IPAM' field missing in configuration", INVALID_CONFIG
        )
    ipam = config.fields("ipam")
    families = tuple(
        _read_family(ipam, version) for version in (4, 6) if ipam.text(f"ipv{version}-subnet")
    )
    if not families:
        raise CniError("loadIPAMConfig config: subnet is required", INVALID_CONFIG)
    for version in {4, 6} - {one.subnet.version for one in families}:
        for name in (f"ipv{version}-address", f"ipv{version}-gateway", f"ipv{version}-routes"):
            if ipam.value(name):
                raise CniError(f"ipam.{name} needs ipam.ipv{version}-subnet", INVALID_CONFIG)
    return IpamConfig(families, ipam.text("id"))


def _read_family(ipam: Fields, version: int) -> Family:
    subnet = parse_range(ipam.text(f"ipv{version}-subnet"), f"ipv{version}-subnet")
    if subnet.version != version:
        raise CniError(f"invalid ipv{version}-subnet: {subnet}", INVALID_CONFIG)
    if subnet.prefixlen > _LONGEST[version]:
        raise CniError("loadIPAMConfig config: no available ip in the subnet", INVALID_CONFIG)
    address, gateway = None, subnet[1]
    if text := ipam.text(f"ipv{version}-address"):
        address = parse_address_with_range(text, f"ipv{version}-address")
        _check(address.ip, subnet, "ip")
    if text := ipam.text(f"ipv{version}-gateway"):
        gateway = parse_address(text, f"ipv{version}-gateway")
        _check(gateway, subnet, "gateway")
    if address is not None and address.ip == gateway:
        raise CniError(f"ip specified is that of the gateway: {gateway}", INVALID_CONFIG)
    routes = tuple(parse_route(one) for one in ipam.list_of_fields(f"ipv{version}-routes"))
    for route in routes:
        if route.to.version != version:
            raise CniError(f"invalid ipv{version}-routes: {route.to}", INVALID_CONFIG)
    return Family(subnet, address, gateway, routes)


def _check(address: Address, subnet: Range, what: str) -> None:
    if address not in subnet:
        text = f"verifyIPSubnet config: ip {address} is not within the subnet {subnet}"
        raise CniError(text, INVALID_CONFIG)
    last = subnet.broadcast_address if subnet.version == 4 else None
    if address in {subnet.network_address, last}:
        raise CniError(f"{what} specified is reserved by default: {address}", INVALID_CONFIG)


def read_store_path() -> str:
    """Return where addresses are noted: IPAM_DB_PATH."""
    return os.environ.get("IPAM_DB_PATH", "").strip() or DEFAULT_PATH


def read_timeout_s() -> float:
    """Return how long to wait for others: IPAM_DB_CONNECTION_TIMEOUT, written as Go does it.

    Source: Go, time.ParseDuration.

    Raises:
        CniError: it can't be read.
    """
    text = os.environ.get("IPAM_DB_CONNECTION_TIMEOUT", "").strip()
    if not text:
        return DEFAULT_TIMEOUT_S
    import re  # most calls don't get here

    parts = re.findall(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        message = f"loadDBConfig config: parsing timeout string failed: {text}"
        raise CniError(message, INVALID_ENVIRONMENT)
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)
