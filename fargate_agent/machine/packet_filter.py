"""Packet filters of other programs that keep from tasks what the agent's own lets through.

What one table accepts, another still drops: the hook asks each. So a table whose chain drops what
it doesn't know, as Docker's and ufw's do, has to know the interfaces of tasks. Source: nft(8),
"accept"; Docker documentation, "Packet filtering and firewalls".

Chains of `iptables-legacy` aren't in nftables, and aren't seen.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from fargate_agent.findings import Finding
from fargate_agent.network.blocking import NetlinkError
from fargate_agent.network.names import firewall_table_name, host_end_prefix, name_instance
from fargate_agent.network.nft.attributes import DROP, read_attributes, read_text
from fargate_agent.network.nft.connection import Nft
from fargate_agent.network.nft.objects import FORWARD, INET, INPUT

_FAMILIES: Final = {INET: "inet", 2: "ip", 10: "ip6"}
_PROGRAMS: Final = {"inet": "nft", "ip": "iptables", "ip6": "ip6tables"}
_TABLE, _NAME, _HOOK, _POLICY = 1, 3, 4, 5
_RULE_TABLE, _EXPRESSIONS = 1, 4
_HOOK_NUMBER: Final = 1
"""Source: Linux, include/uapi/linux/netfilter/nf_tables.h, `NFTA_CHAIN_…`, `NFTA_RULE_…`."""


class _Chain(NamedTuple):
    family: int
    table: str
    name: str
    hook: int | None


def find_filter_faults(state_dir: Path, host_ports: tuple[str, ...]) -> Iterator[Finding]:
    """Yield which tables drop what tasks send and receive; blocks."""
    instance = name_instance(state_dir)
    ends = host_end_prefix(instance)
    try:
        chains = _find_dropping(ends, firewall_table_name(instance))
    except (NetlinkError, OSError):  # `find_network_faults` says so
        return
    for chain in chains:
        family = _FAMILIES[chain.family]
        what = f"chain {chain.name} of table {family} {chain.table} drops what no rule accepts"
        if chain.hook == FORWARD:
            yield Finding(
                what=what,
                effect=f"tasks may reach no other network, nor each other: {_advise(chain, ends)}",
            )
        elif host_ports:
            yield Finding(
                what=what,
                effect=f"tasks may not reach host_ports {', '.join(host_ports)} of this machine:"
                f" accept there what comes from the interfaces {ends}*",
            )


def _advise(chain: _Chain, ends: str) -> str:
    family = _FAMILIES[chain.family]
    if family == "inet" or not chain.name.isupper():
        where = f"{family} {chain.table} {chain.name}"
        return (
            f'`nft insert rule {where} iifname "{ends}*" accept` and'
            f' `nft insert rule {where} oifname "{ends}*" accept` let them'
        )
    # Chains in capitals are those of iptables.
    rule = f"{_PROGRAMS[family]} -I {chain.name}"
    return f"`{rule} -i {ends}+ -j ACCEPT` and `{rule} -o {ends}+ -j ACCEPT` let them"


def _find_dropping(ends: str, own_table: str) -> list[_Chain]:
    """Return base chains with policy drop in tables that say nothing of the agent's interfaces.

    Raises:
        NetlinkError: the kernel refused, or has no packet filter.
    """
    if os.geteuid() != 0:  # nobody else may ask
        return []
    with Nft() as nft:
        found = [
            _Chain(family, read_text(one[_TABLE]), read_text(one[_NAME]), _read_hook(one[_HOOK]))
            for family, one in nft.chains()
            if family in _FAMILIES and _HOOK in one and _number(one.get(_POLICY)) == DROP
        ]
        if not found:
            return []
        known = {
            (family, read_text(one[_RULE_TABLE]))
            for family, one in nft.rules()
            if ends.encode() in one.get(_EXPRESSIONS, b"")
        }
    return [
        one
        for one in found
        if one.hook in {FORWARD, INPUT}
        and (one.family, one.table) not in known
        and one.table != own_table
    ]


def _read_hook(attributes: bytes) -> int | None:
    return _number(read_attributes(attributes).get(_HOOK_NUMBER))


def _number(value: bytes | None) -> int | None:
    return None if value is None else int.from_bytes(value, "big")
