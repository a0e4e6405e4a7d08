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
from fargate_agent.network.nft.attributes import (
    ACCEPT,
    DROP,
    read_attributes,
    read_list,
    read_text,
)
from fargate_agent.network.nft.connection import Nft
from fargate_agent.network.nft.objects import FORWARD, INET, INPUT

_FAMILIES: Final = {INET: "inet", 2: "ip", 10: "ip6"}
_PROGRAMS: Final = {"inet": "nft", "ip": "iptables", "ip6": "ip6tables"}
_TABLE, _NAME, _HOOK, _POLICY = 1, 3, 4, 5
_RULE_TABLE, _RULE_CHAIN, _EXPRESSIONS = 1, 2, 4
_HOOK_NUMBER: Final = 1
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_META_KEY, _CMP_OP, _CMP_DATA, _IMMEDIATE_DATA = 2, 2, 3, 2
_VALUE, _VERDICT, _CODE = 1, 2, 1
_EQUAL: Final = 0
_IIFNAME, _OIFNAME = 6, 7
"""Source: Linux, include/uapi/linux/netfilter/nf_tables.h, `NFTA_CHAIN_…`, `NFTA_RULE_…`,
`NFTA_EXPR_…`, `NFTA_META_…`, `NFTA_CMP_…`, `NFTA_IMMEDIATE_…`, `NFTA_DATA_…`, `NFT_META_…`."""

_WAYS: Final = {FORWARD: {_IIFNAME, _OIFNAME}, INPUT: {_IIFNAME}}
"""What has to be accepted at a hook."""


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
    """Return base chains with policy drop in tables that don't accept the agent's interfaces.

    Raises:
        NetlinkError: the kernel refused, or has no packet filter.
    """
    if os.geteuid() != 0:  # nobody else may ask
        return []
    with Nft() as nft:
        based = [
            (
                _Chain(
                    family, read_text(one[_TABLE]), read_text(one[_NAME]), _read_hook(one[_HOOK])
                ),
                _number(one.get(_POLICY)),
            )
            for family, one in nft.chains()
            if family in _FAMILIES and _HOOK in one
        ]
        dropping = [
            chain
            for chain, policy in based
            if policy == DROP and chain.hook in _WAYS and chain.table != own_table
        ]
        rules = nft.rules() if dropping else []
    bases = {(chain.family, chain.table, chain.name) for chain, _ in based}
    accepted = [
        ((family, read_text(one[_RULE_TABLE]), read_text(one[_RULE_CHAIN])), way)
        for family, one in rules
        if (way := _read_accepted(one.get(_EXPRESSIONS, b""), ends.encode())) is not None
    ]
    return [one for one in dropping if not _accepts(one, accepted, bases)]


def _accepts(
    chain: _Chain,
    accepted: list[tuple[tuple[int, str, str], int]],
    bases: set[tuple[int, str, str]],
) -> bool:
    """Whether a table accepts what a chain would drop, there or in chains that it may jump to."""
    own = chain[:3]
    ways = {
        way
        for where, way in accepted
        if where == own or (where[:2] == own[:2] and where not in bases)
    }
    return chain.hook is not None and _WAYS[chain.hook] <= ways


def _read_accepted(expressions: bytes, ends: bytes) -> int | None:
    """Return by which key a rule accepts all the agent's interfaces, if it does; else None."""
    ways: list[int] = []
    key: int | None = None
    is_accepted = False
    for expression in read_list(expressions):
        parts = read_attributes(expression)
        name = read_text(parts.get(_EXPRESSION_NAME, b""))
        data = read_attributes(parts.get(_EXPRESSION_DATA, b""))
        if name == "meta":
            key = _number(data.get(_META_KEY))
        elif name == "cmp" and key in {_IIFNAME, _OIFNAME}:
            begins = read_attributes(data.get(_CMP_DATA, b"")).get(_VALUE, b"")
            if _number(data.get(_CMP_OP)) != _EQUAL or not ends.startswith(begins or b"\0"):
                return None
            ways.append(key)
        elif name == "immediate":
            verdict = read_attributes(data.get(_IMMEDIATE_DATA, b"")).get(_VERDICT, b"")
            is_accepted = _number(read_attributes(verdict).get(_CODE)) == ACCEPT
    # One that asks for both lets tasks reach each other, and nothing else.
    return ways[0] if is_accepted and len(ways) == 1 else None


def _read_hook(attributes: bytes) -> int | None:
    return _number(read_attributes(attributes).get(_HOOK_NUMBER))


def _number(value: bytes | None) -> int | None:
    return None if value is None else int.from_bytes(value, "big")
