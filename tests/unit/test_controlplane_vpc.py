"""Which addresses a subnet hands out."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from fargate_agent.controlplane.vpc import Subnet

FIRST, LAST = IPv4Address("10.0.0.4"), IPv4Address("10.0.0.14")


@pytest.fixture
def subnet() -> Subnet:
    return Subnet(
        id="subnet-a",
        cidr=IPv4Network("10.0.0.0/28"),
        kind="veth",
        parent=None,
        gateway=IPv4Address("10.0.0.1"),
        mtu=1500,
        dns=(),
        availability_zone="us-east-1a",
    )


def test_first_four_addresses_and_the_last_are_never_given(subnet: Subnet) -> None:
    given: list[IPv4Address] = []

    while (address := subnet.next_address(given[-1] if given else None, set(given))) is not None:
        given.append(IPv4Address(address))

    assert given == [IPv4Address(number) for number in range(int(FIRST), int(LAST) + 1)]


def test_address_that_was_given_back_rests_until_the_others_were_used(subnet: Subnet) -> None:
    assert subnet.next_address(after=FIRST, taken=set()) == str(FIRST + 1)


def test_addresses_go_round_the_end(subnet: Subnet) -> None:
    assert subnet.next_address(after=LAST, taken=set()) == str(FIRST)


def test_gateway_in_the_middle_is_left_out(subnet: Subnet) -> None:
    changed = Subnet(
        id=subnet.id,
        cidr=subnet.cidr,
        kind="veth",
        parent=None,
        gateway=FIRST,
        mtu=1500,
        dns=(),
        availability_zone="us-east-1a",
    )

    assert changed.next_address(after=None, taken=set()) == str(FIRST + 1)


def test_address_behind_a_subnet_that_was_moved_starts_anew(subnet: Subnet) -> None:
    assert subnet.next_address(after=IPv4Address("10.9.0.9"), taken=set()) == str(FIRST)
