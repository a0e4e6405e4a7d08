"""The kinds of ENIs: in the settings of a subnet, in messages, in plans, and of the drivers."""

from enum import StrEnum
from typing import Final


class EniKind(StrEnum):
    """How an ENI comes into the network namespace of a task."""

    VETH = "veth"
    MACVLAN = "macvlan"
    NIC = "nic"
    VLAN = "vlan"
    CNI = "cni"


CNI_NETWORK_NAME: Final = r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$"
"""Networks of CNI plugins. Source: CNI SPEC.md 1.1.0, section 1; the length is ours."""
