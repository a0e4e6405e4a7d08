"""A table of the packet filter in a container's namespace, which one plugin has for itself."""

import errno
import zlib
from collections.abc import Iterable, Sequence
from typing import Final

from fargate_agent.cniplugins.call import Call
from fargate_agent.cniplugins.errors import FAILED, NOT_AVAILABLE, CniError
from fargate_agent.cniplugins.sandboxes import list_named
from fargate_agent.network.blocking import NetlinkError
from fargate_agent.network.nft.attributes import read_text
from fargate_agent.network.nft.connection import Nft
from fargate_agent.network.nft.objects import INET, Table

PREROUTING_NAT, OUTPUT_NAT, MANGLE = -100, -100, -150
"""Priorities of chains. Source: nft(8)."""
MAX_PORT: Final = 65_535
_RULE_TABLE, _RULE_CHAIN = 1, 2


def put_table(netns: str, table: Table, messages: Iterable[bytes]) -> None:
    """Make a table anew in a namespace, in one transaction.

    Raises:
        NetlinkError: the kernel refused; what was there before still is.
    """
    with Nft(netns) as nft:
        whole = [table.make(), table.remove(), table.make(), *messages]
        nft.transact(f"make table {table.name}", whole)


def remove_table(netns: str, table: Table) -> None:
    """Remove a table; one that isn't there is fine.

    Raises:
        NetlinkError: the kernel refused.
    """
    with Nft(netns) as nft:
        try:
            nft.transact(f"remove table {table.name}", [table.remove()])
        except NetlinkError as error:
            if error.code != errno.ENOENT:
                raise


def check_table(netns: str, table: Table, rules: Sequence[tuple[str, int]]) -> None:
    """Return if chains have as many rules as they should have.

    Raises:
        CniError: one has not.
        NetlinkError: the kernel refused.
    """
    with Nft(netns) as nft:
        found: dict[str, int] = {}
        for family, attributes in nft.rules():
            if family == INET and read_text(attributes.get(_RULE_TABLE, b"")) == table.name:
                chain = read_text(attributes.get(_RULE_CHAIN, b""))
                found[chain] = found.get(chain, 0) + 1
    for chain, count in rules:
        if found.get(chain, 0) != count:
            text = (
                f"chain {chain} of table {table.name} has {found.get(chain, 0)} rules, not {count}"
            )
            raise CniError(text, FAILED)


def check_filter(_: Call) -> None:
    """Return if this machine has a packet filter.

    Raises:
        CniError: it has none.
    """
    try:
        with Nft() as nft:
            nft.tables()
    except NetlinkError as error:
        raise CniError(f"nftables can't be used: {error}", NOT_AVAILABLE) from error


def name_table(plugin: str, network: str, container_id: str, ifname: str) -> str:
    """Name the table of one attachment."""
    return f"{_prefix(plugin, network)}{_shorten(f'{container_id} {ifname}')}"


def remove_others(call: Call, plugin: str) -> list[str]:
    """Remove the tables of attachments that aren't there any more, where a namespace still is.

    Returns the namespaces that had one.

    Raises:
        CniError: the configuration doesn't say which attachments there are, or one stays.
    """
    kept = {name_table(plugin, call.network, *one) for one in call.attachments()}
    prefix = _prefix(plugin, call.network)
    removed, faults = [], []
    for netns in list_named():
        try:
            with Nft(netns) as nft:
                lost = [name for _, name in nft.tables() if name.startswith(prefix)]
            for name in set(lost) - kept:
                remove_table(netns, Table(name))
                removed.append(netns)
        except (NetlinkError, OSError) as error:
            faults.append(f"{netns}: {error}")
    if faults:
        raise CniError("; ".join(faults), FAILED)
    return removed


def _prefix(plugin: str, network: str) -> str:
    return f"{plugin}-{_shorten(network)}-"


def _shorten(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def check_port(port: int | str) -> int:
    """Return a port as a number. Source: amazon-vpc-cni-plugins, `validatePort`.

    Raises:
        CniError: it is none.
    """
    is_digits = isinstance(port, int) or (port.isascii() and port.isdigit())
    number = int(port) if is_digits else 0
    if not 1 <= number <= MAX_PORT:
        raise CniError(f"invalid port {f'[{port}]' if isinstance(port, str) else port} specified")
    return number
