"""Puts faults into the network namespace of a task, and takes them out again.

An impairment is two queues and a chain of rules, made in that order: packets are marked when there
is something that takes the marks. One that is there in part, as an agent leaves it that is killed,
is none; the next start or stop removes it.
"""

import errno
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.drivers.faults import (
    BlackHole,
    FaultInjector,
    Impairment,
    Latency,
    Loss,
    Network,
)
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.findings import Findings
from fargate_agent.network.blocking import NetlinkError, ask, open_netlink
from fargate_agent.network.faults.black_holes import render_hole
from fargate_agent.network.faults.flows import CHAIN, render_flows
from fargate_agent.network.faults.qdiscs import (
    IMPAIRED,
    NETEM,
    NETEM_HANDLE,
    PRIO,
    PRIO_HANDLE,
    ROOT,
    Qdisc,
    read_qdisc,
    render_classes,
    render_effect,
    render_no_classes,
    render_question,
)
from fargate_agent.network.netlink import get_index
from fargate_agent.network.nft.attributes import read_text
from fargate_agent.network.nft.connection import Nft
from fargate_agent.network.nft.objects import INET, Table
from fargate_agent.network.reasons import kernel_refusals
from fargate_agent.threads import in_thread

TABLE: Final = "fargate-faults"

NO_IMPAIRMENTS_EFFECT: Final = (
    "fault injection starts no network-latency and no network-packet-loss"
)
_MODULES: Final = {PRIO: "sch_prio", NETEM: "sch_netem"}
_CHAIN_TABLE, _CHAIN_NAME = 1, 3


class KernelFaults(FaultInjector):
    """Injects faults by the packet filter and the queues of the kernel."""

    def __init__(self, findings: Findings) -> None:
        """Touch nothing."""
        self._findings = findings

    async def swallow(self, netns: Path, hole: BlackHole, exempt: tuple[Network, ...]) -> None:
        with kernel_refusals(f"start black hole {hole.name}"):
            await in_thread(_swallow, netns, hole, exempt)

    async def fill(self, netns: Path, hole: BlackHole) -> None:
        with kernel_refusals(f"stop black hole {hole.name}"):
            await in_thread(_remove_chain, netns, hole.name)

    async def swallows(self, netns: Path, hole: BlackHole) -> bool:
        with kernel_refusals(f"look for black hole {hole.name}"):
            return hole.name in await in_thread(_read_chains, netns)

    async def impair(self, netns: Path, ifname: str, impairment: Impairment) -> None:
        with kernel_refusals(f"impair {ifname}"):
            missing = await in_thread(_impair, netns, ifname, impairment)
        if missing is not None:
            what = f"the kernel has no {missing}"
            self._findings.note(what, NO_IMPAIRMENTS_EFFECT)
            raise ResourceInitializationError(what)

    async def repair(self, netns: Path, ifname: str) -> None:
        with kernel_refusals(f"repair {ifname}"):
            await in_thread(_repair, netns, ifname)

    async def find_impairment(self, netns: Path, ifname: str) -> type[Latency | Loss] | None:
        with kernel_refusals(f"look at queues of {ifname}"):
            return await in_thread(_find_impairment, netns, ifname)


def _swallow(netns: Path, hole: BlackHole, exempt: tuple[Network, ...]) -> None:
    if hole.name in _read_chains(netns):
        return
    table = Table(TABLE)
    with Nft(netns) as nft:
        what = f"make chain {hole.name}"
        nft.transact(what, [table.make(), *render_hole(table, hole, exempt)])


def _read_chains(netns: Path) -> set[str]:
    """Return the names of the chains that are ours; a table without chains is none."""
    with Nft(netns) as nft:
        return {
            read_text(found[_CHAIN_NAME])
            for family, found in nft.chains()
            if family == INET and read_text(found[_CHAIN_TABLE]) == TABLE
        }


def _remove_chain(netns: Path, name: str) -> None:
    """Remove a chain if it is there, and the table with the last one."""
    chains = _read_chains(netns)
    if name not in chains:
        return
    table = Table(TABLE)
    others = chains - {name}
    messages = [table.flush(name), table.remove_chain(name)] if others else [table.remove()]
    with Nft(netns) as nft:
        nft.transact(f"remove chain {name}", messages)


def _impair(netns: Path, ifname: str, impairment: Impairment) -> str | None:
    """Return what the kernel lacks for it; None: it is done."""
    ifindex = get_index(ifname, netns)
    _repair(netns, ifname)
    table = Table(TABLE)
    try:
        with open_netlink(netns, socket.NETLINK_ROUTE) as link:
            for kind, message in (
                (PRIO, render_classes(ifindex)),
                (NETEM, render_effect(ifindex, impairment.effect)),
            ):
                try:
                    ask(link, f"make queue {kind}", message)
                except NetlinkError as error:
                    # Source: Linux, net/sched/sch_api.c, `qdisc_create`.
                    if error.code != errno.ENOENT:
                        raise
                    _repair(netns, ifname)
                    return _MODULES[kind]
        with Nft(netns) as nft:
            rules = render_flows(table, ifname, impairment, IMPAIRED)
            nft.transact("mark packets", [table.make(), *rules])
    except BaseException:
        with suppress(NetlinkError, OSError):  # what was first is told
            _repair(netns, ifname)
        raise
    return None


def _repair(netns: Path, ifname: str) -> None:
    """Remove what there is of an impairment; a queue of somebody else stays."""
    _remove_chain(netns, CHAIN)
    ifindex = get_index(ifname, netns)
    if not any(_is_root(one) for one in _read_qdiscs(netns, ifindex)):
        return
    with open_netlink(netns, socket.NETLINK_ROUTE) as link:
        ask(link, "remove queue", render_no_classes(ifindex))


def _find_impairment(netns: Path, ifname: str) -> type[Latency | Loss] | None:
    if CHAIN not in _read_chains(netns):
        return None
    qdiscs = _read_qdiscs(netns, get_index(ifname, netns))
    ours = (one for one in qdiscs if (one.handle, one.parent) == (NETEM_HANDLE, IMPAIRED))
    return next((one.effect for one in ours), None)


def _is_root(qdisc: Qdisc) -> bool:
    return (qdisc.kind, qdisc.handle, qdisc.parent) == (PRIO, PRIO_HANDLE, ROOT)


def _read_qdiscs(netns: Path, ifindex: int) -> list[Qdisc]:
    """Return the queues of an interface; the kernel tells of all interfaces."""
    with open_netlink(netns, socket.NETLINK_ROUTE) as link:
        found = [read_qdisc(answer) for answer in ask(link, "list queues", render_question())]
    return [one for one in found if one.ifindex == ifindex]
