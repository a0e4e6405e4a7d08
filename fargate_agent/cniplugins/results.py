"""What ADD has made: read from any version of CNI, and written in any.

Source: containernetworking/cni, SPEC.md of each version, "Success".
"""

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fargate_agent.cniplugins.errors import INVALID_CONFIG, CniError
from fargate_agent.cniplugins.fields import Fields
from fargate_agent.cniplugins.versions import is_since

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
AddressWithRange = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Range = ipaddress.IPv4Network | ipaddress.IPv6Network


class Interface(NamedTuple):
    """An interface that was made, or that was used."""

    name: str
    mac: str = ""
    sandbox: str = ""
    """Where it is: path of a network namespace, empty for that of the host."""
    mtu: int = 0
    """In bytes; 0 if it isn't told."""


class Ip(NamedTuple):
    """An address of a container."""

    address: AddressWithRange
    gateway: Address | None = None
    interface: int | None = None
    """Which of the result's interfaces has it, from 0 on."""


class Route(NamedTuple):
    """A route of a container. What is None isn't told."""

    to: Range
    gateway: Address | None = None
    mtu: int | None = None
    advmss: int | None = None
    priority: int | None = None
    table: int | None = None
    scope: int | None = None


class Dns(NamedTuple):
    """How a container finds names."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Result(NamedTuple):
    """All of it."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[Ip, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = Dns()


def parse_result(raw: Mapping[str, Any], what: str = "result") -> Result:
    """Read a result of whatever version; `what` it is, for messages.

    Raises:
        CniError: it isn't one.
    """
    result = Fields(raw, f"{what}.")
    dns = result.fields("dns")
    return Result(
        tuple(_parse_interface(one) for one in result.list_of_fields("interfaces")),
        tuple(_parse_ip(one) for one in result.list_of_fields("ips")),
        tuple(parse_route(one) for one in result.list_of_fields("routes")),
        Dns(
            tuple(dns.texts("nameservers")),
            dns.text("domain"),
            tuple(dns.texts("search")),
            tuple(dns.texts("options")),
        ),
    )


def _parse_interface(one: Fields) -> Interface:
    return Interface(one.text("name"), one.text("mac"), one.text("sandbox"), one.number("mtu"))


def _parse_ip(one: Fields) -> Ip:
    return Ip(
        parse_address_with_range(one.required("address"), "address"),
        parse_address(one.text("gateway"), "gateway") if one.text("gateway") else None,
        one.number("interface") if one.has("interface") else None,
    )


def parse_route(one: Fields) -> Route:
    """Read a route.

    Raises:
        CniError: it isn't one.
    """
    numbers = [
        one.number(name) if one.has(name) else None
        for name in ("mtu", "advmss", "priority", "table", "scope")
    ]
    gateway = parse_address(one.text("gw"), "gw") if one.text("gw") else None
    return Route(parse_range(one.required("dst"), "dst"), gateway, *numbers)


def parse_address(text: str, what: str) -> Address:
    """Read an IP address; `what` it is, for the message.

    Raises:
        CniError: it is none.
    """
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise CniError(f"invalid {what}: {text!r} is no IP address", INVALID_CONFIG) from error


def parse_address_with_range(text: str, what: str) -> AddressWithRange:
    """Read an IP address with the length of its network, e.g. 10.0.0.5/24.

    Raises:
        CniError: it is none.
    """
    try:
        if "/" in text:
            return ipaddress.ip_interface(text)
    except ValueError:
        pass
    raise CniError(f"invalid {what}: {text!r} is no IP address with a length", INVALID_CONFIG)


def parse_range(text: str, what: str) -> Range:
    """Read a range of IP addresses. Bits after its length don't count, as with Go.

    Raises:
        CniError: it is none.
    """
    return parse_address_with_range(text, what).network


def render_result(result: Result, version: str) -> dict[str, Any]:
    """Return a result as JSON of a version that is known."""
    rendered: dict[str, Any] = {"cniVersion": version}
    if result.interfaces:
        rendered["interfaces"] = [_render_interface(one, version) for one in result.interfaces]
    rendered["ips"] = [_render_ip(one, version) for one in result.ips]
    if result.routes:
        rendered["routes"] = [_render_route(one) for one in result.routes]
    rendered["dns"] = _without_nothing(
        nameservers=result.dns.nameservers,
        domain=result.dns.domain,
        search=result.dns.search,
        options=result.dns.options,
    )
    return rendered


def _render_interface(one: Interface, version: str) -> dict[str, Any]:
    mtu = one.mtu if is_since(version, "1.1.0") else 0
    return {"name": one.name} | _without_nothing(mac=one.mac, mtu=mtu, sandbox=one.sandbox)


def _render_ip(one: Ip, version: str) -> dict[str, Any]:
    rendered: dict[str, Any] = {}
    if not is_since(version, "1.0.0"):
        rendered["version"] = str(one.address.version)
    if one.interface is not None:
        rendered["interface"] = one.interface
    rendered["address"] = one.address.with_prefixlen
    if one.gateway is not None:
        rendered["gateway"] = str(one.gateway)
    return rendered


def _render_route(one: Route) -> dict[str, Any]:
    """Fields of 1.1.0 are written in each version: else what asked for them would not get them."""
    rendered: dict[str, Any] = {"dst": one.to.with_prefixlen}
    if one.gateway is not None:
        rendered["gw"] = str(one.gateway)
    extra = {
        "mtu": one.mtu,
        "advmss": one.advmss,
        "priority": one.priority,
        "table": one.table,
        "scope": one.scope,
    }
    return rendered | {name: value for name, value in extra.items() if value is not None}


def _without_nothing(**values: str | int | Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}
