"""Names of the DNS, and the values of records: whether they can be. Pure.

Source: RFC 1035, section 2.3.4, "Size limits"; RFC 2782 for names with an underscore.
"""

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from fargate_agent.controlplane.cloudmap.refusals import invalid_input

MAX_NAME_CHARS: Final = 253
"""Of 255 bytes on the wire, one is the length of the first label and one the root."""
MAX_LABEL_CHARS: Final = 63
TASK_ID_CHARS: Final = 32
MAX_PORT: Final = 65535

_LABEL: Final = re.compile(rf"[A-Za-z0-9_]([A-Za-z0-9_-]{{0,{MAX_LABEL_CHARS - 2}}}[A-Za-z0-9_])?")


def check_domain(name: str, what: str) -> None:
    """Return if something can be a name of the DNS.

    Raises:
        ApiError: it can't; `what` says what it is.
    """
    if len(name) > MAX_NAME_CHARS:
        raise invalid_input(f"{what} is longer than {MAX_NAME_CHARS} characters: {name[:64]}…")
    for label in name.split("."):
        if _LABEL.fullmatch(label) is None:
            raise invalid_input(
                f"{what} '{name[:128]}' is no name of the DNS: '{label[:64]}' must have 1 to"
                f" {MAX_LABEL_CHARS} letters, digits, '-' and '_', and no '-' at an end."
            )


def check_ipv4(text: str, what: str) -> None:
    """Return if something is an IPv4 address.

    Raises:
        ApiError: it isn't.
    """
    try:
        IPv4Address(text)
    except ValueError:
        raise invalid_input(f"{what} must be an IPv4 address, not '{text[:64]}'.") from None


def check_ipv6(text: str, what: str) -> None:
    """Return if something is an IPv6 address that means the same on every machine.

    Raises:
        ApiError: it isn't, or has a scope.
    """
    try:
        address = IPv6Address(text)
    except ValueError:
        raise invalid_input(f"{what} must be an IPv6 address, not '{text[:64]}'.") from None
    if address.scope_id is not None:
        raise invalid_input(f"{what} must be an IPv6 address without a scope: '{text[:64]}'.")


def check_port(text: str, what: str) -> None:
    """Return if something is a port.

    Raises:
        ApiError: it isn't.
    """
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_PORT))
    if not is_number or int(text) > MAX_PORT:
        raise invalid_input(f"{what} must be a port from 0 to {MAX_PORT}, not '{text[:64]}'.")
