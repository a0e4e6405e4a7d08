"""Counts what went through ENIs: by flows that the kernel tracks, and packets that it refused."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from typing import Final

from fargate_agent.network.flowlogs.packets import read_packet
from fargate_agent.network.flowlogs.records import ACCEPT, REJECT, Flow, Window
from fargate_agent.network.flowlogs.refused import Refused
from fargate_agent.network.flowlogs.tracked import Side, Tracked, show
from fargate_agent.plan import EniPlan
from fargate_agent.wire.eni_kinds import EniKind

log = logging.getLogger(__name__)

Counters = tuple[int, int, int, int]
"""Packets and bytes of both directions."""
_NONE: Final[Counters] = (0, 0, 0, 0)


class Collector:
    """What is counted until it is taken, and what is known of flows that go on."""

    def __init__(
        self, list_enis: Callable[[], Iterable[EniPlan]], now: Callable[[], float] = time.time
    ) -> None:
        """`list_enis` returns those of all tasks that aren't gone."""
        self._list_enis = list_enis
        self._now = now
        self._enis: dict[bytes, tuple[str, str]] = {}
        """Id and account by address."""
        self._seen: dict[tuple[bytes, Side], Counters] = {}
        """What flows had carried when they were looked at last."""
        self._window = Window(int(now()))

    @property
    def addresses(self) -> Mapping[bytes, object]:
        """Those of ENIs that are there, or were when the interval began."""
        return self._enis

    @property
    def start_s(self) -> int:
        """When the interval began, in seconds since 1970."""
        return self._window.start_s

    def refresh(self) -> None:
        """Look which ENIs there are."""
        for eni in self._list_enis():
            if eni.kind is not EniKind.VETH:
                continue
            account = (eni.attachment_arn.split(":") + [""] * 5)[4]
            for interface in (eni.address, eni.ipv6_address):
                if interface is not None:
                    self._enis[interface.ip.packed] = eni.id, account

    def begin(self, flows: Iterable[Tracked]) -> None:
        """Take what flows have carried before the first interval as counted."""
        for flow in flows:
            self._seen[flow.id, flow.original] = (*flow.sent, *flow.answered)

    def note_flows(self, flows: Iterable[Tracked]) -> None:
        """Count what all flows have carried since they were looked at; others have ended."""
        before, self._seen = self._seen, {}
        for flow in flows:
            key = flow.id, flow.original
            self._seen[key] = (*flow.sent, *flow.answered)
            self._count(flow, before.pop(key, _NONE))
        # Those whose end was not heard of yet.
        self._seen |= before

    def note_end(self, flow: Tracked) -> None:
        """Count what was left of a flow that has ended."""
        self._count(flow, self._seen.pop((flow.id, flow.original), _NONE))

    def forget_ended(self, flows: Iterable[Tracked]) -> None:
        """Know only of these: ends of others were lost."""
        alive = {(flow.id, flow.original) for flow in flows}
        self._seen = {key: value for key, value in self._seen.items() if key in alive}
        self.skip()

    def note_refused(self, refused: Refused) -> None:
        """Count a packet that was refused to its sender or its receiver."""
        read = read_packet(refused.packet)
        if read is None:
            return
        flow, size_bytes = read
        source, destination = (_pack(one) for one in (flow.source, flow.destination))
        now = int(self._now())
        if not refused.is_ingress:
            self._count_one(source, REJECT, flow, size_bytes, now)
            return
        self._count_one(source, ACCEPT, flow, size_bytes, now)
        self._count_one(destination, REJECT, flow, size_bytes, now)

    def skip(self) -> None:
        """Say that something was lost, of whichever ENI."""
        self._touch()
        self._window.skip()

    def take(self) -> dict[str, list[str]]:
        """End the interval; return the lines of each ENI, and count for the next one."""
        self._touch()
        end_s = int(self._now())
        lines = self._window.render(end_s)
        self._window = Window(end_s)
        self._enis.clear()
        self.refresh()
        return lines

    def _touch(self) -> None:
        """Have every ENI counted, also one of which nothing came."""
        for eni_id, account in self._enis.values():
            self._window.eni(eni_id, account)

    def _count(self, flow: Tracked, before: Counters) -> None:
        """Count for both ends what a flow has carried more than before."""
        sent = (flow.sent[0] - before[0], flow.sent[1] - before[1])
        answered = (flow.answered[0] - before[2], flow.answered[1] - before[3])
        original, reply = flow.original, flow.reply
        client = original.source, original.source_port
        asked = original.destination, original.destination_port
        server = reply.source, reply.source_port  # another one, if the host translates
        self._count_both(original.source, client, asked, flow.protocol, sent, answered)
        if reply.source != original.source:
            self._count_both(reply.source, client, server, flow.protocol, sent, answered)

    def _count_both(
        self,
        of: bytes,
        client: tuple[bytes, int],
        server: tuple[bytes, int],
        protocol: int,
        sent: tuple[int, int],
        answered: tuple[int, int],
    ) -> None:
        eni = self._enis.get(of)
        if eni is None:
            return
        window, start_s, end_s = self._window.eni(*eni), self._window.start_s, int(self._now())
        for (one, port), (other, other_port), counted in (
            (client, server, sent),
            (server, client, answered),
        ):
            flow = Flow(show(one), show(other), port, other_port, protocol)
            window.count(ACCEPT, flow, *counted, start_s, end_s)

    def _count_one(self, of: bytes, action: str, flow: Flow, size_bytes: int, at_s: int) -> None:
        eni = self._enis.get(of)
        if eni is not None:
            self._window.eni(*eni).count(action, flow, 1, size_bytes, at_s, at_s)


def _pack(address: str) -> bytes:
    return ip_address(address).packed
