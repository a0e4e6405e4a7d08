"""An agent that is killed between any two netlink messages, and the one after it."""

import asyncio
import multiprocessing
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Interface, IPv6Network
from pathlib import Path

import pytest

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.network.metadata import MetadataNetns
from fargate_agent.network.names import ours_prefix
from fargate_agent.network.netns import KernelNetns
from fargate_agent.plan import EniPlan
from tests.fixtures import network_kills
from tests.fixtures.network import (
    MakeEni,
    MakeVeth,
    ask_caller,
    read_host_names,
    read_ip,
    remove_link,
    serve_caller,
)
from tests.fixtures.pulls import eventually

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("test_network")]

IPV6 = IPv6Network("fd00:213:4::/64")
MESSAGES = 60
"""More than any of it takes."""
STEPS = 500
SEED = 15


@pytest.fixture
def dual(make_eni: MakeEni) -> EniPlan:
    """An ENI with both versions of IP, in a VPC that is larger than its subnet."""
    return make_eni(
        ipv6_address=IPv6Interface((IPV6[5], 64)),
        ipv6_gateway=IPV6[1],
        vpc_cidr_blocks=(IPv4Network("10.213.0.0/17"),),
    )


def run_and_kill(what: str, eni: EniPlan, netns: Path, instance: str, sent_until: int) -> bool:
    """Whether a process was killed at what it does."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.fixtures.network_kills"])
    arguments = (what, eni, netns, instance, netns.parent.parent, sent_until)
    process = context.Process(target=network_kills.run, args=arguments)
    process.start()
    process.join()
    assert process.exitcode in (-signal.SIGKILL, network_kills.SURVIVED)
    return process.exitcode == -signal.SIGKILL


@pytest.mark.timeout(180)
@pytest.mark.parametrize("what", ["make and attach", "attach", "attach and detach"])
@pytest.mark.parametrize("is_attached", [True, False], ids=["attached again", "detached"])
async def test_the_next_agent_completes_or_takes_back_whatever_message_was_the_last(
    what: str,
    is_attached: bool,
    dual: EniPlan,
    tmp_path: Path,
    instance: str,
    netns_driver: KernelNetns,
    make_veth: MakeVeth,
) -> None:
    before, killed = read_routes(), True
    for sent_until in range(1, MESSAGES):
        netns = tmp_path / "netns" / f"fargate-{sent_until}"
        killed = await asyncio.to_thread(run_and_kill, what, dual, netns, instance, sent_until)
        async with make_veth() as veth:
            if is_attached:
                await netns_driver.ensure(netns)
                await veth.attach(dual, netns)
                for address in (dual.address.ip, IPV6[5]):
                    async with serve_caller(netns, address) as port:
                        assert await ask_caller(None, address, port)
            await veth.detach(dual, netns)
            await netns_driver.release(netns)
            await eventually(lambda: read_routes() == before)
            await eventually(lambda: read_links(instance) == set())
            await veth.sweep(())
        if not killed:
            break
    assert not killed
    assert sent_until > 2


Step = Callable[[EniPlan], Awaitable[None]]


class Life:
    """A machine on which agents come and go, and ENIs with them."""

    def __init__(self, netns_dir: Path, instance: str, make_veth: MakeVeth) -> None:
        self._netns_dir, self._instance, self._make_veth = netns_dir, instance, make_veth
        self._made: dict[str, Path] = {}
        self._chance = random.Random(SEED)
        self._begin()

    def _begin(self) -> None:
        self._driver = KernelNetns(self._instance, self._netns_dir, lambda: True)
        self._veth = self._make_veth(self._driver.prepared)

    async def close(self) -> None:
        await self._veth.sweep(())
        await self._close_agent()

    async def _close_agent(self) -> None:
        await self._veth.__aexit__()
        self._driver.prepared.close()

    async def attach(self, eni: EniPlan) -> None:
        netns = self._made.setdefault(eni.id, self._netns_dir / f"fargate-{eni.id}")
        await self._driver.ensure(netns)
        with suppress(ResourceInitializationError):  # a rival has the address
            await self._veth.attach(eni, netns)

    async def detach(self, eni: EniPlan) -> None:
        await self._veth.detach(eni, self._made.get(eni.id, self._netns_dir / "fargate-none"))

    async def end(self, eni: EniPlan) -> None:
        await self.detach(eni)
        await self.lose_netns(eni)

    async def lose_netns(self, eni: EniPlan) -> None:
        if netns := self._made.pop(eni.id, None):
            await self._driver.release(netns)

    async def lose_link(self, eni: EniPlan) -> None:
        for link in read_ip("link"):
            if link.get("ifalias", "").endswith(eni.id):
                remove_link(link["ifname"])  # it may be going just now

    async def die(self, _eni: EniPlan) -> None:
        """The next agent knows nothing of what this one has done."""
        await self._close_agent()
        self._begin()
        await self._veth.sweep([one.name.removeprefix("fargate-") for one in self._made.values()])

    async def cut_short(self, eni: EniPlan) -> None:
        """It is cancelled at some point."""
        job = asyncio.create_task(self._chance.choice((self.attach, self.detach))(eni))
        for _ in range(self._chance.randrange(6)):
            await asyncio.sleep(0)
        job.cancel()
        await asyncio.wait([job])

    async def go_on(self, enis: list[EniPlan]) -> None:
        """Do something to one of the ENIs."""
        steps: list[Step] = [*[self.attach] * 4, *[self.detach] * 2, *[self.end] * 2]
        steps += [self.lose_netns, self.lose_link, self.die, *[self.cut_short] * 2]
        await self._chance.choice(steps)(self._chance.choice(enis))


@pytest.mark.timeout(120)
async def test_any_sequence_leaves_the_host_as_it_was(
    make_eni: MakeEni,
    tmp_path: Path,
    instance: str,
    metadata_netns: MetadataNetns,
    make_veth: MakeVeth,
) -> None:
    enis = [make_eni() for _ in range(6)]
    for place in (7, 8):
        address = IPv6Interface((IPV6[place], 64))
        enis.append(make_eni(ipv6_address=address, ipv6_gateway=IPV6[1]))
    enis.append(make_eni(address=enis[0].address))  # a rival
    before = read_everything()
    life = Life(tmp_path / "netns", instance, make_veth)

    for _ in range(STEPS):
        await life.go_on(enis)
    for eni in enis:
        await life.end(eni)
    await life.close()

    await eventually(lambda: read_host_names(instance) == set())
    assert read_everything() == before


def read_routes() -> set[str]:
    """The routes of the host, of both versions of IP."""
    routes = [*read_ip("-4", "route"), *read_ip("-6", "route")]
    return {f"{route['dst']} {route.get('dev')} {route.get('metric')}" for route in routes}


def read_links(instance: str) -> set[str]:
    """The interfaces of an agent on the host."""
    names = {link["ifname"] for link in read_ip("link")}
    return {name for name in names if name.startswith(ours_prefix(instance))}


def read_everything() -> object:
    """What of the host's network an agent could have changed."""
    root = Path("/proc/sys/net")
    settings = {
        path: path.read_text()
        for version in ("ipv4", "ipv6")
        for path in (root / version / "conf").glob("*/*")
        if path.name != "stable_secret"  # can't be read before it is set
    }
    addresses = [link["addr_info"] for link in read_ip("address")]
    rules = [*read_ip("-4", "rule"), *read_ip("-6", "rule")]
    links = {link["ifname"] for link in read_ip("link")}
    return settings, addresses, rules, links, read_routes()
