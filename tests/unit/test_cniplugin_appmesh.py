"""What aws-appmesh takes for its configuration, and the rules that it makes of it."""

from ipaddress import ip_network
from typing import Any

import pytest

from fargate_agent.cniplugins.aws_appmesh import MeshConfig, join_ports, read_mesh, render_chains
from fargate_agent.cniplugins.errors import DECODE_FAILURE, INVALID_CONFIG, CniError
from fargate_agent.cniplugins.fields import Fields

UID = {"ignoredUID": "1337", "proxyEgressPort": "8000"}
GID = {"ignoredGID": "1337", "proxyEgressPort": "8000"}
BOTH_WAYS = {"proxyIngressPort": "8080", "appPorts": ["1223", "2334"]}
IPV6 = "2001:0db8:85a3:0000:0000:8a2e:0370:7334"


def refusal(config: dict[str, Any]) -> str:
    with pytest.raises(CniError) as caught:
        read_mesh(Fields(config))
    assert caught.value.code == INVALID_CONFIG
    return caught.value.message


def test_all_fields() -> None:
    config = {
        **UID,
        **BOTH_WAYS,
        "EgressIgnoredPorts": ["80", "81"],
        "egressIgnoredIPs": ["216.3.128.12", " 216.3.128.12/24", IPV6],
        "enableIPv6": True,
    }
    assert read_mesh(Fields(config)) == MeshConfig(
        uid=1337,
        gid=None,
        ingress_port=8080,
        egress_port=8000,
        app_ports=(1223, 2334),
        ignored_ports=(80, 81),
        ignored_ranges=(
            ip_network("216.3.128.12/32"),
            ip_network("216.3.128.0/24"),
            ip_network(f"{IPV6}/128"),
        ),
        versions=(4, 6),
    )


@pytest.mark.parametrize(
    "config",
    [
        {**UID, **BOTH_WAYS, "egressIgnoredPorts": ["80"], "egressIgnoredIPs": [f"{IPV6}/32"]},
        {**UID, **BOTH_WAYS, "egressIgnoredIPs": ["2001:0db8::0000:0000:8a2e:0370:7334"]},
        {**GID, "proxyIngressPort": "8080", "appPorts": ["1223"]},
        GID,
        {**GID, "proxyIngressPort": "8080", "appPorts": [""], "egressIgnoredPorts": [""]},
        {**GID, "egressIgnoredIPs": [""], "appPorts": None},
    ],
)
def test_what_the_original_takes(config: dict[str, Any]) -> None:
    assert read_mesh(Fields(config)).egress_port == 8000


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"proxyEgressPort": "1"}, "missing required parameter ignoredGID or ignoredUID"),
        ({"ignoredUID": "1337"}, "missing required parameter proxyEgressPort"),
        (
            {**GID, "appPorts": ["1223"]},
            "missing parameter proxyIngressPort (required if appPorts are provided)",
        ),
        (
            {**GID, "proxyIngressPort": "8080"},
            "missing parameter appPorts (required if proxyIngressPort is provided)",
        ),
        ({**UID, **BOTH_WAYS, "proxyIngressPort": "ab80"}, "invalid port [ab80] specified"),
        (
            {**UID, "egressIgnoredIPs": ["12a.22b.128.12", IPV6]},
            "invalid IP or CIDR block [12a.22b.128.12] specified in egressIgnoredIPs",
        ),
        ({**UID, "ignoredUID": "root"}, "invalid ignoredUID [root] specified"),
        ({**GID, "ignoredGID": "4294967295"}, "invalid ignoredGID [4294967295] specified"),
    ],
)
def test_what_is_wrong_is_told(config: dict[str, Any], message: str) -> None:
    assert refusal(config) == message


@pytest.mark.parametrize("port", ["a", "1*ab", " 1", "-1", "1.1", "0", "65536", "٣"])
def test_ports_are_numbers(port: str) -> None:
    message = f"invalid port [{port}] specified"
    assert refusal({**UID, **BOTH_WAYS, "appPorts": ["80", port]}) == message
    assert refusal({**UID, "egressIgnoredPorts": [port, "80"]}) == message
    assert refusal({**UID, "proxyEgressPort": port}) == message


@pytest.mark.parametrize(
    "text", ["a", "123.222.333.444/24", "123.222..444", "123.222/333.444", "10.0.0.0/255.0.0.0"]
)
def test_ranges_are_addresses_with_lengths(text: str) -> None:
    message = f"invalid IP or CIDR block [{text}] specified in egressIgnoredIPs"
    assert refusal({**UID, "egressIgnoredIPs": [text]}) == message


def test_numbers_are_strings() -> None:
    with pytest.raises(CniError, match="proxyEgressPort has to be a string") as caught:
        read_mesh(Fields({**UID, "proxyEgressPort": 8000}))
    assert caught.value.code == DECODE_FAILURE


def test_ports_are_joined() -> None:
    assert join_ports([82, 80, 81, 80, 90, 65535]) == [(80, 82), (90, 90), (65535, 65535)]
    assert join_ports([]) == []


def test_any_number_of_ports_has_rules() -> None:
    ports = [str(port) for port in range(1, 200, 2)]
    mesh = read_mesh(Fields({**UID, **BOTH_WAYS, "appPorts": ports}))
    chains = {one.name: len(one.rules) for one in render_chains(mesh)}
    assert chains == {"APPMESH_EGRESS": 2, "OUTPUT": 1, "APPMESH_INGRESS": 100, "PREROUTING": 1}
