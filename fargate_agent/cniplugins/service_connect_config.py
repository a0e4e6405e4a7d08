"""What ecs-serviceconnect is told.

Names, messages, and the order in which faults are found: amazon-vpc-cni-plugins,
plugins/ecs-serviceconnect. Other than there, a range of the wrong version of IP is a fault, and so
is a port that is intercepted for two listeners.
"""

from typing import Final, NamedTuple

from fargate_agent.cniplugins.errors import INVALID_CONFIG, CniError
from fargate_agent.cniplugins.fields import Fields
from fargate_agent.cniplugins.results import Address, Range
from fargate_agent.cniplugins.vpc_values import MAX_PORT, parse_address, parse_cidr

REDIRECT_NAT, REDIRECT_TPROXY = "nat", "tproxy"
_CIDR_NAMES: Final = {4: "ipv4Cidr", 6: "ipv6Cidr"}
_IP_NAMES: Final = {4: "ipv4", 6: "ipv6"}


class Listener(NamedTuple):
    """Where the proxy gets what comes in for a port."""

    intercept_port: int
    port: int


class Egress(NamedTuple):
    """What happens to what goes out to services."""

    port: int
    """Where the proxy listens; 0: it is elsewhere, at one of the gateways."""
    gateways: tuple[Address, ...]
    """One for each version of IP that is on; none if there is a port."""
    mode: str
    """`REDIRECT_NAT` or `REDIRECT_TPROXY`."""
    ranges: tuple[Range, ...]
    """What services have as addresses: one for each version of IP that is on."""


class ServiceConnectConfig(NamedTuple):
    """All of it."""

    listeners: tuple[Listener, ...]
    egress: Egress | None
    versions: tuple[int, ...]
    """Of IP, those that are on."""


def read_service_connect(config: Fields) -> ServiceConnectConfig:
    """Read a configuration.

    Raises:
        CniError: it isn't right.
    """
    entries = config.list_of_fields("ingressConfig")
    if not entries and not config.has("egressConfig"):
        raise _wrong("either IngressConfig or EgressConfig must be present")
    enabled = {4: config.flag("enableIPv4"), 6: config.flag("enableIPv6")}
    versions = tuple(version for version, is_on in enabled.items() if is_on)
    if not versions:
        raise _wrong("both V4 and V6 cannot be disabled")
    listeners = _read_listeners(entries)
    egress = None
    if config.has("egressConfig"):
        egress = _read_egress(config.fields("egressConfig"), versions)
    return ServiceConnectConfig(listeners, egress, versions)


def _read_listeners(entries: list[Fields]) -> tuple[Listener, ...]:
    ports: dict[int, int] = {}
    for entry in entries:
        port = _check_port(entry.number("listenerPort"))
        intercepted = entry.number("interceptPort")
        if intercepted and ports.setdefault(_check_port(intercepted), port) != port:
            text = f"invalid parameter: IngressConfig has two listeners for port {intercepted}"
            raise _wrong(text)
    return tuple(Listener(*one) for one in ports.items())


def _read_egress(config: Fields, versions: tuple[int, ...]) -> Egress:
    port, redirect = config.number("listenerPort"), config.has("redirectIP")
    if bool(port) == redirect:
        raise _wrong("exactly one of ListenerPort and RedirectIP must be specified in Egress")
    mode = config.text("redirectMode")
    if mode not in {REDIRECT_NAT, REDIRECT_TPROXY}:
        raise _wrong("invalid parameter: Egress RedirectMode")
    if mode == REDIRECT_NAT and not port:
        raise _wrong("missing required parameter: Egress ListenerPort")
    if port:
        _check_port(port)
    gateways = _read_gateways(config.fields("redirectIP"), versions) if redirect else ()
    if not config.has("vip"):
        raise _wrong("missing required parameter: EgressConfig VIP")
    return Egress(port, gateways, mode, _read_ranges(config.fields("vip"), versions))


def _read_gateways(redirect: Fields, versions: tuple[int, ...]) -> tuple[Address, ...]:
    texts = {version: redirect.text(name) for version, name in _IP_NAMES.items()}
    if not all(texts[version] for version in versions):
        raise _wrong("missing required parameter: EgressConfig Redirect IP")
    found = {version: parse_address(text) for version, text in texts.items() if text}
    gateways = []
    for version, address in found.items():
        if address is None or address.version != version:
            raise _wrong("invalid parameter: EgressConfig RedirectIP")
        if version in versions:
            gateways.append(address)
    return tuple(gateways)


def _read_ranges(vip: Fields, versions: tuple[int, ...]) -> tuple[Range, ...]:
    texts = {version: vip.text(name) for version, name in _CIDR_NAMES.items()}
    if not all(texts[version] for version in versions):
        raise _wrong("missing required parameter: EgressConfig VIP CIDR")
    ranges = []
    for version, text in texts.items():
        cidr = parse_cidr(text)
        if text and (cidr is None or cidr.version != version):
            raise _wrong(f"invalid parameter: EgressConfig IPv{version} CIDR Address")
        if cidr is not None and version in versions:
            ranges.append(cidr.network)
    return tuple(ranges)


def _check_port(port: int) -> int:
    if not 0 < port <= MAX_PORT:
        raise _wrong(f"invalid port {port} specified")
    return port


def _wrong(message: str) -> CniError:
    return CniError(message, INVALID_CONFIG)
