"""The kinds of ENIs: in the settings of a subnet, in messages, in plans, and of the drivers."""

from enum import StrEnum


class EniKind(StrEnum):
    """How an ENI comes into the network namespace of a task."""

    VETH = "veth"
    MACVLAN = "macvlan"
    NIC = "nic"
    VLAN = "vlan"
