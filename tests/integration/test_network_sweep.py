"""Whatever line an agent dies at, the next attach or the sweep puts it right."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fargate_agent.findings import Findings
from fargate_agent.network.bridge import Bridges
from fargate_agent.network.metadata import MetadataNetns
from fargate_agent.network.names import nat_table_name, veth_name
from fargate_agent.network.namespaces import is_netns
from fargate_agent.network.netns import KernelNetns
from fargate_agent.network.nftables import delete_tables, read_tables
from fargate_agent.network.veth import VethEni
from fargate_agent.plan import EniPlan
from tests.fixtures.network import (
    MakeEni,
    MakeNetns,
    ask_caller,
    read_host_names,
    run_ip,
    serve_caller,
)

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("test_network")]


@dataclass(frozen=True)
class Wreck:
    """What one ENI has on the host, to be damaged."""

    eni: EniPlan
    netns: Path
    bridge: str
    veth: str

    def remove_veth(self) -> None:
        run_ip("link", "del", self.veth)

    def remove_bridge(self) -> None:
        run_ip("link", "del", self.bridge)

    def remove_nat(self) -> None:
        delete_tables(nat_table_name(self.bridge))

    def remove_all_but_nat(self) -> None:
        self.remove_veth()
        self.remove_bridge()

    def strip_bridge(self) -> None:
        """As it is right after it was made."""
        self.remove_veth()
        self.remove_nat()
        run_ip("address", "flush", "dev", self.bridge)
        run_ip("link", "set", self.bridge, "down", "alias", "")

    def strip_bridge_of_address(self) -> None:
        run_ip("address", "flush", "dev", self.bridge)

    def strip_veth_of_alias(self) -> None:
        run_ip("link", "set", self.veth, "alias", "")

    def strip_interface(self) -> None:
        """As it is right after it was made."""
        run_ip("address", "flush", "dev", "eth1", netns=self.netns)
        run_ip("link", "set", "eth1", "down", netns=self.netns)
        self.strip_veth_of_alias()

    def strip_interface_of_route(self) -> None:
        run_ip("route", "del", "default", netns=self.netns)


WRECKS = [
    Wreck.remove_veth,
    Wreck.remove_bridge,
    Wreck.remove_nat,
    Wreck.remove_all_but_nat,
    Wreck.strip_bridge,
    Wreck.strip_bridge_of_address,
    Wreck.strip_veth_of_alias,
    Wreck.strip_interface,
    Wreck.strip_interface_of_route,
]
wrecked = pytest.mark.parametrize("damage", WRECKS, ids=lambda damage: damage.__name__)


async def sweep(instance: str, netns_dir: Path, *kept: str) -> list[str]:
    """Do what an agent does at its start, of which these tasks are known."""
    netns = KernelNetns(instance, netns_dir, lambda: True)
    veth = VethEni(Bridges(instance, Findings()))
    return [*await netns.sweep(kept), *await veth.sweep(kept)]


@pytest.fixture
async def wreck(eni: EniPlan, netns: Path, veth: VethEni, instance: str) -> Wreck:
    await veth.attach(eni, netns)
    (bridge,) = [n for n in read_host_names(instance) if n[6:7] == "b" and len(n) == 15]
    return Wreck(eni, netns, bridge, veth_name(instance, eni.id))


@wrecked
async def test_attach_completes_what_was_left_half_way(
    damage: Callable[[Wreck], None], wreck: Wreck, veth: VethEni
) -> None:
    damage(wreck)

    await veth.attach(wreck.eni, wreck.netns)

    async with serve_caller(None, wreck.eni.gateway) as port:
        caller = await ask_caller(wreck.netns, wreck.eni.gateway, port)
    assert caller == str(wreck.eni.address.ip)
    assert nat_table_name(wreck.bridge) in read_tables()
    await veth.detach(wreck.eni, wreck.netns)


@wrecked
async def test_detach_removes_what_was_left_half_way(
    damage: Callable[[Wreck], None], wreck: Wreck, veth: VethEni, instance: str
) -> None:
    damage(wreck)

    await veth.detach(wreck.eni, wreck.netns)

    assert read_host_names(instance) == set()


@wrecked
async def test_sweep_removes_what_was_left_half_way(
    damage: Callable[[Wreck], None], wreck: Wreck, instance: str
) -> None:
    damage(wreck)

    swept = await sweep(instance, wreck.netns.parent)

    assert wreck.netns.name in swept
    assert read_host_names(instance) == set()
    assert list(wreck.netns.parent.iterdir()) == []


async def test_sweep_leaves_the_tasks_that_are_to_be_kept(
    wreck: Wreck,
    veth: VethEni,
    make_eni: MakeEni,
    make_netns: MakeNetns,
    metadata_netns: MetadataNetns,
    instance: str,
) -> None:
    dead, dead_netns = make_eni(), await make_netns()
    await veth.attach(dead, dead_netns)

    task_id = wreck.netns.name.removeprefix("fargate-")
    swept = await sweep(instance, wreck.netns.parent, task_id)

    assert swept == [dead_netns.name, veth_name(instance, dead.id)]
    metadata_netns.bind(wreck.netns).close()
    async with serve_caller(None, wreck.eni.gateway) as port:
        assert await ask_caller(wreck.netns, wreck.eni.gateway, port)
    await veth.detach(wreck.eni, wreck.netns)


async def test_sweep_leaves_what_another_agent_made(
    wreck: Wreck, veth: VethEni, instance: str
) -> None:
    mine = read_host_names(instance)

    swept = await sweep("another", wreck.netns.parent)

    assert swept == []
    assert is_netns(wreck.netns)
    assert read_host_names(instance) == mine
    await veth.detach(wreck.eni, wreck.netns)


async def test_sweep_removes_an_empty_file_and_leaves_foreign_names(
    tmp_path: Path, instance: str
) -> None:
    for name in ("fargate-left", "somebody-elses"):
        (tmp_path / name).touch()

    assert await sweep(instance, tmp_path) == ["fargate-left"]
    assert [path.name for path in tmp_path.iterdir()] == ["somebody-elses"]


async def test_a_stale_pair_of_a_lost_namespace_is_replaced(
    wreck: Wreck, veth: VethEni, netns_driver: KernelNetns
) -> None:
    async with serve_caller(wreck.netns, wreck.eni.address.ip):  # keeps the lost one alive
        await netns_driver.release(wreck.netns)
        await netns_driver.ensure(wreck.netns)

        await veth.attach(wreck.eni, wreck.netns)

        async with serve_caller(None, wreck.eni.gateway) as port:
            assert await ask_caller(wreck.netns, wreck.eni.gateway, port)
    await veth.detach(wreck.eni, wreck.netns)
