"""Configurations of the plugins of a VPC: what is taken, and what is said of others.

Source of the texts: amazon-vpc-cni-plugins, plugins/aws-appmesh and plugins/ecs-serviceconnect.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.cniplugins.aws_appmesh import read_mesh
from fargate_agent.cniplugins.call import Call
from fargate_agent.cniplugins.ecs_serviceconnect import read_connect
from fargate_agent.cniplugins.errors import CniError
from fargate_agent.cniplugins.fields import Fields
from fargate_agent.cniplugins.journal import Journal
from fargate_agent.cniplugins.vpc_branch_eni import read_branch

MESH: dict[str, Any] = {
    "ignoredUID": "1337",
    "ignoredGID": "133",
    "proxyIngressPort": "8000",
    "proxyEgressPort": "8080",
    "appPorts": ["5000", "5001"],
    "egressIgnoredPorts": ["80", "81"],
    "egressIgnoredIPs": ["216.3.128.12", "216.3.128.12/24", "2001:0db8::0000:0000:8a2e:0370:7334"],
}
CONNECT: dict[str, Any] = {
    "ingressConfig": [{"listenerName": "in", "listenerPort": 15000, "interceptPort": 8080}],
    "egressConfig": {
        "listenerName": "out",
        "listenerPort": 30000,
        "redirectMode": "nat",
        "vip": {"ipv4Cidr": "127.255.0.0/16", "ipv6Cidr": "2002::/96"},
    },
    "enableIPv4": True,
    "enableIPv6": True,
}


def call(config: dict[str, Any]) -> Call:
    return Call(
        verb="ADD",
        config=Fields(config),
        version="0.4.0",
        network="net",
        container_id="c",
        netns="",
        ifname="eth0",
        args={},
        path="",
        stdin=b"",
        journal=Journal("test"),
    )


def without(config: dict[str, Any], *names: str, **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**config, **changes}.items() if name not in names}


def test_whole_mesh_is_read() -> None:
    mesh = read_mesh(call({**MESH, "enableIPv6": True}))

    assert (mesh.ignored_uid, mesh.ignored_gid, mesh.versions) == (1337, 133, (4, 6))
    assert (mesh.egress_port, mesh.ingress_port) == (8080, 8000)
    assert (mesh.app_ports, mesh.ignored_ports) == ((5000, 5001), (80, 81))
    assert [str(one) for one in mesh.ignored_ranges] == [
        "216.3.128.12/32",
        "216.3.128.0/24",
        "2001:db8::8a2e:370:7334/128",
    ]


def test_names_count_without_their_case_and_an_empty_port_is_none() -> None:
    mesh = read_mesh(
        call({"IGNOREDuid": "1", "proxyegressport": "2", "appPorts": [""], "enableIpv6": False})
    )

    assert (mesh.app_ports, mesh.ingress_port, mesh.versions) == ((), None, (4,))


@pytest.mark.parametrize(
    ("config", "text"),
    [
        pytest.param(
            without(MESH, "ignoredUID", "ignoredGID"),
            "missing required parameter ignoredGID or ignoredUID",
            id="nobody ignored",
        ),
        pytest.param(
            without(MESH, "proxyEgressPort"),
            "missing required parameter proxyEgressPort",
            id="no egress port",
        ),
        pytest.param(
            without(MESH, "proxyIngressPort"),
            "missing parameter proxyIngressPort (required if appPorts are provided)",
            id="no ingress port",
        ),
        pytest.param(
            without(MESH, "appPorts"),
            "missing parameter appPorts (required if proxyIngressPort is provided)",
            id="no app ports",
        ),
        *(
            pytest.param(
                {**MESH, "appPorts": [port]}, f"invalid port [{port}] specified", id=f"port {port}"
            )
            for port in ("a", "1*ab", " 1", "-1", "1.1", "70000")
        ),
        pytest.param(
            {**MESH, "egressIgnoredIPs": ["123.222/333.444"]},
            "invalid IP or CIDR block [123.222/333.444] specified",
            id="range",
        ),
    ],
)
def test_mesh_that_cannot_be_is_refused(config: dict[str, Any], text: str) -> None:
    with pytest.raises(CniError) as refused:
        read_mesh(call(config))

    assert refused.value.message == text


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="whole"),
        pytest.param({"egressConfig": None}, id="without egress"),
        pytest.param({"ingressConfig": None}, id="without ingress"),
        pytest.param({"ingressConfig": []}, id="empty ingress"),
        pytest.param({"ingressConfig": [{"listenerPort": 15000}]}, id="nothing intercepted"),
    ],
)
def test_valid_connect_is_read(changes: dict[str, Any]) -> None:
    assert read_connect(call({**CONNECT, **changes})).versions == (4, 6)


def egress(*without_: str, **changes: Any) -> dict[str, Any]:
    return {"egressConfig": without(CONNECT["egressConfig"], *without_, **changes)}


REDIRECT: dict[str, Any] = {"redirectMode": "tproxy"}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        pytest.param(
            {"ingressConfig": None, "egressConfig": None},
            "either IngressConfig or EgressConfig must be present",
            id="nothing",
        ),
        pytest.param(
            {"enableIPv4": False, "enableIPv6": False},
            "both V4 and V6 cannot be disabled",
            id="no version",
        ),
        pytest.param(
            {"ingressConfig": [{"listenerPort": 15000, "interceptPort": -1}]},
            "invalid port -1 specified",
            id="intercept port",
        ),
        pytest.param(
            {"ingressConfig": [{"listenerPort": 80000}]},
            "invalid port 80000 specified",
            id="listener port",
        ),
        pytest.param(
            {"ingressConfig": [{"interceptPort": 80}]}, "invalid port 0 specified", id="no listener"
        ),
        pytest.param(egress(listenerPort=-1), "invalid port -1 specified", id="egress port"),
        pytest.param(
            {"egressConfig": {}},
            "exactly one of ListenerPort and RedirectIP must be specified in Egress",
            id="empty egress",
        ),
        pytest.param(
            egress("redirectMode"), "invalid parameter: Egress RedirectMode", id="no mode"
        ),
        pytest.param(
            egress(redirectMode="other"), "invalid parameter: Egress RedirectMode", id="mode"
        ),
        pytest.param(
            egress("listenerPort", redirectIP={"ipv4": "10.1.1.1", "ipv6": "::1"}),
            "missing required parameter: Egress ListenerPort",
            id="nat to an address",
        ),
        pytest.param(
            egress("listenerPort", redirectIP={"ipv6": "2001::1"}, **REDIRECT),
            "missing required parameter: EgressConfig Redirect IP",
            id="no IPv4 address",
        ),
        pytest.param(
            egress("listenerPort", redirectIP={"ipv4": "10.1.1", "ipv6": "2001::1"}, **REDIRECT),
            "invalid parameter: EgressConfig RedirectIP",
            id="no address",
        ),
        pytest.param(egress("vip"), "missing required parameter: EgressConfig VIP", id="no vip"),
        pytest.param(
            egress(vip={"ipv4Cidr": "127.255.0.0/16"}),
            "missing required parameter: EgressConfig VIP CIDR",
            id="no IPv6 range",
        ),
        pytest.param(
            egress(vip={"ipv4Cidr": "abc", "ipv6Cidr": "2002::/96"}),
            "invalid parameter: EgressConfig IPv4 CIDR Address",
            id="no range",
        ),
        pytest.param(
            egress(vip={"ipv4Cidr": "10.0.0.0/8", "ipv6Cidr": "10.0.0.0/8"}),
            "invalid parameter: EgressConfig IPv6 CIDR Address",
            id="range of the other version",
        ),
    ],
)
def test_connect_that_cannot_be_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(CniError) as refused:
        read_connect(call({**CONNECT, **changes}))

    assert refused.value.message == text


def test_samples_can_be_read() -> None:
    read = {"vpc-branch-eni": read_branch, "ecs-serviceconnect": read_connect}
    found = []
    for sample in sorted((Path(__file__).parents[2] / "cni").glob("*.conflist")):
        for plugin in json.loads(sample.read_text())["plugins"]:
            found.append(plugin["type"])
            if plugin["type"] in read:
                read[plugin["type"]](call(plugin))

    assert found == ["ecs-bridge", "vpc-branch-eni", "ecs-bridge", "ecs-serviceconnect"]


BRANCH: dict[str, Any] = {
    "trunkName": "eth1",
    "branchVlanID": "101",
    "branchMACAddress": "02:E1:48:75:86:A4",
    "ipAddresses": ["192.168.1.2/16"],
    "gatewayIPAddresses": ["192.168.0.1"],
    "interfaceType": "tap",
    "uid": "42",
    "gid": "43",
}


def test_arguments_of_a_call_say_what_the_configuration_says_too() -> None:
    args = {
        "BranchVlanID": "42",
        "BranchMACAddress": "02:00:00:00:00:01",
        "IPAddresses": "10.0.0.2/24,10.0.0.3/24",
        "GatewayIPAddresses": "10.0.0.1,10.0.0.9",
    }

    branch = read_branch(call(BRANCH)._replace(args=args))

    assert (branch.vlan_id, branch.mac) == (42, "02:00:00:00:00:01")
    assert [str(one) for one in branch.addresses] == ["10.0.0.2/24", "10.0.0.3/24"]
    assert [str(one) for one in branch.gateways] == ["10.0.0.1", "10.0.0.9"]
    assert (branch.kind, branch.uid, branch.gid) == ("tap", 42, 43)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        pytest.param(
            without(BRANCH, "trunkName"),
            "missing required parameter trunkName or trunkMACAddress",
            id="no trunk",
        ),
        pytest.param(
            without(BRANCH, "branchVlanID"), "missing required parameter branchVlanID", id="no VLAN"
        ),
        pytest.param({**BRANCH, "branchVlanID": "4095"}, "invalid branchVlanID 4095", id="VLAN"),
        pytest.param(without(BRANCH, "uid"), "missing required parameter uid", id="tap of nobody"),
        pytest.param(
            {**BRANCH, "interfaceType": "x"}, "invalid interfaceType x", id="kind of interface"
        ),
        pytest.param(
            {**BRANCH, "ipAddresses": ["192.168.1/16"]},
            "invalid ipAddresses: '192.168.1/16' is no IP address with a length",
            id="address",
        ),
    ],
)
def test_branch_that_cannot_be_is_refused(config: dict[str, Any], text: str) -> None:
    with pytest.raises(CniError) as refused:
        read_branch(call(config))

    assert refused.value.message == text
