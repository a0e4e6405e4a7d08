"""An agent that is killed between any two steps of a CNI network, and the one after it."""

import asyncio
import multiprocessing
import os
import signal
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from fargate_agent.network.cni.cache import Attachments
from fargate_agent.network.cni.eni import CniEni, CniSettings
from fargate_agent.network.netns import KernelNetns
from fargate_agent.plan import EniPlan
from fargate_agent.wire.eni_kinds import EniKind
from tests.fixtures import cni_kills
from tests.fixtures.cni import NETWORK, bridge_name, list_leases, write_network
from tests.fixtures.network import MakeEni, OpenFirewall, read_ip, remove_link

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("test_network", "forwarding_put_back")]

STEPS = 60
"""More than any of it takes."""


@pytest.fixture
def settings(tmp_path: Path, subnet: IPv4Network) -> CniSettings:
    return write_network(tmp_path, subnet)


@pytest.fixture
def eni(make_eni: MakeEni) -> EniPlan:
    return make_eni(kind=EniKind.CNI, cni_network=NETWORK)


def run_and_kill(
    what: str, eni: EniPlan, netns: Path, instance: str, settings: CniSettings, killed_at: int
) -> bool:
    """Whether a process was killed at what it does."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.fixtures.cni_kills"])
    arguments = (what, eni, netns, instance, settings, killed_at)
    process = context.Process(target=cni_kills.run, args=arguments)
    process.start()
    process.join()
    assert process.exitcode in (-signal.SIGKILL, cni_kills.SURVIVED)
    return process.exitcode == -signal.SIGKILL


def make_driver(netns_driver: KernelNetns, directory: Path, settings: CniSettings) -> CniEni:
    return CniEni(netns_driver.prepared, OpenFirewall(), directory / "attachments", settings)


def assert_nothing_is_left(directory: Path, netns: Path) -> None:
    bridge = bridge_name(directory)
    links = [link["ifname"] for link in read_ip("link")]
    ports = read_ip("link", "show", "master", bridge) if bridge in links else []
    assert ports == []
    assert "eth1" not in [link["ifname"] for link in read_ip("link", netns=netns)]
    assert list_leases(directory) == []
    assert list((directory / "attachments").glob("*")) == []


@pytest.mark.timeout(180)
@pytest.mark.parametrize("what", ["attach", "detach"])
@pytest.mark.parametrize("then", ["attach", "detach", "sweep"])
async def test_the_next_agent_completes_or_takes_back_whatever_step_was_the_last(
    what: str,
    then: str,
    eni: EniPlan,
    tmp_path: Path,
    instance: str,
    netns_driver: KernelNetns,
    settings: CniSettings,
) -> None:
    killed, killed_at = True, 0
    try:
        while killed and killed_at < STEPS:
            killed_at += 1
            netns = tmp_path / "netns" / f"fargate-{killed_at}"
            await netns_driver.ensure(netns)
            await netns_driver.prepared.discard(netns)
            killed = await asyncio.to_thread(
                run_and_kill, what, eni, netns, instance, settings, killed_at
            )
            successor = make_driver(netns_driver, tmp_path, settings)
            if then == "attach":
                await successor.sweep((str(killed_at),))
                await successor.attach(eni, netns)
                assert read_ip("link", "show", "eth1", netns=netns)
                assert list_leases(tmp_path) == [str(eni.address.ip)]
            if then == "sweep":
                await successor.sweep(())
            else:
                await successor.detach(eni, netns)
                await successor.sweep(())
            assert_nothing_is_left(tmp_path, netns)
            await netns_driver.release(netns)
    finally:
        remove_link(bridge_name(tmp_path))
    assert not killed
    assert killed_at > 4


async def test_a_plugin_that_outlives_its_agent_is_waited_for(
    eni: EniPlan,
    netns: Path,
    tmp_path: Path,
    instance: str,
    netns_driver: KernelNetns,
    settings: CniSettings,
) -> None:
    programs, go_on = tmp_path / "bin", tmp_path / "go-on"
    programs.mkdir()
    os.mkfifo(go_on)
    program = programs / "bridge"
    program.write_text(
        f"#!/bin/sh\n[ $CNI_COMMAND = ADD ] && kill -9 $PPID && read _ <{go_on}\n"
        "exec /usr/lib/cni/bridge\n"
    )
    program.chmod(0o755)
    slow = CniSettings(conf_dir=settings.conf_dir, bin_dirs=(programs, *CniSettings().bin_dirs))
    await netns_driver.prepared.discard(netns)
    try:
        assert await asyncio.to_thread(
            run_and_kill, "attach", eni, netns, instance, slow, killed_at=STEPS * 10
        )
        (held,) = Attachments(tmp_path / "attachments")
        assert held.result is None
        sweep = asyncio.create_task(make_driver(netns_driver, tmp_path, slow).sweep(()))
        await asyncio.wait([sweep], timeout=0.5)  # it would have removed nothing by then
        assert not sweep.done()
        go_on.write_text("go on\n")
        assert await sweep == [f"{NETWORK} {eni.id}"]
        assert_nothing_is_left(tmp_path, netns)
    finally:
        remove_link(bridge_name(tmp_path))
