"""What vpc-eni takes for its configuration, and values as all plugins of the VPC read them."""

from ipaddress import ip_address, ip_interface
from typing import Any

import pytest

from fargate_agent.cniplugins.enis import EniConfig
from fargate_agent.cniplugins.errors import INVALID_CONFIG, UNSUPPORTED_FIELD, CniError
from fargate_agent.cniplugins.fields import Fields
from fargate_agent.cniplugins.vpc_eni import read_vpc_eni
from fargate_agent.cniplugins.vpc_values import parse_address, parse_cidr, parse_mac, parse_number

NAMED = {"eniName": "eth1", "eniIPAddresses": ["10.0.1.5/24"]}


def test_all_fields() -> None:
    config = {
        "ENIName": "eth1",
        "eniMACAddress": "0A-1B-2c-3d-4e-5f",
        "eniIPAddresses": ["10.0.1.5/24", "2001:db8::5/64"],
        "gatewayIPAddresses": ["10.0.1.1", "2001:db8::1"],
        "blockInstanceMetadata": True,
        "opStateDown": True,
    }
    assert read_vpc_eni(Fields(config)) == EniConfig(
        mac="0a:1b:2c:3d:4e:5f",
        addresses=(ip_interface("10.0.1.5/24"), ip_interface("2001:db8::5/64")),
        gateways=(ip_address("10.0.1.1"), ip_address("2001:db8::1")),
        blocks_imds=True,
        stays_down=True,
        mtu=0,
        device="eth1",
    )
    assert read_vpc_eni(Fields(NAMED)).mac == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eniName": None}, "missing required parameter ENIName or ENIMACAddress"),
        ({"eniIPAddresses": []}, "missing required parameter ENIIPAddresses"),
        ({"eniMACAddress": "01:23"}, "invalid ENIMACAddress 01:23"),
        ({"eniIPAddresses": ["10.0.1.5"]}, "invalid ENIIPAddress 10.0.1.5"),
        ({"gatewayIPAddresses": ["10.0.1.1/24"]}, "invalid GatewayIPAddress 10.0.1.1/24"),
    ],
)
def test_what_is_wrong_is_told(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CniError) as caught:
        read_vpc_eni(Fields({**NAMED, **change}))
    assert (caught.value.code, caught.value.message) == (INVALID_CONFIG, message)


def test_networks_of_windows_are_refused() -> None:
    with pytest.raises(CniError, match="unsupported field: useExistingNetwork") as caught:
        read_vpc_eni(Fields({**NAMED, "useExistingNetwork": True}))
    assert caught.value.code == UNSUPPORTED_FIELD


@pytest.mark.parametrize("text", ["0a:1b:2c:3d:4e:5f", "0A-1B-2C-3D-4E-5F", "0a1b.2c3d.4e5f"])
def test_macs(text: str) -> None:
    assert parse_mac(text) == "0a:1b:2c:3d:4e:5f"


@pytest.mark.parametrize(
    "text",
    ["", "0a1b2c3d4e5f", "0a:1b:2c:3d:4e", "0a:1b:2c:3d:4e:5g", "0a:1b-2c:3d-4e:5f", "a:1:2:3:4:5"],
)
def test_no_macs(text: str) -> None:
    assert parse_mac(text) is None


def test_numbers_and_addresses() -> None:
    assert [parse_number(one, 99) for one in ("0", "99", "007")] == [0, 99, 7]
    refused = ("", "100", "-1", "+1", " 1", "1.0", "٣", "9" * 5000)
    assert [parse_number(one, 99) for one in refused] == [None] * 8
    assert parse_address("10.0.0.1/8") is None
    assert parse_address("fe80::1%eth0") is None
    assert parse_cidr("fe80::1%eth0/64") is None
    assert parse_cidr("10.0.0.1/8") == ip_interface("10.0.0.1/8")
    for text in ("10.0.0.1", "10.0.0.1/", "10.0.0.1/33", "10.0.0.1/255.0.0.0", "10.0.0/8"):
        assert parse_cidr(text) is None
