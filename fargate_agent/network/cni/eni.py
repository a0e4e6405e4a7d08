"""ENIs that CNI plugins make, as a network of the operator's says.

The plugins decide what the interface is, and are asked for the ENI's addresses and MAC. It is there
only once they are done, so security groups are enforced from then on; the containers of the task,
and the pull of its images, begin later.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from fargate_agent.drivers import EniDriver, Sweeper
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.network.cni.cache import Attachments, Held, unlock
from fargate_agent.network.cni.chain import ADD_TIMEOUT_S, Attachment, Chain
from fargate_agent.network.cni.conflist import ConflistError, find_conflist, list_conflists
from fargate_agent.network.cni.plugin import PluginError, find_program
from fargate_agent.network.lan import Guard
from fargate_agent.network.names import NETNS_PREFIX
from fargate_agent.network.namespaces import is_netns
from fargate_agent.network.netlink import Netlink
from fargate_agent.network.prepared import PreparedEnis
from fargate_agent.network.reasons import kernel_refusals
from fargate_agent.plan import EniPlan
from fargate_agent.threads import in_thread
from fargate_agent.wire.attributes import CNI_NETWORK, Attribute

LOCK_POLL_S: Final = 0.05
"""Only after a crash is there anything to wait for."""

log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CniSettings:
    """Where networks and their plugins are."""

    conf_dir: Path = Path("/etc/cni/net.d")
    bin_dirs: Sequence[Path] = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))


class CniEni(EniDriver, Sweeper):
    """Has plugins attach ENIs."""

    def __init__(
        self, prepared: PreparedEnis, guard: Guard, directory: Path, settings: CniSettings | None
    ) -> None:
        """`directory` is where attachments are written down; None: the usual places."""
        self._prepared = prepared
        self._guard = guard
        self._held = Attachments(directory)
        self._settings = settings or CniSettings()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Plugins do one thing at a time to a container. Source: CNI SPEC.md, section 3."""

    async def attach(self, eni: EniPlan, netns: Path) -> None:
        async with self._in_turn(netns):
            with _refusals(eni):
                held = await self._find(netns, eni.ifname)
                async with Netlink.open(netns) as task:
                    if held is not None and await self._is_there(held, eni, task):
                        await self._guard.guard_netns(eni, netns)
                        return
                    if held is not None:
                        await self._delete(held)
                    await self._add(await self._begin(eni, netns, task), eni, task)

    async def confirm(self, eni: EniPlan, netns: Path) -> None:
        """The plugins answer for the address."""

    async def update(self, eni: EniPlan, netns: Path) -> None:
        async with self._in_turn(netns):
            with _refusals(eni):
                held = await self._find(netns, eni.ifname)
                if held is not None and held.eni_id == eni.id and is_netns(netns):
                    async with Netlink.open(netns) as task:
                        if await task.find_link(eni.ifname) is not None:
                            await self._guard.guard_netns(eni, netns)

    async def detach(self, eni: EniPlan, netns: Path) -> None:
        async with self._in_turn(netns):
            with _refusals(eni):
                held = await self._find(netns, eni.ifname)
                if held is not None and held.eni_id == eni.id:
                    await self._delete(held)
                await self._guard.unguard_netns(eni, netns)

    async def sweep(self, kept: Collection[str]) -> list[str]:
        await asyncio.to_thread(self._held.tidy)
        names = {f"{NETNS_PREFIX}{task_id}" for task_id in kept}
        swept: list[str] = []
        networks = {}
        valid: dict[str, set[tuple[str, str]]] = {}
        for held in await asyncio.to_thread(lambda: list(self._held)):
            try:
                if held.container_id not in names:
                    await self._delete(held)
                    networks[held.network.name] = held.network
                    swept.append(f"{held.network.name} {held.eni_id}")
                    log.info("swept ENI %s of network %s", held.eni_id, held.network.name)
                    continue
            except (PluginError, OSError) as error:
                log.warning("could not sweep ENI %s: %s", held.eni_id, error)
            valid.setdefault(held.network.name, set()).add((held.container_id, held.ifname))
        for name, network in networks.items():
            chain = Chain(network=network, directories=self._settings.bin_dirs, runtime={})
            try:
                await chain.collect(valid.get(name, set()))
            except PluginError as error:
                log.warning("network %s: %s", name, error)
        return swept

    def read_attributes(self, root: Path) -> Iterator[Attribute]:
        """Name the networks whose plugins are there."""
        directories = [_below(root, one) for one in self._settings.bin_dirs]
        for network in list_conflists(_below(root, self._settings.conf_dir)):
            if all(find_program(directories, plugin) for plugin in network.plugins):
                yield Attribute(CNI_NETWORK + network.name)

    async def _find(self, netns: Path, ifname: str) -> Held | None:
        return await asyncio.to_thread(self._held.read, netns.name, ifname)

    async def _is_there(self, held: Held, eni: EniPlan, task: Netlink) -> bool:
        """Whether the interface is as its plugins made it, and the ENI's."""
        is_same = (held.eni_id, held.network.name) == (eni.id, eni.cni_network)
        if not is_same or held.result is None or await task.find_link(held.ifname) is None:
            return False
        try:
            async with self._locked(held) as chain:
                await chain.check(_attachment(held), held.result)
        except PluginError as error:
            log.warning("ENI %s is attached again: %s", held.eni_id, error)
            return False
        return True

    async def _begin(self, eni: EniPlan, netns: Path, task: Netlink) -> Held:
        """Write down what is going to be done; nothing of it has been."""
        network = await asyncio.to_thread(
            find_conflist, self._settings.conf_dir, eni.cni_network or ""
        )
        addresses = [str(one) for one in (eni.address, eni.ipv6_address) if one is not None]
        held = Held(
            eni_id=eni.id,
            container_id=netns.name,
            ifname=eni.ifname,
            netns=netns,
            # Plugins that don't know `ips` take the first address from here.
            args=f"IgnoreUnknown=1;IP={eni.address};MAC={eni.mac}",
            runtime={"ips": addresses, "mac": eni.mac},
            network=network,
            result=None,
        )
        await self._chain(held).status()
        await self._prepared.discard(netns)
        if await task.find_link(eni.ifname) is not None:
            raise ResourceInitializationError(
                f"ENI {eni.id}: the task has another interface named '{eni.ifname}'"
            )
        await in_thread(self._held.write, held)
        return held

    async def _add(self, held: Held, eni: EniPlan, task: Netlink) -> None:
        try:
            async with self._locked(held) as chain:
                result = await chain.add(_attachment(held))
            held = replace(held, result=result)
            await in_thread(self._held.write, held)
            await _check_link(held, eni, task)
            await self._guard.guard_netns(eni, held.netns)
            await _set_routes(eni, task)
        except BaseException:
            try:
                await self._delete(held)
            except (PluginError, OSError) as error:
                # It stays written down, for `detach` and the next sweep.
                log.warning("ENI %s: after ADD failed: %s", held.eni_id, error)
            raise

    async def _delete(self, held: Held) -> None:
        """Have the plugins remove what they made, or may have made; then forget it."""
        netns = held.netns if is_netns(held.netns) else None
        async with self._locked(held) as chain:
            await chain.delete(replace(_attachment(held), netns=netns), held.result)
            await in_thread(self._held.remove, held)

    @asynccontextmanager
    async def _locked(self, held: Held) -> AsyncIterator[Chain]:
        """Give the chain once plugins that an agent before was killed at have ended."""
        deadline = asyncio.get_running_loop().time() + ADD_TIMEOUT_S
        while (lock := self._held.try_lock(held)) is None:
            if asyncio.get_running_loop().time() > deadline:
                detail = f"plugins of an agent before still run after {ADD_TIMEOUT_S:g} s"
                raise PluginError(held.network.name, "wait", detail)
            await asyncio.sleep(LOCK_POLL_S)
        try:
            yield self._chain(held, lock)
        finally:
            unlock(lock)

    def _chain(self, held: Held, *inherited: int) -> Chain:
        return Chain(
            network=held.network,
            directories=self._settings.bin_dirs,
            runtime=held.runtime,
            inherited=inherited,
        )

    def _in_turn(self, netns: Path) -> asyncio.Lock:
        return self._turns.setdefault(netns.name, asyncio.Lock())


def _attachment(held: Held) -> Attachment:
    return Attachment(
        container_id=held.container_id, ifname=held.ifname, netns=held.netns, args=held.args
    )


async def _check_link(held: Held, eni: EniPlan, task: Netlink) -> None:
    link = await task.find_link(eni.ifname)
    if link is None:
        raise ResourceInitializationError(
            f"ENI {eni.id}: network {held.network.name} made no interface '{eni.ifname}'"
        )
    if link.mac != eni.mac:
        raise ResourceInitializationError(
            f"ENI {eni.id}: network {held.network.name} gave it MAC address {link.mac} instead of"
            f" {eni.mac}; use a plugin that takes mac, such as bridge or macvlan"
        )
    found = [one.ip for index, one in await task.addresses() if index == link.index]
    for wanted in (eni.address, eni.ipv6_address):
        if wanted is not None and wanted.ip not in found:
            same = [one for one in found if one.version == wanted.version and not one.is_link_local]
            given = f"address {', '.join(map(str, same))}" if same else "no address"
            raise ResourceInitializationError(
                f"ENI {eni.id}: network {held.network.name} gave it {given} instead of {wanted.ip};"
                " use an IPAM plugin that takes ips, such as static or host-local"
            )


async def _set_routes(eni: EniPlan, task: Netlink) -> None:
    """Have the default route lead to the ENI's gateways, where the plugins made none."""
    link = await task.get_link(eni.ifname)
    if not link.up:
        await task.set_up(link.index)
    gateways = [one for one in (eni.gateway, eni.ipv6_gateway) if one is not None and eni.primary]
    for gateway in gateways:
        if link.index not in await task.default_interfaces((gateway.version,)):
            await task.set_default_route(link.index, gateway)


@contextmanager
def _refusals(eni: EniPlan) -> Iterator[None]:
    with kernel_refusals(f"ENI {eni.id}"):
        try:
            yield
        except (PluginError, ConflistError) as error:
            raise ResourceInitializationError(f"ENI {eni.id}: {error}") from error


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")
