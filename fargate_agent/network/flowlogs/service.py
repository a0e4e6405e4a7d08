"""Flow logs as a service of the agent: listens, looks, and writes the lines of each interval."""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from fargate_agent.aws.errors import RoleError
from fargate_agent.findings import Findings
from fargate_agent.network.blocking import NetlinkError
from fargate_agent.network.flowlogs.collector import Collector
from fargate_agent.network.flowlogs.destination import Destination, DestinationError
from fargate_agent.network.flowlogs.refused import open_refused, read_refused
from fargate_agent.network.flowlogs.tracked import (
    ACCOUNTING,
    RECEIVE_BYTES,
    dump_flows,
    open_ends,
    read_ends,
)
from fargate_agent.threads import in_thread

log = logging.getLogger(__name__)

TRIES: Final = 3
RETRY_S: Final = 2.0
WRITE_TIMEOUT_S: Final = 30.0
LAST_TIMEOUT_S: Final = 4.0
"""For the last lines, when the agent ends."""
REFRESH_S: Final = 0.1
"""How often it is looked which ENIs there are, while flows end."""
READS: Final = 64
"""How often a socket is read before others have their turn."""
MARKER: Final = "conntrack-accounting"
"""A file of the state directory: the agent has switched the counting of flows on."""
EFFECT: Final = "flow logs are not complete"


class FlowLogs:
    """Writes flow logs of one agent."""

    def __init__(
        self,
        collector: Collector,
        destination: Destination,
        group: int,
        interval_s: float,
        state_dir: Path,
        findings: Findings,
    ) -> None:
        """`group` is the number by which the packet filter hands over what it refused."""
        self._collector = collector
        self._destination = destination
        self._group = group
        self._interval_s = interval_s
        self._marker = state_dir / MARKER
        self._findings = findings
        self._lost_ends = False
        self._refreshed_s = float("-inf")

    async def serve(self) -> None:
        """Write the lines of each interval until cancelled, and then those of the last one."""
        with ExitStack() as opened:
            try:
                await in_thread(switch_accounting_on, self._marker)
                ends = opened.enter_context(open_ends())
                self._collector.refresh()
                self._collector.begin(await in_thread(dump_flows, self._collector.addresses))
            except (NetlinkError, OSError) as error:
                self._findings.note(f"flows can't be counted: {error}", EFFECT)
                return
            refused = self._open_refused(opened)
            self._listen(opened, ends, self._hear_ends)
            if refused is not None:
                self._listen(opened, refused, self._hear_refused)
            try:
                while True:
                    await asyncio.sleep(self._interval_s)
                    await self._end_interval(ends)
            finally:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LAST_TIMEOUT_S):
                        await self._end_interval(ends)

    def _open_refused(self, opened: ExitStack) -> socket.socket | None:
        try:
            return opened.enter_context(open_refused(self._group))
        except NetlinkError as error:
            self._findings.note(f"refused packets can't be counted: {error}", EFFECT)
            return None

    def _listen(
        self, opened: ExitStack, link: socket.socket, hear: Callable[[socket.socket], None]
    ) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(link, hear, link)
        opened.callback(loop.remove_reader, link)

    def _hear_ends(self, ends: socket.socket) -> None:
        self._refresh()
        for _ in range(READS):
            try:
                data = ends.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: some were lost
                self._lost_ends = True
                continue
            for flow in read_ends(data, self._collector.addresses):
                self._collector.note_end(flow)

    def _refresh(self) -> None:
        """Look for new ENIs, not for each flow anew."""
        now_s = time.monotonic()
        if now_s - self._refreshed_s >= REFRESH_S:
            self._refreshed_s = now_s
            self._collector.refresh()

    def _hear_refused(self, refused: socket.socket) -> None:
        self._refresh()
        for _ in range(READS):
            try:
                data = refused.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: some were lost
                self._collector.skip()
                continue
            for one in read_refused(data):
                self._collector.note_refused(one)

    async def _end_interval(self, ends: socket.socket) -> None:
        """Look at all flows, and write. What ends meanwhile is heard of afterwards.

        So nothing is counted twice: a flow that ends while the kernel lists it is first counted as
        it was listed.
        """
        loop = asyncio.get_running_loop()
        loop.remove_reader(ends)
        try:
            self._collector.refresh()
            flows = await in_thread(dump_flows, self._collector.addresses)
            self._collector.note_flows(flows)
            self._hear_ends(ends)
            if self._lost_ends:
                self._lost_ends = False
                self._collector.forget_ended(flows)
        except NetlinkError as error:
            log.error("flows not counted: %s", error)
            self._collector.skip()
        finally:
            loop.add_reader(ends, self._hear_ends, ends)
        await self._write()

    async def _write(self) -> None:
        lines = self._collector.take()
        at_s = self._collector.start_s
        for number in range(TRIES):
            try:
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await self._destination.write(lines, at_s)
            except (DestinationError, RoleError, TimeoutError) as error:
                why = str(error) or "not taken in time"
                log.error("flow logs not written, try %d of %d: %s", number + 1, TRIES, why)
                await asyncio.sleep(RETRY_S)
            else:
                return
        self._collector.skip()
        self._findings.note("flow logs were not written; the log of the agent says why", EFFECT)


def switch_accounting_on(marker: Path, setting: Path = ACCOUNTING) -> None:
    """Have the kernel count packets and bytes of new flows; a file notes that it didn't before.

    Blocks.

    Raises:
        OSError: the kernel tracks no flows, or the file can't be written.
    """
    if setting.read_text(encoding="ascii").strip() == "0":
        marker.touch(mode=0o600)
        setting.write_text("1", encoding="ascii")


async def put_accounting_back(state_dir: Path) -> None:
    """Have the kernel count no flows any more, if an agent of this directory has begun it."""
    try:
        await in_thread(switch_accounting_back, state_dir / MARKER)
    except OSError as error:
        log.warning("counting of flows not switched off: %s", error)


def switch_accounting_back(marker: Path, setting: Path = ACCOUNTING) -> None:
    """Undo that, if it was done by an agent of this state directory. Blocks.

    Raises:
        OSError: the kernel refused.
    """
    if marker.exists():
        with suppress(FileNotFoundError):  # nothing is tracked any more
            setting.write_text("0", encoding="ascii")
        marker.unlink()
