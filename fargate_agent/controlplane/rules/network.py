"""Rules about ports, names and proxies: what an ENI that all containers share can't do."""

import re
from dataclasses import dataclass
from typing import Final

from fargate_agent.controlplane.errors import ApiError, client_error
from fargate_agent.controlplane.rules.draft import Draft
from fargate_agent.controlplane.validate import Json

MAX_PORT: Final = 65535
MAX_PORT_RANGES: Final = 100
"""Of one container. Source: ECS API, PortMapping.containerPortRange."""

_NOT_AWSVPC: Final = (
    ("links", "Links are not supported when networkMode=awsvpc."),
    ("hostname", "hostname is not supported on container when networkMode=awsvpc."),
    (
        "disableNetworking",
        "Disable Networking is not supported on container when networkMode=awsvpc.",
    ),
    ("dnsServers", "DNS servers are not supported on container when networkMode=awsvpc."),
    (  # unverified
        "dnsSearchDomains",
        "DNS search domains are not supported on container when networkMode=awsvpc.",
    ),
    ("extraHosts", "Extra hosts are not supported on container when networkMode=awsvpc."),
)

_PORT_NAME: Final = re.compile(r"[a-z0-9_][a-z0-9_-]{0,63}")
_RANGE: Final = re.compile(r"(\d{1,5})-(\d{1,5})", re.ASCII)

_PROXY_PROPERTIES: Final = (
    (("ProxyIngressPort",), "Ingress port not found"),
    (("ProxyEgressPort",), "Egress port not found"),  # unverified, as are those below
    (("AppPorts",), "App ports not found"),
    (("IgnoredUID", "IgnoredGID"), "Ignored UID or GID not found"),
)
"""Of each row one must be there, and what is said if none is.

Source: ECS API, ProxyConfiguration.
"""


@dataclass(frozen=True, slots=True)
class _Ports:
    """The ports of one mapping, from the first to the last."""

    first: int
    last: int
    protocol: str
    name: str | None


def check_members(draft: Draft) -> None:
    """Raise if a container has what goes only without an ENI."""
    if not draft.is_awsvpc:
        return
    for container in draft.containers:
        for member, text in _NOT_AWSVPC:
            if container.get(member):
                raise client_error(text)


def check_ports(draft: Draft) -> None:
    """Raise if a port mapping is wrong, or is used by two containers that share an ENI."""
    mode, taken = draft.request.get("networkMode"), list[_Ports]()
    for container in draft.containers:
        mappings = container.get("portMappings", [])
        if sum("containerPortRange" in mapping for mapping in mappings) > MAX_PORT_RANGES:
            raise _invalid_range(container)
        for mapping in mappings:
            ports = _parse_ports(container, mapping)
            if mode in {"awsvpc", "host"}:
                _check_host_port(mapping, mode)
            if draft.is_awsvpc:
                _check_free(ports, taken)
            taken.append(ports)


def check_proxy(draft: Draft) -> None:
    """Raise if a proxy is not one of the containers, or doesn't say what it needs."""
    proxy = draft.request.get("proxyConfiguration")
    if proxy is None:
        return
    name = proxy["containerName"]
    if name not in {container["name"] for container in draft.containers}:
        raise client_error(f"Proxy container [{name}] does not exist.")
    if not draft.is_awsvpc:  # unverified
        raise client_error("Proxy configuration is only supported when networkMode=awsvpc.")
    given = {pair.get("name") for pair in proxy.get("properties", []) if pair.get("value")}
    for names, text in _PROXY_PROPERTIES:
        if given.isdisjoint(names):
            raise client_error(text)


def _parse_ports(container: Json, mapping: Json) -> _Ports:
    protocol, name = mapping.get("protocol", "tcp"), mapping.get("name")
    if name is not None and not _PORT_NAME.fullmatch(name):  # unverified
        raise client_error(f"Invalid port mapping name for container '{container['name']}'.")
    if "containerPortRange" not in mapping:
        port: int = mapping.get("containerPort", 0)
        if not (1 <= port <= MAX_PORT and 0 <= mapping.get("hostPort", 0) <= MAX_PORT):
            raise client_error(  # unverified
                f"Invalid port mapping for container '{container['name']}'."
            )
        return _Ports(port, port, protocol, name)
    if not {"containerPort", "hostPort"}.isdisjoint(mapping):
        raise client_error(
            f"Invalid port mapping for container '{container['name']}', cannot specify both single "
            "port and port range."
        )
    match = _RANGE.fullmatch(mapping["containerPortRange"])
    if match is None or not 1 <= int(match[1]) < int(match[2]) <= MAX_PORT:
        raise _invalid_range(container)
    return _Ports(int(match[1]), int(match[2]), protocol, name)


def _check_host_port(mapping: Json, mode: str) -> None:
    # a host port of 0 leaves the choice to ECS, as if it weren't there
    if mapping.get("hostPort") and mapping["hostPort"] != mapping["containerPort"]:
        raise client_error(
            f"When networkMode={mode}, the host ports and container ports in port mappings must "
            "match."
        )


def _check_free(ports: _Ports, taken: list[_Ports]) -> None:
    for other in taken:
        first = max(ports.first, other.first)
        if ports.protocol == other.protocol and first <= min(ports.last, other.last):
            raise client_error(
                f"{ports.protocol.upper()} container port '{first}' is used multiple times in task "
                "when networkMode=awsvpc."
            )
        if ports.name is not None and ports.name == other.name:
            raise client_error("When networkMode=awsvpc, port mapping name is already used")


def _invalid_range(container: Json) -> ApiError:
    return client_error(
        f"Invalid 'containerPortRange' setting for container '{container['name']}'."
    )
