"""What ecs-serviceconnect takes for its configuration, and the rules that it makes of it."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from fargate_agent.cniplugins.ecs_serviceconnect import render_chains
from fargate_agent.cniplugins.errors import INVALID_CONFIG, CniError
from fargate_agent.cniplugins.fields import Fields
from fargate_agent.cniplugins.service_connect_config import (
    Egress,
    Listener,
    ServiceConnectConfig,
    read_service_connect,
)

V4, V6 = {"ipv4Cidr": "127.255.0.0/16"}, {"ipv6Cidr": "2002::1234:abcd:ffff:c0a8:101/64"}
IPV6 = "2001:0db8:85a3:0000:0000:8a2e:0370:7334"
LISTENERS = [
    {"listenerName": "abc", "listenerPort": 30000, "interceptPort": 8080},
    {"listenerName": "bcd", "listenerPort": 30001, "interceptPort": 8090},
]
EGRESS = {"listenerName": "out", "listenerPort": 30002, "redirectMode": "nat", "vip": V4}
REDIRECT = {"redirectIP": {"ipv4": "10.1.1.1"}, "redirectMode": "tproxy", "vip": V4}
BOTH = {"enableIPV4": True, "enableIPV6": True}
RANGES = ip_network("127.255.0.0/16"), ip_network("2002:0:0:1234::/64")


def read(ingress: Any = None, egress: Any = None, **more: Any) -> ServiceConnectConfig:
    config = {"ingressConfig": ingress, "egressConfig": egress, "enableIPV4": True, **more}
    return read_service_connect(Fields(config))


@pytest.mark.parametrize(
    ("ingress", "listeners"),
    [
        ([], ()),
        (LISTENERS, (Listener(8080, 30000), Listener(8090, 30001))),
        ([LISTENERS[0], {"listenerPort": 30001}], (Listener(8080, 30000),)),
        ([{"listenerPort": 30000, "interceptPort": 0}], ()),
    ],
)
def test_what_comes_in(ingress: list[dict[str, Any]], listeners: tuple[Listener, ...]) -> None:
    told = read(ingress, EGRESS)
    assert told == ServiceConnectConfig(
        listeners, Egress(30002, (), "nat", (ip_network("127.255.0.0/16"),)), (4,)
    )


@pytest.mark.parametrize(
    ("egress", "read_as"),
    [
        (None, None),
        ({**EGRESS, "vip": {**V4, **V6}}, Egress(30002, (), "nat", RANGES)),
        (
            {**EGRESS, "redirectMode": "tproxy", "vip": {**V4, **V6}},
            Egress(30002, (), "tproxy", RANGES),
        ),
        (
            {
                "redirectIP": {"ipv4": "10.1.1.1", "ipv6": IPV6},
                "redirectMode": "tproxy",
                "vip": {**V4, **V6},
            },
            Egress(0, (ip_address("10.1.1.1"), ip_address(IPV6)), "tproxy", RANGES),
        ),
    ],
)
def test_what_goes_out(egress: dict[str, Any] | None, read_as: Egress | None) -> None:
    told = read(LISTENERS, egress, enableIPv6=True)
    assert (told.egress, told.versions) == (read_as, (4, 6))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"egress": {**EGRESS, "vip": {"ipv4Cidr": "abc"}}}, "EgressConfig IPv4 CIDR Address"),
        (
            {"egress": {**EGRESS, "vip": {"ipv4Cidr": V6["ipv6Cidr"]}}},
            "EgressConfig IPv4 CIDR Address",
        ),
        (
            {"egress": {**EGRESS, "vip": {**V4, "ipv6Cidr": "abc"}}},
            "EgressConfig IPv6 CIDR Address",
        ),
        (
            {"egress": {**EGRESS, "vip": {**V4, "ipv6Cidr": "10.0.0.0/8"}}, **BOTH},
            "EgressConfig IPv6 CIDR Address",
        ),
        ({"egress": {**REDIRECT, "redirectIP": {"ipv4": "10.1.1"}}}, "EgressConfig RedirectIP"),
        ({"egress": {**EGRESS, "redirectMode": None}}, "Egress RedirectMode"),
        ({"egress": {**EGRESS, "redirectMode": "ipvs"}}, "Egress RedirectMode"),
        (
            {"ingress": [*LISTENERS, {"listenerPort": 1, "interceptPort": 8080}]},
            "IngressConfig has two listeners for port 8080",
        ),
    ],
)
def test_parameters_that_are_wrong(config: dict[str, Any], message: str) -> None:
    with pytest.raises(CniError) as caught:
        read(**config)
    assert (caught.value.code, caught.value.message) == (
        INVALID_CONFIG,
        f"invalid parameter: {message}",
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"egress": {**EGRESS, "listenerPort": -1}}, "invalid port -1 specified"),
        (
            {"ingress": [{"listenerPort": 30000, "interceptPort": -1}]},
            "invalid port -1 specified",
        ),
        ({"ingress": [{"listenerPort": 80000}]}, "invalid port 80000 specified"),
        ({"ingress": [{"interceptPort": 8080}]}, "invalid port 0 specified"),
        (
            {"egress": {**REDIRECT, "redirectIP": {"ipv6": IPV6}}},
            "missing required parameter: EgressConfig Redirect IP",
        ),
        (
            {"egress": {**REDIRECT, "redirectMode": "nat"}},
            "missing required parameter: Egress ListenerPort",
        ),
        (
            {"ingress": LISTENERS, "egress": {}},
            "exactly one of ListenerPort and RedirectIP must be specified in Egress",
        ),
        (
            {"egress": {**EGRESS, "listenerPort": None}},
            "exactly one of ListenerPort and RedirectIP must be specified in Egress",
        ),
        (
            {"egress": {**EGRESS, **REDIRECT}},
            "exactly one of ListenerPort and RedirectIP must be specified in Egress",
        ),
        (
            {"egress": {**EGRESS, "vip": {}}},
            "missing required parameter: EgressConfig VIP CIDR",
        ),
        (
            {"egress": EGRESS, **BOTH},
            "missing required parameter: EgressConfig VIP CIDR",
        ),
        ({"egress": {**EGRESS, "vip": None}}, "missing required parameter: EgressConfig VIP"),
        ({}, "either IngressConfig or EgressConfig must be present"),
        ({"ingress": []}, "either IngressConfig or EgressConfig must be present"),
        ({"ingress": LISTENERS, "enableIPV4": False}, "both V4 and V6 cannot be disabled"),
    ],
)
def test_what_is_wrong_is_told(config: dict[str, Any], message: str) -> None:
    with pytest.raises(CniError) as caught:
        read(**config)
    assert (caught.value.code, caught.value.message) == (INVALID_CONFIG, message)


@pytest.mark.parametrize(
    ("ingress", "egress", "chains"),
    [
        (LISTENERS, None, {"ECS_SERVICE_CONNECT_INGRESS": 2, "PREROUTING": 1}),
        ([{"listenerPort": 30000}], None, {}),
        (None, EGRESS, {"OUTPUT": 1}),
        (None, REDIRECT, {}),
        (
            None,
            {**EGRESS, "redirectMode": "tproxy"},
            {"ECS_SERVICE_CONNECT_DIVERT": 1, "PREROUTING_MANGLE": 3},
        ),
    ],
)
def test_chains(ingress: Any, egress: Any, chains: dict[str, int]) -> None:
    assert {one.name: len(one.rules) for one in render_chains(read(ingress, egress))} == chains
