"""What an agent has made on this machine, taken back before its programs go.

In this order: the agent ends its tasks; when it has ended itself, what is still there is found by
name; at last, if wanted, the images go, with the containerd namespace that held them.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from fargate_agent.cli.clients.agent import Agent
from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.errors import ContainerdError
from fargate_agent.drivers import Driver, Sweeper
from fargate_agent.egress.session import Egress
from fargate_agent.findings import Findings
from fargate_agent.network.blocking import NetlinkError
from fargate_agent.network.flow_logs.accounting import Accounting
from fargate_agent.network.namespaces import socket_in_netns
from fargate_agent.runtime.secret_files import remove_tmpfs
from fargate_agent.settings import AgentSettings
from fargate_agent.site import make_site

DRAIN_TIMEOUT_S: Final = 150
"""More than the longest stop timeout, 120 s. Source: ECS API reference, `stopTimeout`."""
REPORT_TIMEOUT_S: Final = 10
"""How long the control plane may take to hear that the tasks have stopped."""
SERVED_TIMEOUT_S: Final = 10
"""How long containerd may take to answer."""
POLL_S: Final = 0.1

FAILURES: Final = (ContainerdError, NetlinkError)

Say = Callable[[str], None]


async def stop_tasks(socket: Path, say: Say) -> None:
    """Have the agent end its tasks, and report that they have ended.

    Raises:
        CliError: no agent answers, or some tasks don't end.
    """
    async with Agent(socket) as agent:
        if tasks := (await agent.health())["tasks"]:
            say(f"stopping tasks: {tasks}; each has its stop timeout, all have {DRAIN_TIMEOUT_S} s")
        await agent.drain(DRAIN_TIMEOUT_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(REPORT_TIMEOUT_S):
                while True:
                    if not (await agent.health())["tasks"]:
                        return
                    await asyncio.sleep(POLL_S)


async def sweep_machine(settings: AgentSettings, say: Say) -> None:
    """Take back what a stopped agent left: network namespaces, interfaces, NAT, containers, mounts.

    Mounts go in any case: who removes the state directory must not get through one of them.

    Raises:
        ContainerdError: containerd doesn't answer, or something of it is still there.
        OSError: the files of a task are still mounted.
    """
    from fargate_agent.composition import (  # all drivers, slow to import
        make_cni_settings,
        make_enis,
        make_firewall,
        make_netns,
    )

    try:
        with suppress(OSError):  # it costs little where it stays on
            Accounting(settings.state_dir).restore()
        netns, firewall = make_netns(settings, lambda: False), make_firewall(settings, Findings())
        enis = make_enis(
            netns.prepared,
            firewall,
            settings.state_dir,
            settings.netns_dir,
            Findings(),
            make_cni_settings(settings),
        ).values()
        await _sweep((*enis, netns, firewall), say)
        if settings.containerd_address.exists():
            async with _served(settings) as containerd:
                await _remove_containers(containerd, say)
    finally:
        await _unmount_volumes(settings, say)


async def purge_namespace(settings: AgentSettings, say: Say) -> None:
    """Remove the agent's containerd namespace and all that is in it.

    Raises:
        ContainerdError: containerd doesn't answer, or something of it is still there.
    """
    if not settings.containerd_address.exists():
        say(f"no containerd at {settings.containerd_address}: images are left alone")
        return
    async with _served(settings) as containerd:
        await _remove_containers(containerd, say)
        images = await containerd.images.list()
        for image in images:
            await containerd.images.delete(image.name, sync=False)
        await _collect_garbage(containerd)
        await containerd.remove_namespace()
    say(f"removed containerd namespace {settings.containerd_namespace}; images: {len(images)}")


async def _unmount_volumes(settings: AgentSettings, say: Say) -> None:
    """Unmount what is mounted in the directories of tasks; ephemeral volumes are removed."""
    from fargate_agent.composition import make_room, make_storage, make_volumes

    site = make_site(settings)
    room = make_room(settings, site)
    egress = Egress(socket_in_netns)
    volumes = make_volumes(settings, site, egress, room)
    await _sweep((*volumes.values(), make_storage(settings, site, room, Findings())), say)
    for directory in site.tasks_dir.glob("*"):
        await asyncio.to_thread(remove_tmpfs, directory)


async def _sweep(drivers: Iterable[Driver], say: Say) -> None:
    for driver in drivers:
        if isinstance(driver, Sweeper):
            for name in await driver.sweep(()):
                say(f"removed {name}")


@asynccontextmanager
async def _served(settings: AgentSettings) -> AsyncIterator[Containerd]:
    address = settings.containerd_address
    async with Containerd(address, settings.containerd_namespace) as containerd:
        try:
            async with asyncio.timeout(SERVED_TIMEOUT_S):
                await containerd.wait_until_served()
        except TimeoutError:
            raise ContainerdError(f"containerd at {address} doesn't answer") from None
        yield containerd


async def _remove_containers(containerd: Containerd, say: Say) -> None:
    for record in await containerd.containers.list():
        await containerd.processes.force_delete(record.id)
        await containerd.containers.delete(record.id)
        say(f"removed container {record.id}")
    for lease in await containerd.leases.list():
        await containerd.leases.delete(lease.id, sync=False)


async def _collect_garbage(containerd: Containerd) -> None:
    """Have containerd delete what nothing refers to, content and snapshots, and wait for it."""
    await containerd.leases.ensure("purge", {})
    await containerd.leases.delete("purge", sync=True)
