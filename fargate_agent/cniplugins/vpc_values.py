"""Values in configurations of the VPC's plugins, read as their originals do.

Source: amazon-vpc-cni-plugins, network/vpc; Go, package net, `ParseMAC`, `ParseIP`, `ParseCIDR`.
"""

import ipaddress
from typing import Final

from fargate_agent.cniplugins.results import Address, AddressWithRange

MAX_ID: Final = 0xFFFF_FFFE
"""The greatest id of a user or a group; the next one means none. Source: chown(2)."""
MAX_PORT: Final = 0xFFFF
MAX_DIGITS: Final = 10
_MAC_BYTES: Final = 6


def parse_mac(text: str) -> str | None:
    """Return a MAC of six bytes as the kernel writes it; None if it is none.

    It is written with `:` or `-` between bytes, or with `.` between pairs of them.
    """
    mark = next((one for one in ":-." if one in text), ":")
    parts = text.split(mark)
    length = 4 if mark == "." else 2
    if not all(len(one) == length and one.isalnum() for one in parts):
        return None
    try:
        mac = bytes.fromhex("".join(parts))
    except ValueError:
        return None
    return mac.hex(":") if len(mac) == _MAC_BYTES else None


def parse_address(text: str) -> Address | None:
    """Return an IP address; None if it is none, or is of one interface only, as fe80::1%eth0."""
    try:
        return None if "%" in text else ipaddress.ip_address(text)
    except ValueError:
        return None


def parse_cidr(text: str) -> AddressWithRange | None:
    """Return an IP address with the length of its network; None if it is none.

    Other than `ipaddress`, this takes no netmask for a length.
    """
    address, _, length = text.partition("/")
    if "%" in address or not _is_number(length):
        return None
    try:
        return ipaddress.ip_interface(text)
    except ValueError:
        return None


def parse_number(text: str, greatest: int) -> int | None:
    """Return a number that is written in digits alone; None if it is none, or too great."""
    if not _is_number(text) or int(text) > greatest:
        return None
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS
