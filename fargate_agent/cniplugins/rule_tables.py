"""The table of the packet filter that one plugin has in the namespace of a container.

There is one at most, and its comment is the mark of the attachment that it belongs to. All of it
is made in one transaction, and removed in one.
"""

import errno
from collections.abc import Callable, Collection, Iterator
from typing import Final, NamedTuple

from fargate_agent.cniplugins.errors import NOT_AVAILABLE, CniError
from fargate_agent.cniplugins.sandboxes import Place, list_named, open_place
from fargate_agent.network.blocking import NetlinkError
from fargate_agent.network.nft.comparison import is_rule
from fargate_agent.network.nft.connection import Nft
from fargate_agent.network.nft.objects import INET, Table

NAT: Final = "nat"
FILTER: Final = "filter"
NAT_PRIORITY, MANGLE_PRIORITY = -100, -150
"""Source: Linux, include/uapi/linux/netfilter_ipv4.h, `NF_IP_PRI_NAT_DST`, `NF_IP_PRI_MANGLE`."""
MODULES: Final = "nft_fib_inet, nft_nat, nft_redir, nft_socket and nft_tproxy"
_GONE: Final = frozenset({errno.ENOENT})
_NO_MODULE: Final = frozenset({errno.ENOENT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT})
_TABLE, _CHAIN, _EXPRESSIONS = 1, 2, 4
"""Attributes of a rule. Source: Linux, include/uapi/linux/netfilter/nf_tables.h, `NFTA_RULE_…`."""


class Hook(NamedTuple):
    """Where a chain begins."""

    number: int
    priority: int
    kind: str


class Chain(NamedTuple):
    """A chain with its rules, each of which is a sum of expressions."""

    name: str
    hook: Hook | None
    """None: other chains go to it."""
    rules: tuple[bytes, ...]


def make_table(container: Place, name: str, mark: str, chains: Collection[Chain]) -> None:
    """Make the table of a plugin. Chains come before those that go to them.

    Raises:
        CniError: the container has one, or the kernel can't do what it is for.
        NetlinkError: the kernel refused.
    """
    table = Table(name)
    with Nft(container.path) as nft:
        owner = _find_owner(nft, name)
        if owner is not None:
            raise CniError(f"the container has rules of {name} already: {owner}")
        try:
            nft.transact(f"make rules of {name}", _render(table, mark, chains))
        except NetlinkError as error:
            if error.code in _NO_MODULE:
                raise CniError(f"{error}; the kernel has to have {MODULES}") from error
            raise


def remove_table(container: Place, name: str, mark: str) -> None:
    """Remove the table of an attachment; nothing is missing if there is none.

    Raises:
        NetlinkError: the kernel refused.
    """
    with Nft(container.path) as nft:
        if _find_owner(nft, name) == mark:
            _remove(nft, name)


def find_owner(container: Place, name: str) -> str | None:
    """Return the mark of the attachment whose table a container has; None if it has none.

    Raises:
        NetlinkError: the kernel refused.
    """
    with Nft(container.path) as nft:
        return _find_owner(nft, name)


def check_table(container: Place, name: str, mark: str, chains: Collection[Chain]) -> None:
    """See that a container has the table of an attachment, rule by rule.

    Raises:
        CniError: something is missing, or is another.
        NetlinkError: the kernel refused.
    """
    with Nft(container.path) as nft:
        if _find_owner(nft, name) != mark:
            raise CniError(f"the container has no rules of {name}")
        found: dict[str, list[bytes]] = {}
        for family, rule in nft.rules():
            if (family, _read_text(rule[_TABLE])) == (INET, name):
                rules = found.setdefault(_read_text(rule[_CHAIN]), [])
                rules.append(rule.get(_EXPRESSIONS, b""))
    for chain in chains:
        there = found.get(chain.name, [])
        if len(there) != len(chain.rules) or not all(map(is_rule, there, chain.rules)):
            raise CniError(f"chain {chain.name} of {name} has other rules in the container")


def remove_tables_but(
    name: str, prefix: str, kept: Collection[str], remove: Callable[[Place, str], None]
) -> list[str]:
    """Remove a plugin's tables whose marks begin like that, but those kept, wherever they are.

    `remove` does it, of a container and a mark. Returns what went wrong.

    Raises:
        OSError: the namespaces of the machine can't be listed.
    """
    faults = []
    for path in list_named():
        try:
            with open_place(path) as place:
                owner = find_owner(place, name)
                if owner is not None and owner.startswith(prefix) and owner not in kept:
                    remove(place, owner)
        except (NetlinkError, OSError) as error:
            faults.append(f"{path}: {error}")
    return faults


def require_packet_filter() -> None:
    """See that the kernel has a packet filter.

    Raises:
        CniError: it hasn't.
    """
    try:
        with Nft() as nft:
            nft.tables()
    except NetlinkError as error:
        raise CniError(f"the kernel has no nf_tables: {error}", NOT_AVAILABLE) from error


def _find_owner(nft: Nft, name: str) -> str | None:
    if (INET, name) not in nft.tables():
        return None
    return nft.comments().get((INET, name), "")


def _remove(nft: Nft, name: str) -> None:
    try:
        nft.transact(f"remove rules of {name}", [Table(name).remove()])
    except NetlinkError as error:
        if error.code not in _GONE:
            raise


def _render(table: Table, mark: str, chains: Collection[Chain]) -> Iterator[bytes]:
    yield table.claim(mark)
    for chain in chains:
        if chain.hook is None:
            yield table.chain(chain.name)
        else:
            number, priority, kind = chain.hook
            yield table.base_chain(chain.name, number, priority, kind=kind)
    for chain in chains:
        for rule in chain.rules:
            yield table.rule(chain.name, rule)


def _read_text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
