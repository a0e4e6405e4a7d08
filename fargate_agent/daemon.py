"""The composition root: builds clients, drivers and services, and runs them until SIGTERM.

SIGTERM cancels the services. Tasks go on; the next agent adopts them.
"""

import asyncio
import ctypes
import fcntl
import gc
import hashlib
import logging
import os
import shutil
import signal
from collections.abc import Collection, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from fargate_agent.acs.api import ControlPlane, Credentials
from fargate_agent.acs.reporter import Reporter
from fargate_agent.acs.responder import Responder
from fargate_agent.acs.session import Registration, Session
from fargate_agent.containerd.client import Containerd
from fargate_agent.drivers import Drivers
from fargate_agent.errors import TaskError
from fargate_agent.findings import Findings
from fargate_agent.image.admin import ImageAdmin
from fargate_agent.image.store import ContainerdImageStore, PullBehavior, PullSettings
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
from fargate_agent.parallel import together, until
from fargate_agent.plan import EniKind, Site, TaskPlan
from fargate_agent.runtime.oom import watch_oom_kills
from fargate_agent.runtime.runc import RuncRuntime, RuncSettings
from fargate_agent.settings import AgentSettings
from fargate_agent.task.store import TaskStore, read_boot_id
from fargate_agent.task.supervisor import Supervisor
from fargate_agent.tmds.server import TaskMetadata

log = logging.getLogger(__name__)

JANITOR_PERIOD_S: Final = 3600
"""How often local copies of logs are looked through for old ones."""


class AgentError(Exception):
    """The agent can't do its work here, and the operator has to change something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    """What the services share."""

    site: Site
    drivers: Drivers
    findings: Findings
    netns: KernelNetns
    bridges: Bridges
    veth: VethEni
    macvlan: MacvlanEni
    runtime: RuncRuntime
    metadata: TaskMetadata
    images: ImageAdmin


async def serve(settings: AgentSettings) -> None:
    """Run the agent until SIGTERM or SIGINT.

    Raises:
        AgentError: another agent has the state directory, or a key is missing.
    """
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[str] = loop.create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _set, stopped, signal.Signals(number).name)
    async with AsyncExitStack() as stack:
        stack.enter_context(_only_agent(settings.state_dir))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        containerd = await stack.enter_async_context(
            Containerd(settings.containerd_address, settings.containerd_namespace)
        )
        async with until(stopped):
            await _run_services(settings, containerd, http)
    log.info("%s: the agent ends, its tasks go on", stopped.result())


@contextmanager
def _only_agent(state_dir: Path) -> Iterator[None]:
    """Hold the state directory for this process alone."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise AgentError(f"state directory {state_dir}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AgentError(f"another agent works in {state_dir}") from None
        yield
    finally:
        os.close(descriptor)


async def _run_services(
    settings: AgentSettings, containerd: Containerd, http: aiohttp.ClientSession
) -> None:
    control_plane = _build_control_plane(settings, http)
    machine = _build_machine(settings, containerd)
    await machine.runtime.ready()
    version = (await containerd.version()).version
    await containerd.ensure_namespace()
    reporter = Reporter(control_plane)
    supervisor = Supervisor(
        site=machine.site,
        drivers=machine.drivers,
        store=TaskStore(settings.state_dir / "records"),
        boot_id=await asyncio.to_thread(read_boot_id),
        send=reporter.send,
    )
    await supervisor.adopt()
    await _sweep(machine, {run.plan.id: run.plan.netns.name for run in supervisor.runs()})
    session = Session(
        http, control_plane, _describe_machine(settings), Responder(supervisor, reporter.send)
    )
    local = LocalServer(
        supervisor=supervisor,
        images=machine.images,
        findings=machine.findings,
        logs_dir=machine.site.logs_dir,
        spool_dir=settings.state_dir / "spool",
        is_connected=lambda: session.connected,
        containerd_version=version,
    )
    async with AsyncExitStack() as stack:
        for eni in (machine.veth, machine.macvlan):
            stack.callback(eni.close)
        await stack.enter_async_context(machine.metadata.serve(supervisor.find))
        await stack.enter_async_context(local.serve(settings.socket))
        _settle_memory()
        log.info("the agent is ready; containerd %s", version)
        await together(
            (
                supervisor.serve(),
                reporter.serve(supervisor.note_acknowledged),
                session.serve(),
                watch_oom_kills(containerd),
                machine.netns.keep_spare(),
                _prune_logs(settings, machine.site, supervisor),
            )
        )


def _settle_memory() -> None:
    """Give back what only the start needed; what is left stays, and no collection looks at it."""
    gc.collect()
    gc.freeze()
    ctypes.CDLL(None).malloc_trim(0)


def _build_machine(settings: AgentSettings, containerd: Containerd) -> _Machine:
    findings = Findings()
    instance = hashlib.sha256(str(settings.state_dir.resolve()).encode()).hexdigest()[:8]
    bridges = Bridges(instance, findings)
    netns = KernelNetns(instance)
    veth, macvlan = VethEni(bridges), MacvlanEni()
    runtime = RuncRuntime(
        containerd,
        RuncSettings(
            snapshotter=settings.snapshotter,
            runc_root=settings.runc_root,
            create_timeout_s=settings.container_create_timeout_s,
            start_timeout_s=settings.container_start_timeout_s,
        ),
        render_files=_render_files,
        note=findings.note,
    )
    metadata = TaskMetadata(
        open_socket=socket_in_netns,
        read_usage=runtime.usage,
        read_link_stats=read_link_stats,
        snapshotter=settings.snapshotter,
    )
    images = ContainerdImageStore(
        containerd,
        PullSettings(
            behavior=PullBehavior(settings.image_pull_behavior),
            insecure_registries=settings.insecure_registries,
            auth_file=settings.registry_auth_file,
            snapshotter=settings.snapshotter,
        ),
        socket_in_netns,
        read_host_nameservers,
    )
    json_file = JsonFileDriver(
        program=settings.shim_loggers_dir.resolve() / "json-file",
        max_size=settings.log_max_size,
        max_file=settings.log_max_file,
    )
    return _Machine(
        site=Site(
            netns_dir=settings.netns_dir,
            tasks_dir=settings.state_dir / "tasks",
            logs_dir=settings.state_dir / "logs",
            eni_ifname=settings.eni_ifname,
            region=settings.region,
        ),
        drivers=Drivers(
            netns=netns,
            enis={EniKind.VETH: veth, EniKind.MACVLAN: macvlan},
            metadata=metadata,
            images=images,
            runtime=runtime,
            logs={"json-file": json_file},
        ),
        findings=findings,
        netns=netns,
        bridges=bridges,
        veth=veth,
        macvlan=macvlan,
        runtime=runtime,
        metadata=metadata,
        images=ImageAdmin(containerd),
    )


def _render_files(task: TaskPlan) -> Mapping[str, str]:
    fallback = () if task.dns.servers else read_host_nameservers()
    return {
        "resolv.conf": render_resolv_conf(task.dns, fallback),
        "hosts": render_hosts(task.dns, task.enis),
        "hostname": render_hostname(task.dns),
    }


def _build_control_plane(settings: AgentSettings, http: aiohttp.ClientSession) -> ControlPlane:
    key_id = settings.access_key_id or os.environ.get("AWS_ACCESS_KEY_ID", "")
    secret = settings.secret_access_key or os.environ.get("AWS_SECRET_ACCESS_KEY", "")
    if not key_id or not secret:
        raise AgentError(
            "no key for the control plane: set FARGATE_AGENT_ACCESS_KEY_ID and "
            "FARGATE_AGENT_SECRET_ACCESS_KEY"
        )
    key = Credentials(access_key=key_id, secret_key=secret)
    return ControlPlane(http, settings.control_plane, key, settings.region)


def _describe_machine(settings: AgentSettings) -> Registration:
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Registration(
        cluster=settings.cluster,
        cpu_units=1024 * (os.cpu_count() or 1),
        memory_mib=memory_bytes // (1024 * 1024),
        arn_file=settings.state_dir / "container-instance-arn",
    )


async def _sweep(machine: _Machine, kept: Mapping[str, str]) -> None:
    """Take back what a predecessor left of tasks that nobody answers for.

    `kept` has the netns names of the tasks that go on, by their ids.
    """
    for task_id in await machine.runtime.list_tasks() - kept.keys():
        try:
            await machine.runtime.release_strays(task_id)
            log.info("swept the containers of task %s", task_id)
        except TaskError as error:
            log.warning("could not sweep task %s: %s", task_id, error)
    for name in await sweep(machine.bridges, machine.site.netns_dir, set(kept.values())):
        log.info("swept %s", name)
    await asyncio.to_thread(_remove_directories, machine.site.tasks_dir, kept)


def _remove_directories(tasks_dir: Path, kept: Collection[str]) -> None:
    for directory in tasks_dir.glob("*"):
        if directory.name not in kept:
            shutil.rmtree(directory, ignore_errors=True)


async def _prune_logs(settings: AgentSettings, site: Site, supervisor: Supervisor) -> None:
    while True:
        keep = {run.plan.id for run in supervisor.runs()}
        for task_id in await prune_logs(site.logs_dir, settings.log_retention_s, keep):
            log.info("removed the old logs of task %s", task_id)
        await asyncio.sleep(JANITOR_PERIOD_S)


def _set(future: asyncio.Future[str], value: str) -> None:
    if not future.done():
        future.set_result(value)
