"""Which addresses ecs-ipam takes, and which it gives next."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from fargate_agent.cniplugins.errors import CniError
from fargate_agent.cniplugins.fields import Fields
from fargate_agent.cniplugins.ipam_config import (
    DEFAULT_PATH,
    DEFAULT_TIMEOUT_S,
    read_ipam,
    read_store_path,
    read_timeout_s,
)
from fargate_agent.cniplugins.ipam_store import Holder, Store

HOLDER = Holder("id", "net", "one", "eth0")
V4 = {"ipv4-subnet": "10.0.0.0/24"}
V6 = {"ipv6-subnet": "2001:db8::/64"}


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({}, "loadIPAMConfig config: subnet is required"),
        ({"ipv4-subnet": "10.0.0.0/31"}, "loadIPAMConfig config: no available ip in the subnet"),
        ({"ipv6-subnet": "fd00::/127"}, "loadIPAMConfig config: no available ip in the subnet"),
        ({"ipv4-subnet": "fd00::/64"}, "invalid ipv4-subnet: fd00::/64"),
        ({"ipv4-subnet": "10.0.0/24"}, "invalid ipv4-subnet: '10.0.0/24'"),
        (
            V4 | {"ipv4-address": "10.0.1.5/24"},
            "verifyIPSubnet config: ip 10.0.1.5 is not within the subnet 10.0.0.0/24",
        ),
        (V4 | {"ipv4-address": "10.0.0.0/24"}, "ip specified is reserved by default: 10.0.0.0"),
        (V4 | {"ipv4-address": "10.0.0.255/24"}, "ip specified is reserved by default"),
        (V4 | {"ipv4-gateway": "10.0.0.255"}, "gateway specified is reserved by default"),
        (V6 | {"ipv6-gateway": "2001:db8::"}, "gateway specified is reserved by default"),
        (V4 | {"ipv4-address": "10.0.0.1/24"}, "ip specified is that of the gateway: 10.0.0.1"),
        (V4 | {"ipv4-routes": [{"dst": "::/0"}]}, "invalid ipv4-routes: ::/0"),
        (V4 | {"ipv6-address": "fd00::5/64"}, "ipam.ipv6-address needs ipam.ipv6-subnet"),
    ],
)
def test_what_is_wrong_is_told(told: dict[str, Any], message: str) -> None:
    with pytest.raises(CniError) as caught:
        read_ipam(Fields({"ipam": told}))

    assert caught.value.message.startswith(message)


def test_without_an_ipam_there_is_nothing_to_do() -> None:
    with pytest.raises(CniError, match="'IPAM' field missing in configuration"):
        read_ipam(Fields({}))


def test_the_last_address_of_ipv6_is_as_good_as_others() -> None:
    last = V6 | {"ipv6-address": "2001:db8::ffff:ffff:ffff:ffff/64"}

    (family,) = read_ipam(Fields({"ipam": last})).families

    assert family.gateway == ip_address("2001:db8::1")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", DEFAULT_TIMEOUT_S), ("60s", 60), ("1m30s", 90), ("1.5s", 1.5), ("250ms", 0.25)],
)
def test_durations_are_written_as_go_does_it(
    text: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPAM_DB_CONNECTION_TIMEOUT", text)

    assert read_timeout_s() == seconds


@pytest.mark.parametrize("text", ["5", "s", "5 s", "-5s", "5sx"])
def test_what_is_no_duration_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPAM_DB_CONNECTION_TIMEOUT", text)

    with pytest.raises(CniError, match="parsing timeout string failed"):
        read_timeout_s()


def test_where_addresses_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IPAM_DB_PATH", raising=False)
    assert read_store_path() == DEFAULT_PATH
    monkeypatch.setenv("IPAM_DB_PATH", " /data/x.db ")
    assert read_store_path() == "/data/x.db"


@pytest.mark.parametrize(
    ("subnet", "last", "taken", "given"),
    [
        ("52.0.0.0/29", None, [], "52.0.0.1"),
        ("52.0.0.0/29", "52.0.0.3", [], "52.0.0.4"),
        ("52.0.0.0/29", "52.0.0.6", [], "52.0.0.1"),
        ("52.0.0.0/29", "52.0.0.3", ["52.0.0.4", "52.0.0.5", "52.0.0.6"], "52.0.0.1"),
        ("52.0.0.0/30", None, ["52.0.0.1", "52.0.0.2"], None),
        ("2001:db8::/64", None, [], "2001:db8::1"),
        ("2001:db8::/64", "2001:db8::ffff:ffff:ffff:ffff", ["2001:db8::1"], "2001:db8::2"),
        ("2001:db8::/64", "2001:db8::ffff", [], "2001:db8::1:0"),
        ("fd00::/126", "fd00::2", ["fd00::1", "fd00::2"], "fd00::3"),
        ("fd00::/126", None, ["fd00::1", "fd00::2", "fd00::3"], None),
    ],
)
def test_the_next_address_is_the_first_free_one_after_the_last(
    subnet: str, last: str | None, taken: list[str], given: str | None
) -> None:
    store = Store({"holders": dict.fromkeys(taken, HOLDER), "last": {subnet: last} if last else {}})

    found = store.find_free(ip_network(subnet))

    assert (None if found is None else str(found)) == given


def test_what_was_freed_is_next_after_a_whole_round() -> None:
    subnet = ip_network("10.0.0.0/29")
    store = Store({})
    store.keep_gateway(subnet, subnet[1])
    for at in (2, 3):
        store.give(subnet, subnet[at], HOLDER)
    store.free("10.0.0.2")

    assert store.find_free(subnet) == subnet[4]
    assert not store.is_free(subnet, subnet[1])
    assert store.is_free(subnet, subnet[2])


def test_a_gateway_is_never_given_to_a_network_with_another_one() -> None:
    subnet = ip_network("10.0.0.0/29")
    store = Store({})
    for gateway in (subnet[1], subnet[2]):
        store.keep_gateway(subnet, gateway)

    assert store.find_free(subnet) == subnet[3]
