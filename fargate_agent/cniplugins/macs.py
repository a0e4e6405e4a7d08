"""MAC addresses of configurations."""

from typing import Final

from fargate_agent.cniplugins.errors import INVALID_CONFIG, CniError

_OCTETS: Final = 6


def parse_mac(text: str) -> str | None:
    """Return a MAC as the kernel writes it; None if it is none."""
    octets = text.lower().replace("-", ":").split(":")
    if len(octets) != _OCTETS or not all(len(one) == 2 and one.isalnum() for one in octets):
        return None
    try:
        return bytes.fromhex("".join(octets)).hex(":")
    except ValueError:
        return None


def read_mac(text: str, what: str) -> str:
    """Return a MAC as the kernel writes it; `what` it is, for the message.

    Raises:
        CniError: it is none.
    """
    mac = parse_mac(text)
    if mac is None:
        raise CniError(f"invalid {what}: {text!r} is no MAC address", INVALID_CONFIG)
    return mac
