"""The composition root: builds clients, drivers and services, and runs them until SIGTERM.

SIGTERM cancels the services. Tasks go on; the next agent adopts them. SIGHUP does the same when the
settings, read again, are right: this process then begins anew with them.
"""

import asyncio
import ctypes
import gc
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import aiohttp

from fargate_agent.acs.api import ControlPlane, Credentials
from fargate_agent.acs.capabilities import read_attributes
from fargate_agent.acs.reporter import Reporter
from fargate_agent.acs.responder import Responder
from fargate_agent.acs.session import ARN_FILE, Registration, Session
from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.errors import ContainerdError
from fargate_agent.credentials.aws import AwsSite
from fargate_agent.credentials.roles import Roles, RoleSettings
from fargate_agent.drivers import Drivers
from fargate_agent.egress.session import Egress
from fargate_agent.findings import Findings
from fargate_agent.image.admin import ImageAdmin
from fargate_agent.image.store import ContainerdImageStore, PullBehavior, PullSettings
from fargate_agent.image.turns import Turns
from fargate_agent.local.logs import prune_logs
from fargate_agent.local.server import LocalServer
from fargate_agent.logdriver.catalog import make_log_drivers
from fargate_agent.machine.look import look
from fargate_agent.network.bridge import Bridges
from fargate_agent.network.dns import read_host_nameservers, render_etc_files
from fargate_agent.network.macvlan import MacvlanEni
from fargate_agent.network.names import name_instance
from fargate_agent.network.namespaces import socket_in_netns
from fargate_agent.network.netlink import read_link_stats
from fargate_agent.network.netns import KernelNetns
from fargate_agent.network.veth import VethEni
from fargate_agent.parallel import together, until
from fargate_agent.plan import EniKind, Site
from fargate_agent.preconditions import (
    NotNowError,
    find_cgroup_drivers,
    find_group,
    find_key_file,
    find_logger_user,
    hold,
    hold_state_dir,
    read_key,
    require_containerd,
    require_snapshotter,
    tell_old_names,
)
from fargate_agent.reserve import FILE as RESERVE_FILE
from fargate_agent.reserve import Reserve
from fargate_agent.runtime.cgroupdriver import CgroupDrivers
from fargate_agent.runtime.oom import watch_oom_kills
from fargate_agent.runtime.runc import RuncRuntime, RuncSettings
from fargate_agent.secrets.reader import SecretReader, SecretSettings
from fargate_agent.secrets.store import TaskSecrets
from fargate_agent.settings import AgentSettings
from fargate_agent.settings_file import SettingsError
from fargate_agent.site import make_site
from fargate_agent.sweeping import sweep
from fargate_agent.systemd import BEAT_S, Notifier
from fargate_agent.task.store import RESERVE_BYTES, TaskStore, read_boot_id
from fargate_agent.task.supervisor import Supervisor
from fargate_agent.tmds.confidential import Confidential
from fargate_agent.tmds.server import TaskMetadata

log = logging.getLogger(__name__)

JANITOR_PERIOD_S: Final = 3600
"""How often local copies of logs are looked through for old ones."""

UNWATCHED: Final = (
    "it runs on, but its end is not noticed and it has no metadata. Stop it, or restore the record "
    "and start the agent again"
)
"""What it means for a task that its record can't be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    """What the services share."""

    site: Site
    drivers: Drivers
    findings: Findings
    cgroups: CgroupDrivers
    netns: KernelNetns
    bridges: Bridges
    veth: VethEni
    macvlan: MacvlanEni
    runtime: RuncRuntime
    metadata: TaskMetadata
    images: ImageAdmin


async def serve(
    settings: AgentSettings, notifier: Notifier, read_again: Callable[[], object]
) -> signal.Signals:
    """Run the agent until a signal ends it, and return that: SIGHUP asks for a new beginning.

    `read_again` returns if the settings, as they are now, would do for a new agent.

    Raises:
        AgentError: another agent works here, containerd is too old, or the like.
        SettingsError: the key of the agent is in a file that can't be read.
    """
    tell_old_names(settings)
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[str] = loop.create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, notifier, stopped, number)
    hung_up = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, hung_up.set)
    async with AsyncExitStack() as stack:
        stack.enter_context(hold_state_dir(settings.state_dir))
        stack.enter_context(hold(f"socket {settings.socket.absolute()}", settings.socket))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        containerd = await stack.enter_async_context(
            Containerd(settings.containerd_address, settings.containerd_namespace)
        )
        async with until(stopped):
            await together(
                (
                    _run_services(settings, containerd, http, notifier),
                    notifier.keep_alive(partial(_find_fault, containerd)),
                    _reload(hung_up, read_again, notifier, stopped),
                )
            )
    log.info("%s: the agent ends, its tasks go on", stopped.result())
    return signal.Signals[stopped.result()]


def _stop(notifier: Notifier, stopped: asyncio.Future[str], number: signal.Signals) -> None:
    if not stopped.done():
        notifier.stopping()
        stopped.set_result(number.name)


async def _reload(
    hung_up: asyncio.Event,
    read_again: Callable[[], object],
    notifier: Notifier,
    stopped: asyncio.Future[str],
) -> None:
    """End the agent for a new beginning when it was told to and the settings are right."""
    while True:
        await hung_up.wait()
        hung_up.clear()
        try:
            await asyncio.to_thread(read_again)
        except SettingsError as error:
            log.error("settings stay as they were: %s", "; ".join(str(error).splitlines()))
            continue
        if not stopped.done():
            notifier.reloading()
            stopped.set_result(signal.SIGHUP.name)


async def _find_fault(containerd: Containerd) -> str | None:
    """Say why the agent couldn't start a task now; None if it could."""
    try:
        await containerd.version()
    except ContainerdError as error:
        return f"containerd doesn't answer at {containerd.address}: {error}"
    return None


async def _run_services(
    settings: AgentSettings,
    containerd: Containerd,
    http: aiohttp.ClientSession,
    notifier: Notifier,
) -> None:
    control_plane = _build_control_plane(settings, http)
    machine = _build_machine(settings, containerd, http)
    notifier.status(f"waiting for containerd at {settings.containerd_address}")
    await machine.runtime.ready()
    version = (await containerd.version()).version
    require_containerd(version, containerd.address)
    snapshotters = await containerd.introspection.snapshotters()
    require_snapshotter(settings.snapshotter, snapshotters, containerd.address)
    async with AsyncExitStack() as stack:
        uuid = await containerd.introspection.server_uuid()
        namespace = f"containerd namespace {settings.containerd_namespace}"
        stack.enter_context(
            hold(f"{namespace} of {uuid}", f"{namespace} at {settings.containerd_address}")
        )
        notifier.status("taking over the tasks of the agent before")
        await containerd.ensure_namespace()
        boot_id = await asyncio.to_thread(read_boot_id)
        await machine.findings.recall(settings.state_dir, boot_id)
        reporter = Reporter(control_plane)
        reserve = Reserve(settings.state_dir / RESERVE_FILE, RESERVE_BYTES)
        supervisor = Supervisor(
            site=machine.site,
            drivers=machine.drivers,
            store=TaskStore(settings.state_dir / "records", reserve),
            boot_id=boot_id,
            send=reporter.send,
        )
        await supervisor.adopt()
        for task_id, why in supervisor.unreadable.items():
            machine.findings.note(f"the record of task {task_id} can't be read: {why}", UNWATCHED)
        await sweep(machine.runtime, machine.bridges, machine.site, _find_tasks(supervisor))
        session = Session(
            http,
            control_plane,
            _describe_machine(settings, machine.drivers.logs),
            Responder(supervisor, reporter.send),
        )
        local = LocalServer(
            supervisor=supervisor,
            images=machine.images,
            findings=machine.findings,
            look=partial(look, settings),
            logs_dir=machine.site.logs_dir,
            log_copy=settings.log_copy,
            spool_dir=settings.state_dir / "spool",
            is_connected=lambda: session.connected,
            containerd_version=version,
            cgroups=str(machine.cgroups),
        )
        for eni in (machine.veth, machine.macvlan):
            stack.callback(eni.close)
        await stack.enter_async_context(machine.metadata.serve(supervisor.find))
        await stack.enter_async_context(_listen(local, settings))
        _settle_memory()
        log.info("the agent is ready; containerd %s", version)
        await together(
            (
                supervisor.serve(),
                reporter.serve(supervisor.note_acknowledged),
                session.serve(),
                watch_oom_kills(containerd),
                machine.netns.keep_spare(supervisor.has_tasks),
                machine.bridges.keep_forwarding(),
                machine.findings.keep(settings.state_dir, boot_id),
                _prune_logs(settings, machine.site, supervisor),
                reserve.serve(),
                _tell_systemd(settings, notifier, session, supervisor),
            )
        )


@asynccontextmanager
async def _listen(local: LocalServer, settings: AgentSettings) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        group = await asyncio.to_thread(find_group, settings.socket_group)
        try:
            await stack.enter_async_context(local.serve(settings.socket, group))
        except OSError as error:
            raise NotNowError(f"socket {settings.socket}: {error.strerror}") from error
        yield


async def _tell_systemd(
    settings: AgentSettings, notifier: Notifier, session: Session, supervisor: Supervisor
) -> None:
    """Be ready with the first connection, and say from time to time how things are."""
    while not session.has_connected.is_set():
        why = f": {session.fault}" if session.fault else ""
        notifier.status(f"waiting for the control plane at {settings.control_plane}{why}")
        with suppress(TimeoutError):
            async with asyncio.timeout(BEAT_S):
                await session.has_connected.wait()
    notifier.ready()
    while True:
        connected = "connected" if session.connected else "not connected"
        notifier.status(f"{connected} to the control plane; tasks: {len(supervisor.runs())}")
        await asyncio.sleep(BEAT_S)


def _settle_memory() -> None:
    """Give back what only the start needed; what is left stays, and no collection looks at it."""
    gc.collect()
    gc.freeze()
    ctypes.CDLL(None).malloc_trim(0)


def _build_machine(
    settings: AgentSettings, containerd: Containerd, http: aiohttp.ClientSession
) -> _Machine:
    findings, cgroups = Findings(), find_cgroup_drivers(settings)
    log.info("tasks are bounded by %s", cgroups)
    instance = name_instance(settings.state_dir)
    bridges = Bridges(instance, findings)
    netns = KernelNetns(instance, settings.netns_dir)
    veth, macvlan = VethEni(bridges), MacvlanEni()
    user = find_logger_user(settings.logger_user)
    runtime = RuncRuntime(
        containerd,
        RuncSettings(
            snapshotter=settings.snapshotter,
            runc_root=settings.runc_root,
            create_timeout_s=settings.container_create_timeout_s,
            start_timeout_s=settings.container_start_timeout_s,
            pids_limit=settings.container_pids_limit,
            logger_user=user,
        ),
        cgroups,
        render_files=render_etc_files,
        note=findings.note,
    )
    egress = Egress(socket_in_netns, read_host_nameservers)
    aws = AwsSite(region=settings.region, endpoint_url=settings.aws_endpoint_url)
    role_settings = RoleSettings(
        credentials_file=settings.aws_credentials_file, assume=settings.assume_roles
    )
    roles = Roles(http, aws, role_settings)
    reader = SecretReader(roles, aws, egress, SecretSettings())
    secrets = TaskSecrets(reader.fetch, roles, runtime.exists)
    metadata = TaskMetadata(
        bind_listener=netns.metadata.bind,
        read_usage=runtime.usage,
        read_link_stats=read_link_stats,
        snapshotter=settings.snapshotter,
        confidential=Confidential(roles, secrets),
    )
    turns = Turns()
    images = ContainerdImageStore(
        containerd,
        PullSettings(
            behavior=PullBehavior(settings.image_pull_behavior),
            insecure_registries=settings.insecure_registries,
            auth_file=settings.registry_auth_file,
            snapshotter=settings.snapshotter,
        ),
        egress,
        turns,
    )
    return _Machine(
        site=make_site(settings),
        drivers=Drivers(
            netns=netns,
            enis={EniKind.VETH: veth, EniKind.MACVLAN: macvlan},
            metadata=metadata,
            images=images,
            runtime=runtime,
            logs=make_log_drivers(settings, user, read_host_nameservers),
            secrets=secrets,
        ),
        findings=findings,
        cgroups=cgroups,
        netns=netns,
        bridges=bridges,
        veth=veth,
        macvlan=macvlan,
        runtime=runtime,
        metadata=metadata,
        images=ImageAdmin(containerd, turns),
    )


def _build_control_plane(settings: AgentSettings, http: aiohttp.ClientSession) -> ControlPlane:
    key, file = read_key(settings), find_key_file(settings)
    if file and file.stat().st_mode & 0o077:
        log.warning("%s can be read by others than its owner", file)
    credentials = Credentials(access_key=key.access_key_id, secret_key=key.secret_access_key)
    urls = [url.strip() for url in settings.control_plane.split(",")]
    return ControlPlane(http, urls, credentials, settings.region)


def _describe_machine(settings: AgentSettings, log_drivers: Collection[str]) -> Registration:
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Registration(
        clusters=settings.clusters,
        cpu_units=1024 * (os.cpu_count() or 1),
        memory_mib=memory_bytes // (1024 * 1024),
        read_attributes=partial(read_attributes, tuple(log_drivers)),
        arn_file=settings.state_dir / ARN_FILE,
    )


def _find_tasks(supervisor: Supervisor) -> frozenset[str]:
    """Return the ids of all tasks that something may be left of."""
    return frozenset({run.plan.id for run in supervisor.runs()} | supervisor.unreadable.keys())


async def _prune_logs(settings: AgentSettings, site: Site, supervisor: Supervisor) -> None:
    while True:
        keep = _find_tasks(supervisor)
        for task_id in await prune_logs(site.logs_dir, settings.log_retention_s, keep):
            log.info("removed the old logs of task %s", task_id, extra={"task": task_id})
        await asyncio.sleep(JANITOR_PERIOD_S)
