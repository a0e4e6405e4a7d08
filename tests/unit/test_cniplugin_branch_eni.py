"""What vpc-branch-eni takes for its configuration, and the messages that make a VLAN."""

import struct
from ipaddress import ip_address, ip_interface
from typing import Any

import pytest

from fargate_agent.cniplugins.branch_config import BranchConfig, Trunk, read_branch
from fargate_agent.cniplugins.errors import INVALID_CONFIG, CniError
from fargate_agent.cniplugins.fields import Fields
from fargate_agent.cniplugins.vpc_branch_eni import name_branch
from fargate_agent.network.blocking import read_attributes
from fargate_agent.network.stacked_links import render_vlan

MAC, TRUNK_MAC = "01:23:45:67:89:ab", "42:42:42:42:42:42"
TAP = {"uid": "42", "gid": "43"}
BRANCH = {"branchVlanID": "100", "branchMACAddress": MAC}
ARGS = {"BranchVlanID": "10", "BranchMACAddress": "10:20:30:40:50:60"}
ONE = {"IPAddresses": "192.168.1.2/16"}


def test_all_fields() -> None:
    config = {
        "trunkName": "eth0",
        **BRANCH,
        "ipAddresses": ["10.11.12.13/16", "2001:db8::13/64"],
        "gatewayIPAddresses": ["10.11.0.1"],
        "blockInstanceMetadata": True,
        **TAP,
    }
    assert read_branch(Fields(config), {}) == BranchConfig(
        trunk=Trunk("eth0", ""),
        vlan_id=100,
        mac=MAC,
        addresses=(ip_interface("10.11.12.13/16"), ip_interface("2001:db8::13/64")),
        gateways=(ip_address("10.11.0.1"),),
        blocks_imds=True,
        kind="tap",
        uid=42,
        gid=43,
    )


@pytest.mark.parametrize(
    ("config", "args"),
    [
        ({"trunkMACAddress": TRUNK_MAC, **BRANCH, "ipAddresses": ["10.11.12.13/14"], **TAP}, {}),
        ({"trunkName": "eth1", **TAP}, {**ARGS, **ONE}),
        ({"trunkName": "eth1", **TAP}, {**ARGS, "IPAddresses": "10.0.0.1/8,10.0.0.2/8"}),
        ({"trunkName": "eth0", **BRANCH, "interfaceType": "vlan"}, {}),
        ({"trunkName": "eth0", **BRANCH, "interfaceType": "macvtap"}, {"K8S_POD_NAME": "x"}),
    ],
)
def test_what_the_original_takes(config: dict[str, Any], args: dict[str, str]) -> None:
    assert read_branch(Fields(config), args).vlan_id in {10, 100}


def test_arguments_count_more() -> None:
    config = {
        "trunkName": "eth0",
        **BRANCH,
        "ipAddresses": ["10.11.12.13/14"],
        "gatewayIPAddresses": ["10.8.0.1"],
        **TAP,
    }
    args = {
        "BranchVlanID": "42",
        "BranchMACAddress": "44:44:44:55:55:55",
        "IPAddresses": "192.168.1.2/16,2001:db8::2/64",
        "GatewayIPAddresses": "192.168.0.1,2001:db8::1",
    }
    told = read_branch(Fields(config), args)
    assert (told.vlan_id, told.mac) == (42, "44:44:44:55:55:55")
    assert told.addresses == (ip_interface("192.168.1.2/16"), ip_interface("2001:db8::2/64"))
    assert told.gateways == (ip_address("192.168.0.1"), ip_address("2001:db8::1"))


@pytest.mark.parametrize(
    ("change", "args", "message"),
    [
        ({"trunkName": None}, {}, "missing required parameter trunkName or trunkMACAddress"),
        ({"branchVlanID": None}, {}, "missing required parameter branchVlanID"),
        ({"branchMACAddress": None}, {}, "missing required parameter branchMACAddress"),
        ({"uid": None}, {}, "missing required parameter uid"),
        ({"gid": None}, {}, "missing required parameter gid"),
        ({"trunkMACAddress": "42"}, {}, "invalid trunkMACAddress 42"),
        ({"branchMACAddress": "42"}, {}, "invalid branchMACAddress 42"),
        ({"branchVlanID": "x"}, {}, "invalid branchVlanID x"),
        ({}, {"BranchVlanID": "4095"}, "invalid branchVlanID 4095"),
        ({}, {"IPAddresses": "192.168.1/16"}, "invalid ipAddress 192.168.1/16"),
        ({"gatewayIPAddresses": ["x"]}, {}, "invalid gatewayIPAddress x"),
        ({"uid": "root"}, {}, "invalid uid root"),
        ({"gid": "-1"}, {}, "invalid gid -1"),
        ({"interfaceType": "veth"}, {}, "invalid interfaceType veth"),
    ],
)
def test_what_is_wrong_is_told(change: dict[str, Any], args: dict[str, str], message: str) -> None:
    config = {"trunkName": "eth0", **BRANCH, **TAP, **change}
    with pytest.raises(CniError) as caught:
        read_branch(Fields(config), args)
    assert (caught.value.code, caught.value.message) == (INVALID_CONFIG, message)


def test_names_of_branches() -> None:
    assert name_branch("eth1", 4094) == "eth1.4094"
    assert name_branch("enp0s31f6x", 4094) == "enp0s31f6x.4094"
    assert name_branch("enp0s31f6xy", 4094) == "vlan4094"


def test_a_vlan_is_made_as_the_kernel_wants_it() -> None:
    """Numbers: Linux, include/uapi/linux/if_link.h."""
    message = render_vlan("draft", 7, 100, 9, MAC)

    length, kind = struct.unpack_from("=IH", message)
    attributes = read_attributes(message[32:])
    info = read_attributes(attributes[18])
    assert (length, kind) == (len(message), 16)
    assert attributes[3] == b"draft\0"
    assert attributes[5] == struct.pack("=I", 7)
    assert attributes[28] == struct.pack("=I", 9)
    assert attributes[1].hex(":") == MAC
    assert info[1] == b"vlan\0"
    assert read_attributes(info[2]) == {1: struct.pack("=H", 100)}
    assert 1 not in read_attributes(render_vlan("draft", 7, 100, 9, "")[32:])
