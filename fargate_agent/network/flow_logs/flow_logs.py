"""Flow logs, as the agent runs them."""

import asyncio
import hashlib
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, Protocol

from fargate_agent.findings import Findings
from fargate_agent.network.blocking import NetlinkError
from fargate_agent.network.flow_logs.accounting import Accounting, tells_ends
from fargate_agent.network.flow_logs.log_file import LogFile
from fargate_agent.network.flow_logs.log_group import LogGroup
from fargate_agent.network.flow_logs.recorder import Recorder
from fargate_agent.network.flow_logs.records import plan_logged
from fargate_agent.network.lan import Guard
from fargate_agent.network.veth import Firewall
from fargate_agent.plan import EniPlan
from fargate_agent.threads import in_thread
from fargate_agent.wire.eni_kinds import EniKind

NO_FLOWS: Final = "the kernel doesn't count the packets of flows (nf_conntrack_acct)"
NO_RECORDS: Final = "there are no flow logs"
NO_REFUSED: Final = "the agent can't hear of packets that are refused (nfnetlink_log)"
NO_REJECTS: Final = "flow logs have no REJECT records"
NO_ENDS: Final = "the kernel doesn't tell of flows that end (nf_conntrack_events)"
NO_SHORT: Final = "flow logs have no records of flows that last for less than a minute"
OTHER_KIND: Final = "some ENIs are of another kind than veth"
OTHER_KIND_EFFECT: Final = "flow logs have no records of them"

log = logging.getLogger(__name__)


def name_log_group(instance: str) -> int:
    """Number the group of the kernel's log that an agent's packet filter tells of refused packets.

    Low numbers are those that people choose.
    """
    return 0x8000 | int(hashlib.sha256(instance.encode()).hexdigest()[:4], 16)


class FlowLogs:
    """Logs the flows of open ENIs while it is served; without a sink it does nothing."""

    def __init__(
        self,
        instance: str,
        state_dir: Path,
        sink: LogFile | LogGroup | None,
        interval_s: float,
        findings: Findings,
    ) -> None:
        """Touches nothing."""
        self.log_group: Final = None if sink is None else name_log_group(instance)
        self._sink = sink
        self._findings = findings
        self._accounting = Accounting(state_dir)
        self._open: set[str] = set()
        self._recorder: Recorder | None = None
        if sink is not None:
            self._recorder = Recorder(sink, interval_s, name_log_group(instance))

    def adopt(self, enis: Collection[EniPlan]) -> None:
        """Log the ENIs of tasks that run already; before `serve`."""
        for eni in enis:
            if eni.kind is EniKind.VETH:
                self.open(eni)
            else:
                self.note_other()

    def open(self, eni: EniPlan) -> bool:
        """Log an ENI from now on; whether it wasn't logged before."""
        if self._recorder is None or eni.id in self._open:
            return False
        self._open.add(eni.id)
        self._recorder.open(plan_logged(eni))
        return True

    def close(self, eni: EniPlan) -> None:
        """Log an ENI no more."""
        if self._recorder is not None and eni.id in self._open:
            self._open.discard(eni.id)
            self._recorder.close(plan_logged(eni))

    def note_other(self) -> None:
        """Note that there is an ENI that can't be logged."""
        if self._recorder is not None:
            self._findings.note(OTHER_KIND, OTHER_KIND_EFFECT)

    async def serve(self) -> None:
        """Log flows until cancelled, and then write the last records.

        What can't be logged is noted; tasks run on.
        """
        if self._recorder is None:
            await in_thread(self._restore_accounting)
            return
        try:
            await in_thread(self._start, self._recorder)
            if isinstance(self._sink, LogGroup):
                await self._sink.serve()
            else:
                await asyncio.Event().wait()
        finally:
            await in_thread(self._recorder.stop)
            if isinstance(self._sink, LogGroup):
                await self._sink.finish()
            if not self._open:
                await in_thread(self._restore_accounting)

    def _start(self, recorder: Recorder) -> None:
        try:
            recorder.hear_refused()
        except NetlinkError as error:
            log.error("flow logs: %s", error)
            self._findings.note(NO_REFUSED, NO_REJECTS)
        try:
            self._accounting.switch_on()
            recorder.start()
        except (NetlinkError, OSError) as error:
            log.error("flow logs: %s", error)
            self._findings.note(NO_FLOWS, NO_RECORDS)
            recorder.stop()
            return
        if not tells_ends():
            self._findings.note(NO_ENDS, NO_SHORT)

    def _restore_accounting(self) -> None:
        try:
            self._accounting.restore()
        except OSError as error:
            log.warning("the counting of flows can't be switched off: %s", error)


class FirewallOfEnis(Firewall, Guard, Protocol):
    """What the drivers of ENIs ask of the firewall."""


class LoggedFirewall:
    """The firewall, as the drivers of ENIs use it; the flow logs hear of each ENI."""

    def __init__(self, firewall: FirewallOfEnis, flow_logs: FlowLogs) -> None:
        self._firewall = firewall
        self._flow_logs = flow_logs

    async def ensure(self) -> None:
        """Return when nothing passes but what is let through."""
        await self._firewall.ensure()

    async def open_eni(self, eni: EniPlan) -> None:
        """Let through what the ENI's groups allow, and log it."""
        is_new = self._flow_logs.open(eni)
        try:
            await self._firewall.open_eni(eni)
        except BaseException:
            if is_new:
                self._flow_logs.close(eni)
            raise

    async def close_eni(self, eni: EniPlan) -> None:
        """Let through nothing of the ENI."""
        await self._firewall.close_eni(eni)
        self._flow_logs.close(eni)

    async def note_uplinks(self, uplinks: Mapping[int, Collection[str]]) -> None:
        """Of what comes from these, pass on only what is for an ENI."""
        await self._firewall.note_uplinks(uplinks)

    async def guard_netns(self, eni: EniPlan, netns: Path) -> None:
        """Enforce the groups of an ENI that isn't routed."""
        self._flow_logs.note_other()
        await self._firewall.guard_netns(eni, netns)

    async def unguard_netns(self, eni: EniPlan, netns: Path) -> None:
        """Enforce nothing in that namespace any more."""
        await self._firewall.unguard_netns(eni, netns)
