"""Values in configurations of the VPC's plugins, read as their originals do.

Source: amazon-vpc-cni-plugins, network/vpc; Go, package net, `ParseMAC`, `ParseIP`, `ParseCIDR`.
"""

import ipaddress
import re
from typing import Final

from fargate_agent.cniplugins.results import Address, AddressWithRange

MAX_ID: Final = 0xFFFF_FFFE
"""The greatest id of a user or a group; the next one means none. Source: chown(2)."""
MAX_PORT: Final = 0xFFFF
_MAC: Final = re.compile(r"[0-9a-f]{2}([:-])[0-9a-f]{2}(\1[0-9a-f]{2}){4}")
_MAC_WITH_DOTS: Final = re.compile(r"[0-9a-f]{4}(\.[0-9a-f]{4}){2}")
_DIGITS: Final = re.compile(r"[0-9]{1,10}")


def parse_mac(text: str) -> str | None:
    """Return a MAC of six bytes as the kernel writes it; None if it is none."""
    mac = text.lower()
    if not _MAC.fullmatch(mac) and not _MAC_WITH_DOTS.fullmatch(mac):
        return None
    return bytes.fromhex(re.sub("[:.-]", "", mac)).hex(":")


def parse_address(text: str) -> Address | None:
    """Return an IP address; None if it is none."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def parse_cidr(text: str) -> AddressWithRange | None:
    """Return an IP address with the length of its network; None if it is none.

    Other than `ipaddress`, this takes no netmask for a length.
    """
    _, _, length = text.partition("/")
    if not _DIGITS.fullmatch(length):
        return None
    try:
        return ipaddress.ip_interface(text)
    except ValueError:
        return None


def parse_number(text: str, greatest: int) -> int | None:
    """Return a number that is written in digits alone; None if it is none, or too great."""
    if not _DIGITS.fullmatch(text) or int(text) > greatest:
        return None
    return int(text)
