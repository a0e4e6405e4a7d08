"""Composition root: puts the control plane together and serves it."""

import asyncio
import fcntl
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Middleware
from sqlalchemy import select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from fargate_agent.bad_requests import leave_out_bad_requests
from fargate_agent.controlplane.access.auth import Authenticator
from fargate_agent.controlplane.access.keyring import Keyring
from fargate_agent.controlplane.access.keys import Key, ensure_keys
from fargate_agent.controlplane.agents.acs import Sessions
from fargate_agent.controlplane.agents.capacity import RegisteredAgents, keep_warm
from fargate_agent.controlplane.agents.connections import watch_agents
from fargate_agent.controlplane.api import ApiServer
from fargate_agent.controlplane.clusters.clusters import ensure_cluster
from fargate_agent.controlplane.errors import NotNowError, StartError
from fargate_agent.controlplane.history.followers import ensure_followers, follow_events
from fargate_agent.controlplane.history.retention import forget_the_old
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.peers import Peers
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.roles.kept import TaskRoles
from fargate_agent.controlplane.roles.minting import Mint
from fargate_agent.controlplane.services import scheduler
from fargate_agent.controlplane.settings import ControlPlaneSettings
from fargate_agent.controlplane.state.announcements import Announcements
from fargate_agent.controlplane.state.model import Cluster
from fargate_agent.controlplane.state.store import Store, open_store
from fargate_agent.controlplane.telemetry.metrics import PlaneMetrics
from fargate_agent.controlplane.validate import service_model
from fargate_agent.controlplane.vpc.seeding import ensure_vpc
from fargate_agent.files import replace_file
from fargate_agent.measures.lag import watch_lag
from fargate_agent.measures.listener import listening
from fargate_agent.measures.log_lines import LogLines
from fargate_agent.parallel import first_of
from fargate_agent.systemd import Notifier

log = logging.getLogger(__name__)
leave_out_bad_requests(log)

DATABASE_DEADLINE_S: Final = 5
"""A read takes a millisecond; one that takes longer is stuck."""

SHUTDOWN_TIMEOUT_S: Final = 5
"""How long requests that are being answered have when the control plane ends."""


@contextmanager
def prepare(settings: ControlPlaneSettings) -> Iterator[Mapping[str, Key]]:
    """Hold the state directory, and give the keys. Blocks: call it before there is an event loop.

    Raises:
        StartError: the state directory or the keys can't be had, or the keys are to be those of
            another control plane.
    """
    with _hold(settings.state_dir):
        _endpoint(settings).unlink(missing_ok=True)
        service_model()
        if not settings.keys_path.exists():
            asyncio.run(_check_first(settings))
        yield ensure_keys(settings.keys_path)


async def _check_first(settings: ControlPlaneSettings) -> None:
    """Return if keys may be made: no other control plane has used the database with its own.

    Raises:
        StartError: one has, so its agents and clients would be refused here.
    """
    url = make_url(settings.database_url)
    if url.get_backend_name() == "sqlite":
        return
    async with open_store(url, Announcements()) as store, store.read() as session:
        if await session.scalar(select(Cluster.name).limit(1)) is not None:
            raise StartError(
                f"{settings.keys_path}: not there, but the database is in use already: copy the"
                " file from another control plane that uses it"
            )


async def serve_until_signal(
    settings: ControlPlaneSettings,
    keys: Mapping[str, Key],
    ready: Callable[[str], None],
    notifier: Notifier,
) -> None:
    """Serve until SIGTERM or SIGINT; see `serve`."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, keys, stop, ready, notifier)


async def serve(
    settings: ControlPlaneSettings,
    keys: Mapping[str, Key],
    stop: asyncio.Event,
    ready: Callable[[str], None],
    notifier: Notifier,
) -> None:
    """Serve until `stop` is set; `ready` is called with the URL.

    Raises:
        StartError: the database or the port can't be had.
    """
    async with AsyncExitStack() as stack:
        url, announcements = make_url(settings.database_url), Announcements()
        plane = Plane(
            settings=settings,
            arns=Arns(settings.region, settings.account),
            store=await stack.enter_async_context(open_store(url, announcements)),
            announcements=announcements,
            started_at=time.time(),
        )
        http = await stack.enter_async_context(aiohttp.ClientSession())
        sessions = Sessions(plane, TaskRoles(Mint(http, settings)))
        await _ensure_default_cluster(plane.settings, plane.store)
        await ensure_vpc(plane.settings, plane.store)
        await ensure_followers(plane.settings, plane.store)
        api = ApiServer(
            plane, sessions, Authenticator(Keyring(settings.keys_path, keys), settings.region)
        )
        served = await stack.enter_async_context(
            _listen(api, sessions, settings, plane.figures.counting())
        )
        await stack.enter_async_context(_listen_for_metrics(plane, sessions))
        await asyncio.to_thread(replace_file, _endpoint(settings), f"{served}\n")
        ready(served)
        notifier.status(f"serving {served}")
        notifier.ready()
        await first_of(
            _wait(stop),
            watch_agents(plane, sessions.renew),
            keep_warm(plane, RegisteredAgents()),
            forget_the_old(plane.settings, plane.store),
            scheduler.run(plane),
            notifier.keep_alive(partial(_find_fault, plane.store)),
            *follow_events(plane),
            *([] if settings.metrics_listen is None else [watch_lag(plane.figures.lag)]),
            *_relays(url, announcements),
            *([] if plane.store.reserve is None else [plane.store.reserve.serve()]),
        )
        notifier.stopping()


def _relays(url: URL, announcements: Announcements) -> list[Coroutine[Any, Any, None]]:
    """With SQLite there is no other process to hear of."""
    if url.get_backend_name() == "sqlite":
        return []
    from fargate_agent.controlplane.state.postgres import relay_announcements

    return [relay_announcements(url, announcements)]


def _endpoint(settings: ControlPlaneSettings) -> Path:
    return settings.state_dir / "endpoint"


async def _find_fault(store: Store) -> str | None:
    """Say why the control plane couldn't answer now; None if it could."""
    try:
        async with asyncio.timeout(DATABASE_DEADLINE_S), store.read() as session:
            await session.execute(select(Cluster.name).limit(1))
    except (SQLAlchemyError, TimeoutError) as error:
        return f"the database doesn't answer: {error!r}"
    return None


async def _wait(stop: asyncio.Event) -> None:
    await stop.wait()


@contextmanager
def _hold(state_dir: Path) -> Iterator[None]:
    """Keep a second control plane off the state directory."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NotNowError(f"state_dir {state_dir}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StartError(f"state_dir {state_dir}: another control plane uses it") from error
    try:
        yield
    finally:
        os.close(descriptor)


async def _ensure_default_cluster(settings: ControlPlaneSettings, store: Store) -> None:
    async with store.write() as session:
        await ensure_cluster(session, settings.cluster)


@asynccontextmanager
async def _listen(
    api: ApiServer, sessions: Sessions, settings: ControlPlaneSettings, counting: Middleware
) -> AsyncIterator[str]:
    async def close_sessions(_: web.Application) -> None:
        await sessions.close()

    peers = Peers(settings.max_connections_per_peer)
    application = api.application(counting, peers.answering)
    application.on_shutdown.append(close_sessions)
    runner = web.AppRunner(
        application, access_log=None, logger=log, shutdown_timeout=SHUTDOWN_TIMEOUT_S
    )
    await runner.setup()
    try:
        async with _open_server(settings.listen, peers.watch(_require(runner.server))) as url:
            yield url
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _listen_for_metrics(plane: Plane, sessions: Sessions) -> AsyncIterator[None]:
    """Answer Prometheus while the body runs, if that is wanted."""
    listen = plane.settings.metrics_listen
    async with AsyncExitStack() as stack:
        if listen is not None:
            lines = stack.enter_context(LogLines())
            metrics = PlaneMetrics(plane, lambda: len(sessions), lines.counts)
            try:
                await stack.enter_async_context(listening(listen, metrics.render))
            except OSError as error:
                raise NotNowError(f"metrics_listen {listen}: {error.strerror}") from error
        yield


def _require(server: web.Server | None) -> web.Server:
    if server is None:
        raise RuntimeError("aiohttp has set up no server")
    return server


@asynccontextmanager
async def _open_server(listen: str, make: Callable[[], asyncio.Protocol]) -> AsyncIterator[str]:
    """Accept connections while the body runs; give the URL."""
    parts = urlsplit(listen)
    host = parts.hostname or ""
    try:
        server = await asyncio.get_running_loop().create_server(make, host, parts.port)
    except OSError as error:
        raise NotNowError(f"listen {listen}: {error.strerror}") from error
    try:
        port = server.sockets[0].getsockname()[1]
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        server.close()
