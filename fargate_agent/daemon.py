"""The composition root: builds clients, drivers and services, and runs them until SIGTERM.

SIGTERM cancels the services. Tasks go on; the next agent adopts them.
"""

import asyncio
import fcntl
import hashlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import aiohttp
from botocore.credentials import Credentials

from fargate_agent.acs.api import ControlPlane
from fargate_agent.acs.reporter import Reporter
from fargate_agent.acs.responder import Responder
from fargate_agent.acs.session import Registration, Session
from fargate_agent.containerd.client import Containerd
from fargate_agent.drivers import Drivers
from fargate_agent.findings import Findings
from fargate_agent.image.store import ContainerdImageStore
from fargate_agent.local.logs import prune_logs
from fargate_agent.local.server import LocalServer
from fargate_agent.logdriver.jsonfile import JsonFileDriver
from fargate_agent.network.bridge import Bridges
from fargate_agent.network.dns import (
    read_host_nameservers,
    render_hostname,
    render_hosts,
    render_resolv_conf,
)
from fargate_agent.network.macvlan import MacvlanEni
from fargate_agent.network.namespaces import socket_in_netns
from fargate_agent.network.netlink import read_link_stats
from fargate_agent.network.netns import KernelNetns
from fargate_agent.network.sweep import sweep
from fargate_agent.network.veth import VethEni
from fargate_agent.plan import EniKind, Site, TaskPlan
from fargate_agent.runtime.oom import watch_oom_kills
from fargate_agent.runtime.runc import RuncRuntime
from fargate_agent.settings import AgentSettings
from fargate_agent.task.status import StateChange
from fargate_agent.task.store import TaskStore, read_boot_id
from fargate_agent.task.supervisor import Supervisor
from fargate_agent.tmds.server import TaskMetadata

log = logging.getLogger(__name__)

JANITOR_PERIOD_S: Final = 3600
"""How often local copies of logs are looked through for old ones."""

CONTAINERD_PATIENCE_S: Final = 2
"""How long containerd may take to answer before the log says that the agent waits for it."""


class AgentError(Exception):
    """The agent can't do its work here, and the operator has to change something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    """What the services share."""

    settings: AgentSettings
    containerd: Containerd
    bridges: Bridges
    runtime: RuncRuntime
    images: ContainerdImageStore
    findings: Findings
    site: Site


async def serve(settings: AgentSettings) -> None:
    """Run the agent until SIGTERM or SIGINT.

    Raises:
        AgentError: another agent has the state directory, or a key is missing.
    """
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with AsyncExitStack() as stack:
        stack.enter_context(_only_agent(settings.state_dir))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        containerd = await stack.enter_async_context(
            Containerd(settings.containerd_address, settings.containerd_namespace)
        )
        services = asyncio.create_task(_run_services(settings, containerd, http))
        waiter = asyncio.create_task(stopped.wait())
        await asyncio.wait([services, waiter], return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        services.cancel()
        try:
            await services
        except asyncio.CancelledError:
            log.info("the agent ends; its tasks go on")


@contextmanager
def _only_agent(state_dir: Path) -> Iterator[None]:
    """Hold the state directory for this process alone."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise AgentError(f"state directory {state_dir}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise AgentError(f"another agent works in {state_dir}") from None
    finally:
        os.close(descriptor)


async def _run_services(
    settings: AgentSettings, containerd: Containerd, http: aiohttp.ClientSession
) -> None:
    await _wait_for_containerd(containerd)
    version = await containerd.version()
    await containerd.ensure_namespace()
    machine = _build_machine(settings, containerd)
    control_plane = _build_control_plane(settings, http)
    reporter = Reporter(control_plane)
    metadata = TaskMetadata(...)
    supervisor = Supervisor(
        site=machine.site,
        drivers=_build_drivers(machine, metadata),
        store=TaskStore(settings.state_dir / "records"),
        boot_id=await asyncio.to_thread(read_boot_id),
        send=reporter.send,
    )
    await supervisor.adopt()
    await _sweep(machine, {run.plan.id for run in supervisor.runs()})
    session = Session(http, control_plane, _registration(settings), Responder(supervisor, reporter.send))
    local = LocalServer(
        supervisor=supervisor,
        images=machine.images,
        findings=machine.findings,
        logs_dir=machine.site.logs_dir,
        spool_dir=settings.state_dir / "spool",
        is_connected=lambda: session.connected,
        containerd_version=lambda: version.version,
    )
    async with metadata.serve(supervisor.find), local.serve(settings.socket), asyncio.TaskGroup() as services:
        services.create_task(supervisor.serve())
        services.create_task(reporter.serve(supervisor.note_acknowledged))
        services.create_task(session.serve())
        services.create_task(watch_oom_kills(containerd))
        services.create_task(_prune_logs(settings, machine.site, supervisor))
