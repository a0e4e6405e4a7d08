"""The plugins `ecs-bridge` and `ecs-ipam`, called by runtimes that others have written."""

import json
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tests.fixtures.cni_runtimes import (
    COMMAND_S,
    NETWORK,
    SERVE,
    SUBNET,
    WORD,
    RuntimeMachine,
)
from tests.fixtures.machine import wait_for
from tests.fixtures.network import IPAddress, open_tcp

pytestmark = pytest.mark.root

PROXY = {"type": "aws-appmesh", "ignoredUID": "1337", "proxyEgressPort": "15001"}


def fetch(netns: Path, address: IPAddress) -> str:
    """Ask a container, which may just be starting, for its page; return what it says."""
    said = b""

    def is_told() -> bool:
        nonlocal said
        with open_tcp(netns, address) as connection:
            connection.settimeout(COMMAND_S)
            try:
                connection.connect((str(address), 80))
            except ConnectionRefusedError:
                return False
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            said = connection.makefile("rb").read()
        return True

    wait_for(is_told, f"{address} to serve", COMMAND_S)
    return said.decode()


def await_clean(machine: RuntimeMachine) -> None:
    wait_for(machine.is_clean, "the runtime to detach the container", COMMAND_S)


@pytest.mark.parametrize("version", ["0.3.0", "1.0.0"])
def test_podman_runs_a_container(runtime_machine: RuntimeMachine, version: str) -> None:
    machine = runtime_machine
    machine.write_network(version)
    run = ("podman", "run", "--detach", "--network", NETWORK, "--rootfs", machine.rootfs)
    container_id = machine.run(*run, *SERVE)

    state = json.loads(machine.run("podman", "inspect", container_id))[0]
    network = state["NetworkSettings"]["Networks"][NETWORK]
    address = IPv4Address(network["IPAddress"])
    assert machine.list_leases() == [str(address)]
    assert len(machine.list_ports()) == 1
    assert network["Gateway"] == str(SUBNET[1])
    routes = machine.run("podman", "exec", container_id, "/bin/busybox", "ip", "route")
    assert f"169.254.170.2 via {SUBNET[1]} dev eth0" in routes
    link = machine.run("podman", "exec", container_id, "/bin/busybox", "ip", "link", "show", "eth0")
    assert network["MacAddress"] in link
    assert WORD in fetch(machine.netns, address)

    machine.run("podman", "kill", container_id)  # what conmon starts then does the rest
    await_clean(machine)
    machine.run("podman", "rm", "--force", container_id)


def test_podman_runs_containers_with_a_proxy(runtime_machine: RuntimeMachine) -> None:
    machine = runtime_machine
    machine.write_network("1.0.0", PROXY)
    run = ("podman", "run", "--detach", "--network", NETWORK, "--rootfs", machine.rootfs)
    started = [machine.run(*run, *SERVE) for _ in range(2)]

    leases = machine.list_leases()
    assert len(leases) == 2
    for container_id in started:
        pid = machine.run("podman", "inspect", "--format", "{{.State.Pid}}", container_id)
        ruleset = machine.run("nsenter", f"--target={pid}", "--net", "nft", "list", "ruleset")
        assert f"redirect to :{PROXY['proxyEgressPort']}" in ruleset
    for lease in leases:
        assert WORD in fetch(machine.netns, IPv4Address(lease))
    machine.run("podman", "rm", "--force", "--time", "0", started[0])
    assert machine.list_leases() == leases[1:]
    machine.run("podman", "rm", "--force", "--time", "0", started[1])
    await_clean(machine)


@pytest.mark.parametrize("version", ["0.3.0", "1.0.0"])
def test_ctr_runs_a_container(
    runtime_machine: RuntimeMachine, machine_containerd: Path, version: str
) -> None:
    machine = runtime_machine
    machine.write_network(version)
    ctr = ("ctr", "--address", str(machine_containerd), "--namespace", "tests")
    run = ("run", "--cni", "--rm", "--cgroup", "", "--rootfs", str(machine.rootfs), "web")
    with subprocess.Popen([*machine.enter, *ctr, *run, *SERVE]) as running:
        wait_for(lambda: len(machine.list_ports()) == 1, "ctr to attach the container", COMMAND_S)
        (lease,) = machine.list_leases()
        assert WORD in fetch(machine.netns, IPv4Address(lease))

        machine.run(*ctr, "tasks", "kill", "--signal", "SIGKILL", "web")
        running.wait(timeout=COMMAND_S)
    assert machine.is_clean()
    assert machine.run(*ctr, "containers", "list", "--quiet") == ""
