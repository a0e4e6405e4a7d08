"""The services of the agent: builds them, with what they share, and runs them until SIGTERM.

SIGTERM cancels the services. Tasks go on; the next agent adopts them. SIGHUP does the same when the
settings, read again, are right: this process then begins anew with them.
"""

import asyncio
import ctypes
import gc
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Final

import aiohttp

from fargate_agent.acs.api import ControlPlane, Credentials
from fargate_agent.acs.capabilities import read_attributes
from fargate_agent.acs.for_tasks import CallsForTasks
from fargate_agent.acs.reporter import Reporter
from fargate_agent.acs.responder import Responder
from fargate_agent.acs.session import ARN_FILE, Registration, Session
from fargate_agent.composition import (
    Shared,
    make_desk,
    make_disk_guard,
    make_drivers,
    make_pull_settings,
    make_room,
    open_drivers,
)
from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.errors import ContainerdError
from fargate_agent.credentials.audit import Audit
from fargate_agent.credentials.roles import Roles
from fargate_agent.drivers import Drivers, Service
from fargate_agent.errors import TaskError
from fargate_agent.findings import Findings
from fargate_agent.image.admin import ImageAdmin
from fargate_agent.image.locks import KeyedLocks
from fargate_agent.image.registry.checking import LoginCheck
from fargate_agent.image.registry.kept_logins import KeptLogins
from fargate_agent.local.logs import prune_logs
from fargate_agent.local.registries import RegistryRoutes
from fargate_agent.local.secrets import SecretRoutes
from fargate_agent.local.server import LocalServer
from fargate_agent.logdriver.desk import LoggerDesk
from fargate_agent.machine.look import look
from fargate_agent.measures.listener import Render
from fargate_agent.network.flow_logs.making import make_flow_logs
from fargate_agent.observing import Observed, Observing
from fargate_agent.parallel import together, until
from fargate_agent.preconditions import (
    NotNowError,
    find_cgroup_drivers,
    find_group,
    find_key_file,
    hold,
    hold_state_dir,
    read_key,
    require_containerd,
    require_snapshotter,
    tell_old_names,
)
from fargate_agent.reserve import FILE as RESERVE_FILE
from fargate_agent.reserve import Reserve
from fargate_agent.runtime.oom import watch_oom_kills
from fargate_agent.secrets.local_store import LocalSecrets
from fargate_agent.settings import AgentSettings
from fargate_agent.settings_file import SettingsError
from fargate_agent.site import make_site
from fargate_agent.sweeping import sweep
from fargate_agent.systemd import BEAT_S, Notifier
from fargate_agent.task.images import find_image_users
from fargate_agent.task.store import RESERVE_BYTES, TaskStore, read_boot_id
from fargate_agent.task.supervisor import Supervisor
from fargate_agent.telemetry.figures import AgentFigures
from fargate_agent.telemetry.outbox import Outbox

log = logging.getLogger(__name__)

JANITOR_PERIOD_S: Final = 3600
"""How often local copies of logs are looked through for old ones."""

UNWATCHED: Final = (
    "it runs on, but its end is not noticed and it has no metadata. Stop it, or restore the record "
    "and start the agent again"
)
"""What it means for a task that its record can't be read."""


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
    """Take over what the agent before has left, then do all that an agent does, until cancelled."""
    control_plane = _build_control_plane(settings, http)
    site = make_site(settings)
    shared = Shared(
        settings=settings,
        site=site,
        room=make_room(settings, site),
        containerd=containerd,
        http=http,
        calls=CallsForTasks(control_plane),
        findings=(findings := Findings()),
        flow_logs=make_flow_logs(settings, http, findings),
        cgroups=find_cgroup_drivers(settings),
        image_locks=KeyedLocks(),
        roles=Roles(),
        audit=Audit(settings.state_dir / ARN_FILE),
    )
    log.info("tasks are bounded by %s", shared.cgroups)
    boot_id = await asyncio.to_thread(read_boot_id)
    reporter = Reporter(control_plane)
    reserve = Reserve(settings.state_dir / RESERVE_FILE, RESERVE_BYTES)
    store = TaskStore(settings.state_dir / "records", reserve)
    figures = AgentFigures()
    supervisor = Supervisor(
        site=shared.site,
        store=store,
        boot_id=boot_id,
        send=reporter.send,
        note_start=figures.note_start,
    )
    drivers = make_drivers(shared, supervisor)
    async with _hold_containerd(shared, drivers, notifier) as version, open_drivers(drivers):
        notifier.status("taking over the tasks of the agent before")
        await containerd.ensure_namespace()
        await shared.findings.recall(settings.state_dir, boot_id)
        await supervisor.adopt()
        for task_id, why in supervisor.unreadable.items():
            shared.findings.note(f"the record of task {task_id} can't be read: {why}", UNWATCHED)
        await _adopt_enis(shared, drivers, supervisor)
        await sweep(drivers, shared.site, _find_tasks(supervisor))
        outbox = Outbox()
        session = Session(
            http,
            control_plane,
            _describe_machine(shared, drivers),
            Responder(
                supervisor, reporter.send, shared.roles, drivers.security_groups, drivers.vpc
            ),
            outbox,
        )
        observing = Observing(
            shared,
            Observed(
                supervisor=supervisor,
                reporter=reporter,
                session=session,
                outbox=outbox,
                figures=figures,
            ),
        )
        server = _make_local_server(shared, supervisor, session, version, observing.render)
        await server.remove_leftovers()
        desk = make_desk(shared, drivers, supervisor)
        async with _listen(server, desk, settings), observing.listen():
            _settle_memory()
            log.info("the agent is ready; containerd %s", version)
            await together(
                (
                    supervisor.serve(drivers),
                    reporter.serve(supervisor.note_acknowledged),
                    session.serve(),
                    watch_oom_kills(containerd),
                    make_disk_guard(shared, supervisor).serve(supervisor.evict),
                    *(driver.serve() for driver in drivers if isinstance(driver, Service)),
                    shared.findings.keep(settings.state_dir, boot_id),
                    _prune_logs(shared, supervisor),
                    *observing.services(),
                    shared.flow_logs.serve(),
                    reserve.serve(),
                    _tell_systemd(settings, notifier, session, supervisor),
                )
            )


async def _adopt_enis(shared: Shared, drivers: Drivers, supervisor: Supervisor) -> None:
    """Keep groups of tasks that run enforced, and their flows logged, before anything else."""
    enis = [eni for run in supervisor.runs() if not run.ended.is_set() for eni in run.plan.enis]
    shared.flow_logs.adopt(enis)
    try:  # without any too: a task whose record can't be read may have some
        await drivers.security_groups.adopt(enis)
    except TaskError as error:  # attachments will fail as well, and their tasks say why
        log.error("security groups of the tasks that run are not enforced: %s", error)


@asynccontextmanager
async def _hold_containerd(
    shared: Shared, drivers: Drivers, notifier: Notifier
) -> AsyncIterator[str]:
    """Hold the containerd namespace for this agent alone; yield the version of containerd.

    Raises:
        AgentError: another agent holds it, or containerd is not what an agent needs.
    """
    settings, containerd = shared.settings, shared.containerd
    notifier.status(f"waiting for containerd at {settings.containerd_address}")
    await drivers.runtime.ready()
    version = (await containerd.version()).version
    require_containerd(version, containerd.address)
    snapshotters = await containerd.introspection.snapshotters()
    require_snapshotter(settings.snapshotter, snapshotters, containerd.address)
    uuid = await containerd.introspection.server_uuid()
    namespace = f"containerd namespace {settings.containerd_namespace}"
    with hold(f"{namespace} of {uuid}", f"{namespace} at {settings.containerd_address}"):
        yield version


def _make_local_server(
    shared: Shared,
    supervisor: Supervisor,
    session: Session,
    containerd_version: str,
    render_metrics: Render,
) -> LocalServer:
    settings = shared.settings
    return LocalServer(
        supervisor=supervisor,
        images=ImageAdmin(
            shared.containerd,
            shared.image_locks,
            lambda: find_image_users(supervisor.runs()),
            settings.snapshotter,
        ),
        secrets=SecretRoutes(store=LocalSecrets(settings.state_dir), are_used=settings.is_local),
        registries=RegistryRoutes(
            logins=KeptLogins(settings.state_dir),
            auth_file=settings.registry_auth_file,
            check=LoginCheck(hosts=make_pull_settings(settings).hosts()),
        ),
        findings=shared.findings,
        look=partial(look, settings),
        logs_dir=shared.site.logs_dir,
        log_copy=settings.log_copy,
        spool_dir=settings.state_dir / "spool",
        is_connected=lambda: session.connected,
        containerd_version=containerd_version,
        cgroups=str(shared.cgroups),
        render_metrics=render_metrics,
    )


@asynccontextmanager
async def _listen(
    local: LocalServer, desk: LoggerDesk, settings: AgentSettings
) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(desk.serve())
        except OSError as error:
            raise NotNowError(f"socket {desk.path}: {error.strerror}") from error
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


def _build_control_plane(settings: AgentSettings, http: aiohttp.ClientSession) -> ControlPlane:
    key, file = read_key(settings), find_key_file(settings)
    if file and file.stat().st_mode & 0o077:
        log.warning("%s can be read by others than its owner", file)
    credentials = Credentials(access_key=key.access_key_id, secret_key=key.secret_access_key)
    urls = [url.strip() for url in settings.control_plane.split(",")]
    return ControlPlane(http, urls, credentials, settings.region)


def _describe_machine(shared: Shared, drivers: Drivers) -> Registration:
    settings = shared.settings
    return Registration(
        clusters=settings.clusters,
        cpu_units=1024 * (os.cpu_count() or 1),
        memory_mib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (1024 * 1024),
        read_storage_gib=shared.room.capacity_gib,
        read_attributes=partial(
            read_attributes, drivers.enis.values(), drivers.logs, drivers.volumes.values()
        ),
        arn_file=settings.state_dir / ARN_FILE,
    )


def _find_tasks(supervisor: Supervisor) -> frozenset[str]:
    """Return the ids of all tasks that something may be left of."""
    return frozenset({run.plan.id for run in supervisor.runs()} | supervisor.unreadable.keys())


async def _prune_logs(shared: Shared, supervisor: Supervisor) -> None:
    while True:
        keep = _find_tasks(supervisor)
        for task_id in await prune_logs(
            shared.site.logs_dir, shared.settings.log_retention_s, keep
        ):
            log.info("removed the old logs of task %s", task_id, extra={"task": task_id})
        await asyncio.sleep(JANITOR_PERIOD_S)
