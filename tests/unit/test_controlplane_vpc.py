"""Which addresses a subnet has for tasks, and which settings of the VPC are refused."""

from dataclasses import fields, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.controlplane.errors import StartError
from fargate_agent.controlplane.settings import ControlPlaneSettings, read_settings
from fargate_agent.controlplane.state.networks import SubnetRow
from fargate_agent.controlplane.vpc import Subnet, plan_vpc
from fargate_agent.controlplane.vpc.network import plan_row
from fargate_agent.controlplane.vpc.seeding import fill_row
from fargate_agent.controlplane.vpc_settings import SubnetSettings
from fargate_agent.wire.eni_kinds import EniKind

FIRST, LAST = IPv4Address("10.0.0.4"), IPv4Address("10.0.0.14")
ALL = [str(IPv4Address(number)) for number in range(int(FIRST), int(LAST) + 1)]
IPV6 = IPv6Network("fd00:213::/64")


@pytest.fixture
def subnet() -> Subnet:
    return Subnet(
        id="subnet-a",
        cidr=IPv4Network("10.0.0.0/28"),
        gateway=IPv4Address("10.0.0.1"),
        availability_zone="us-east-1a",
    )


def test_first_four_addresses_and_the_last_are_never_given(subnet: Subnet) -> None:
    assert list(subnet.addresses(after=None)) == ALL
    assert subnet.address_count == len(ALL)


@pytest.mark.parametrize(
    ("after", "first"),
    [
        pytest.param(FIRST, FIRST + 1, id="the next one"),
        pytest.param(LAST, FIRST, id="round the end"),
        pytest.param(IPv4Address("10.9.0.9"), FIRST, id="anew in a subnet that was moved"),
    ],
)
def test_addresses_begin_behind_the_one_given_last(
    subnet: Subnet, after: IPv4Address, first: IPv4Address
) -> None:
    addresses = list(subnet.addresses(int(after)))

    assert addresses[0] == str(first)
    assert sorted(addresses) == sorted(ALL)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"gateway": FIRST}, id="IPv4"),
        pytest.param({"ipv6_cidr": IPV6, "gateway6": IPV6[4]}, id="IPv6"),
    ],
)
def test_gateway_in_the_middle_is_left_out(subnet: Subnet, changes: dict[str, Any]) -> None:
    changed = replace(subnet, **changes)

    assert list(changed.addresses(after=None)) == ALL[1:]
    assert changed.address_count == len(ALL) - 1


def test_ipv6_address_has_the_place_of_the_ipv4_one(subnet: Subnet) -> None:
    changed = replace(subnet, ipv6_cidr=IPV6)

    assert changed.ipv6_address(LAST) == IPv6Address("fd00:213::e")
    assert subnet.ipv6_address(LAST) is None


@pytest.mark.parametrize(
    ("settings", "gateway"),
    [
        pytest.param({}, IPv6Interface("fd00:213::1/64"), id="veth"),
        pytest.param({"kind": "macvlan", "parent": "eth0"}, None, id="macvlan"),
        pytest.param(
            {"kind": "macvlan", "parent": "eth0", "gateway6": "fd00:213::ff"},
            IPv6Interface("fd00:213::ff/64"),
            id="macvlan with a gateway",
        ),
    ],
)
def test_ipv6_gateway_follows_from_the_kind(
    settings: dict[str, str], gateway: IPv6Interface | None
) -> None:
    told = SubnetSettings.model_validate(
        {"id": "subnet-a", "cidr": "10.1.0.0/24", "ipv6_cidr": str(IPV6), **settings}
    )

    vpc = plan_vpc(ControlPlaneSettings(subnets=(told,)))

    assert vpc.subnets["subnet-a"].gateway6_interface == gateway


def test_default_subnet_has_the_first_range_of_an_ipv6_vpc() -> None:
    vpc = plan_vpc(ControlPlaneSettings(vpc_ipv6_cidr=IPv6Network("fd00:0:0:100::/56")))

    assert str(vpc.subnets["subnet-default"].ipv6_cidr) == "fd00:0:0:100::/64"


SUBNET = '[[subnets]]\nid = "subnet-b"\ncidr = "10.1.0.0/24"\n'
GROUP = '[[security_groups]]\nid = "sg-a"\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param('vpc_id = "mine"', ":1: vpc_id: ", id="VPC id"),
        pytest.param(
            'vpc_ipv6_cidr = "fd00::/80"', "fd00::/80 is smaller than a /64", id="small VPC"
        ),
        pytest.param(
            f'{SUBNET}ipv6_cidr = "fd00::/48"',
            ":1: subnets.0: subnet-b: ipv6_cidr fd00::/48 must be a /64",
            id="not a /64",
        ),
        pytest.param(
            f'{SUBNET}ipv6_cidr = "fe80::/64"', "fe80::/64 is not a range for hosts", id="link"
        ),
        pytest.param(
            f'{SUBNET}gateway6 = "fd00::1"', "gateway6 needs an ipv6_cidr", id="gateway alone"
        ),
        pytest.param(
            f'{SUBNET}ipv6_cidr = "fd00::/64"\ngateway6 = "fd01::1"',
            "gateway6 fd01::1 is not a host of fd00::/64",
            id="gateway outside",
        ),
        pytest.param(
            f'vpc_ipv6_cidr = "fd00::/56"\n{SUBNET}ipv6_cidr = "fd00::/64"',
            "subnets subnet-default (fd00::/64) and subnet-b (fd00::/64) overlap",
            id="overlap",
        ),
        pytest.param(GROUP + GROUP, "two security groups have the id sg-a", id="group twice"),
        pytest.param(
            f'{GROUP}name = "default"', "two security groups have the name default", id="name"
        ),
        pytest.param(
            f'{GROUP}ingress = [{{ protocol = "tcp", cidrs = ["10.0.0.0/8"] }}]',
            ":3: security_groups.0.ingress.0: tcp needs from_port and to_port",
            id="TCP without ports",
        ),
        pytest.param(
            f'{GROUP}ingress = [{{ protocol = "udp", from_port = 53, cidrs = ["10.0.0.0/8"] }}]',
            ".ingress.0: udp needs to_port",
            id="UDP without its last port",
        ),
        pytest.param(
            f'{GROUP}ingress = [{{ protocol = "tcp", to_port = 53, cidrs = ["10.0.0.0/8"] }}]',
            ".ingress.0: tcp needs from_port",
            id="TCP without its first port",
        ),
        pytest.param(
            f"{GROUP}ingress ="
            ' [{ protocol = "tcp", from_port = 81, to_port = 80, cidrs = ["10.0.0.0/8"] }]',
            ".ingress.0: from_port 81 must not be above to_port 80",
            id="ports backwards",
        ),
        pytest.param(
            f'{GROUP}egress = [{{ protocol = "-1", cidrs = ["::/0", "10.0.0.1/8"] }}]',
            ":3: security_groups.0.egress.0.cidrs.1: must be a range such as 10.0.0.0/8",
            id="a host where a range should be",
        ),
        pytest.param(
            f'{SUBNET}kind = "vlan"\ntrunk = "eth2"\nvlan_ids = "200-100"',
            "subnet-b: vlan_ids 200-100 runs backwards",
            id="VLANs backwards",
        ),
        pytest.param(
            f'{SUBNET}kind = "vlan"\ntrunk = "eth2"\nvlan_ids = "100-4095"',
            "subnet-b: vlan_ids 100-4095 is not within 1-4094",
            id="VLANs that can't be",
        ),
        pytest.param(
            f'{GROUP}ingress = [{{ protocol = "-1", from_port = 1, cidrs = ["10.0.0.0/8"] }}]',
            "protocol -1 means all ports",
            id="a port of everything",
        ),
        pytest.param(
            f'{GROUP}egress = [{{ protocol = "-1" }}]', "cidrs or groups must say", id="nobody"
        ),
        pytest.param(
            f'{GROUP}egress = [{{ protocol = "-1", groups = ["sg-b"] }}]',
            "sg-a: a rule names sg-b, which isn't there",
            id="unknown group",
        ),
    ],
)
def test_settings_are_refused_with_the_key(text: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "control-plane.toml"
    file.write_text(text)

    with pytest.raises(StartError) as error:
        read_settings(file)

    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_subnet_is_kept_whole() -> None:
    whole = Subnet(
        id="subnet-a",
        vpc_id="vpc-a",
        cidr=IPv4Network("10.0.0.0/28"),
        ipv6_cidr=IPV6,
        kind=EniKind.MACVLAN,
        parent="eth1",
        nics=("52:54:00:00:00:01",),
        vlan_ids=range(100, 200),
        gateway=IPv4Address("10.0.0.2"),
        gateway6=IPV6[2],
        mtu=1400,
        nat=False,
        dns=(IPv4Address("10.0.0.3"),),
        availability_zone="us-east-1b",
    )
    defaults = {each.name: each.default for each in fields(Subnet)}
    row = SubnetRow(id=whole.id)

    fill_row(row, whole)

    assert plan_row(row) == whole
    assert [name for name, value in defaults.items() if getattr(whole, name) == value] == []
