"""Whatever line an agent dies at, the next attach or the sweep puts it right."""

import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fargate_agent.network.metadata import MetadataNetns
from fargate_agent.network.names import first_rule_priority, ours_prefix, routing_table
from fargate_agent.network.namespaces import is_netns
from fargate_agent.network.netns import KernelNetns
from fargate_agent.network.prepared import PreparedEnis
from fargate_agent.network.veth import VethEni
from fargate_agent.plan import EniPlan
from tests.fixtures.network import (
    MakeEni,
    MakeNetns,
    MakeVeth,
    ask_caller,
    read_host_names,
    read_ip,
    read_rules,
    run_ip,
    serve_caller,
)
from tests.fixtures.pulls import eventually

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("test_network")]


@dataclass(frozen=True)
class Wreck:
    """What one ENI has on the host, to be damaged."""

    eni: EniPlan
    netns: Path
    veth: str
    instance: str

    def remove_veth(self) -> None:
        run_ip("link", "del", self.veth)

    def remove_route(self) -> None:
        run_ip("route", "del", str(self.eni.address.ip))

    def remove_unreachable(self) -> None:
        network, table = str(self.eni.address.network), str(routing_table(self.instance))
        run_ip("route", "del", "unreachable", network, "table", table)

    def remove_rule(self) -> None:
        """That which refuses."""
        run_ip("rule", "del", "priority", str(first_rule_priority(self.instance) + 2))

    def remove_exceptions(self) -> None:
        """The rules that let others pass, so that this machine is refused too."""
        first = first_rule_priority(self.instance)
        run_ip("rule", "del", "priority", str(first))
        run_ip("rule", "del", "priority", str(first + 1))

    def strip_veth_of_gateway(self) -> None:
        run_ip("address", "flush", "dev", self.veth)

    def strip_veth_of_alias(self) -> None:
        run_ip("link", "set", self.veth, "alias", "")

    def switch_veth_off(self) -> None:
        run_ip("link", "set", self.veth, "down")

    def strip_both(self) -> None:
        """As the pair is when it is prepared."""
        self.strip_interface()
        self.strip_veth_of_gateway()
        self.switch_veth_off()

    def strip_interface(self) -> None:
        run_ip("address", "flush", "dev", "eth1", netns=self.netns)
        run_ip("link", "set", "eth1", "down", netns=self.netns)
        self.strip_veth_of_alias()

    def strip_interface_of_route(self) -> None:
        run_ip("route", "del", "default", netns=self.netns)


WRECKS = [
    Wreck.remove_veth,
    Wreck.remove_route,
    Wreck.remove_unreachable,
    Wreck.remove_rule,
    Wreck.remove_exceptions,
    Wreck.strip_veth_of_gateway,
    Wreck.strip_veth_of_alias,
    Wreck.switch_veth_off,
    Wreck.strip_both,
    Wreck.strip_interface,
    Wreck.strip_interface_of_route,
]
wrecked = pytest.mark.parametrize("damage", WRECKS, ids=lambda damage: damage.__name__)
Sweep = Callable[..., Awaitable[list[str]]]
ages = pytest.mark.parametrize("is_new", [False, True], ids=["the same agent", "the next agent"])


@pytest.fixture
def sweep(netns: Path, make_veth: MakeVeth) -> Sweep:
    """Do what an agent does at its start, of which these tasks are known."""

    async def sweep(instance: str, *kept: str) -> list[str]:
        driver = KernelNetns(instance, netns.parent, lambda: True)
        async with make_veth(PreparedEnis(instance, "eth1")) as veth:
            return [*await driver.sweep(kept), *await veth.sweep(kept)]

    return sweep


@pytest.fixture
async def wreck(eni: EniPlan, netns: Path, veth: VethEni, instance: str) -> Wreck:
    await veth.attach(eni, netns)
    (end,) = [link for link in read_ip("link") if link.get("ifalias", "").endswith(eni.id)]
    return Wreck(eni, netns, end["ifname"], instance)


async def is_reached(eni: EniPlan, netns: Path) -> bool:
    """Whether the host reaches a task, from the gateway's address."""
    async with serve_caller(netns, eni.address.ip) as port:
        return await ask_caller(None, eni.address.ip, port) == str(eni.gateway)


@wrecked
@ages
async def test_attach_completes_what_was_left_half_way(
    damage: Callable[[Wreck], None],
    is_new: bool,
    wreck: Wreck,
    veth: VethEni,
    make_veth: MakeVeth,
    instance: str,
) -> None:
    damage(wreck)

    async with make_veth() as successor:
        await (successor if is_new else veth).attach(wreck.eni, wreck.netns)

        assert await is_reached(wreck.eni, wreck.netns)
        assert str(wreck.eni.address.network) in read_host_names(instance)
        assert len(read_rules(instance)) == 4
        (default,) = read_ip("route", "show", "default", netns=wreck.netns)
        assert default["gateway"] == str(wreck.eni.gateway)
        await (successor if is_new else veth).detach(wreck.eni, wreck.netns)


@wrecked
@ages
async def test_detach_removes_what_was_left_half_way(
    damage: Callable[[Wreck], None],
    is_new: bool,
    wreck: Wreck,
    veth: VethEni,
    make_veth: MakeVeth,
    netns_driver: KernelNetns,
    instance: str,
) -> None:
    damage(wreck)

    async with make_veth() as successor:
        await (successor if is_new else veth).detach(wreck.eni, wreck.netns)

    await netns_driver.release(wreck.netns)
    await eventually(lambda: read_host_names(instance) == set())


@wrecked
async def test_sweep_removes_what_was_left_half_way(
    damage: Callable[[Wreck], None], wreck: Wreck, instance: str, sweep: Sweep
) -> None:
    damage(wreck)

    swept = await sweep(instance)

    assert wreck.netns.name in swept
    await eventually(lambda: read_host_names(instance) == set())
    assert list(wreck.netns.parent.iterdir()) == []


async def test_sweep_leaves_the_tasks_that_are_to_be_kept(
    wreck: Wreck,
    veth: VethEni,
    make_eni: MakeEni,
    make_netns: MakeNetns,
    metadata_netns: MetadataNetns,
    instance: str,
    sweep: Sweep,
) -> None:
    dead, dead_netns = make_eni(), await make_netns()
    await veth.attach(dead, dead_netns)

    swept = await sweep(instance, wreck.netns.name.removeprefix("fargate-"))

    assert dead_netns.name in swept
    metadata_netns.bind(wreck.netns).close()
    assert await is_reached(wreck.eni, wreck.netns)
    assert [route for route in read_ip("route") if route["dst"] == str(dead.address.ip)] == []
    await veth.detach(wreck.eni, wreck.netns)


async def test_sweep_leaves_what_another_agent_made(
    wreck: Wreck, veth: VethEni, instance: str, sweep: Sweep
) -> None:
    mine = read_host_names(instance)

    swept = await sweep("another")

    assert swept == []
    assert is_netns(wreck.netns)
    assert read_host_names(instance) == mine
    await veth.detach(wreck.eni, wreck.netns)


async def test_sweep_removes_an_empty_file_and_leaves_foreign_names(
    tmp_path: Path, instance: str
) -> None:
    for name in ("fargate-left", "somebody-elses"):
        (tmp_path / name).touch()

    assert await KernelNetns(instance, tmp_path, lambda: True).sweep(()) == ["fargate-left"]
    assert [path.name for path in tmp_path.iterdir()] == ["somebody-elses"]


async def test_a_stale_pair_of_a_lost_namespace_is_replaced(
    wreck: Wreck, veth: VethEni, netns_driver: KernelNetns
) -> None:
    async with serve_caller(wreck.netns, wreck.eni.address.ip):  # keeps the lost one alive
        await netns_driver.release(wreck.netns)
        await netns_driver.ensure(wreck.netns)

        await veth.attach(wreck.eni, wreck.netns)

        assert await is_reached(wreck.eni, wreck.netns)
    await veth.detach(wreck.eni, wreck.netns)


async def test_a_task_on_a_bridge_of_an_older_agent_is_taken_off_it(
    eni: EniPlan, make_eni: MakeEni, make_netns: MakeNetns, make_veth: MakeVeth, instance: str
) -> None:
    """The last one takes the bridge and its NAT along."""
    tasks = [(one, await make_netns()) for one in (eni, make_eni())]
    bridge = f"{ours_prefix(instance)}baaaaaaaa"
    length = eni.address.network.prefixlen
    run_ip("link", "add", bridge, "type", "bridge")
    run_ip("link", "set", bridge, "up", "alias", f"fargate:{instance}")
    run_ip("address", "add", f"{eni.gateway}/{length}", "dev", bridge)
    for family in ("ip", "ip6"):
        subprocess.run(["nft", "add", "table", family, f"fargate-{bridge}"], check=True)
    for number, (one, netns) in enumerate(tasks):
        end = f"{ours_prefix(instance)}v{'b' * 7}{number}"
        run_ip("link", "del", "eth1", netns=netns)
        inside = ("peer", "name", "eth1", "netns", str(netns), "address", one.mac)
        run_ip("link", "add", end, "mtu", "1500", "type", "veth", *inside)
        alias = f"fargate:{instance}:{netns.name}:{one.id}"
        run_ip("link", "set", end, "master", bridge, "alias", alias, "up")
        run_ip("link", "set", "eth1", "up", netns=netns)
        run_ip("address", "add", str(one.address), "dev", "eth1", netns=netns)
        run_ip("route", "add", "default", "via", str(one.gateway), netns=netns)

    async with make_veth() as veth:
        for one, netns in tasks:
            assert bridge in read_host_names(instance)
            await veth.attach(one, netns)
            assert await is_reached(one, netns)

        assert not {bridge, f"fargate-{bridge}"} & read_host_names(instance)
        async with serve_caller(tasks[1][1], tasks[1][0].address.ip) as port:
            caller = await ask_caller(tasks[0][1], tasks[1][0].address.ip, port)
        assert caller == str(eni.address.ip)
        (link,) = read_ip("link", "show", "eth1", netns=tasks[0][1])
        assert "NOARP" in link["flags"]
        for one, netns in tasks:
            await veth.detach(one, netns)
        await veth.sweep(())
