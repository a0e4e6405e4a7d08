"""Pull and unpack of an image of 4 layers and 200 MB from a local registry."""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.rig import Rig, new_task, rig, run

ROUNDS = 8
LAYERS = 4
LAYER_BYTES = 62_500_000
SUBNET = "10.190.0"
REGISTRY = f"{SUBNET}.1:5000"
IMAGE = f"{REGISTRY}/bench:1"


async def measure(root: Path) -> None:
    """Print medians and the ratio."""
    with _registry(root) as parent:
        environment = {
            "FARGATE_AGENT_INSECURE_REGISTRIES": REGISTRY,
            "FARGATE_AGENT_IMAGE_PULL_BEHAVIOR": "always",
        }
        async with rig(root, environment) as machine:
            ours: list[float] = []
            theirs: list[float] = []
            for _ in range(ROUNDS):
                ours.append(await _pull_ours(machine, parent))
                await asyncio.to_thread(_forget, machine)
                theirs.append(await asyncio.to_thread(_pull_ctr, machine))
                await asyncio.to_thread(_forget, machine)
    mine, his = statistics.median(ours), statistics.median(theirs)
    print(f"\npull and unpack, {LAYERS} layers, n={ROUNDS}\n{'':32}{'median':>9}{'ratio':>8}")
    print(f"{'fargate-agent':32}{mine:7.2f} s{mine / his:8.2f}")
    print(f"{'ctr images pull':32}{his:7.2f} s{1:8.2f}")


async def _pull_ours(machine: Rig, parent: str) -> float:
    task = new_task(
        IMAGE,
        eni={
            "interfaceAssociationProtocol": "macvlan",
            "interfaceMacvlanProperties": {"parentInterface": parent},
            "ipv4Addresses": [{"primary": True, "privateAddress": f"{SUBNET}.9"}],
            "subnetGatewayIpv4Address": f"{SUBNET}.1/24",
        },
    )
    await machine.send(task)
    # The image holds no program: the task stops after the pull, which is all that is measured.
    async with asyncio.timeout(300):
        while not any(c["status"] == "STOPPED" for _, c in machine.changes.get(task["arn"], [])):
            machine.changed.clear()
            await machine.changed.wait()
    change = machine.changes[task["arn"]][-1][1]
    if "pullStoppedAt" not in change:
        raise RuntimeError(f"the pull failed: {change.get('reason')}")
    return float(change["pullStoppedAt"]) - float(change["pullStartedAt"])


def _pull_ctr(machine: Rig) -> float:
    start_s = time.perf_counter()
    machine.ctr("images", "pull", "--plain-http", IMAGE)
    return time.perf_counter() - start_s


def _forget(machine: Rig) -> None:
    """Remove the image and wait until its content is gone."""
    for name in machine.ctr("images", "ls", "-q").split():
        machine.ctr("images", "rm", "--sync", name)
    deadline_s = time.monotonic() + 60
    while machine.ctr("content", "ls", "-q").strip():
        if time.monotonic() > deadline_s:
            raise TimeoutError("content was not collected")
        time.sleep(0.1)


@contextmanager
def _registry(root: Path) -> Iterator[str]:
    """Run a registry in a network namespace; give the NIC that a task's macvlan hangs on."""
    mark = os.getpid()
    netns, host, parent = f"bench-{mark}", f"bh{mark}", f"bp{mark}"
    config = root / "registry.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {root}/registry}}}}\n"
        f'http: {{addr: "{REGISTRY}"}}\n'
    )
    run("ip", "netns", "add", netns)
    try:
        # one bridge in the namespace, so that both clients take one veth and one bridge
        for command in (
            f"ip -n {netns} link add br0 type bridge",
            f"ip link add {host} type veth peer name a netns {netns}",
            f"ip link add {parent} type veth peer name b netns {netns}",
            f"ip -n {netns} link set dev a master br0 up",
            f"ip -n {netns} link set dev b master br0 up",
            f"ip -n {netns} addr add {SUBNET}.1/24 dev br0",
            f"ip -n {netns} link set br0 up",
            f"ip -n {netns} link set lo up",
            f"ip addr add {SUBNET}.2/24 dev {host}",
            f"ip link set {host} up",
            f"ip link set {parent} up",
        ):
            run(*command.split())
        log = (root / "registry.log").open("ab")
        registry = subprocess.Popen(
            ["ip", "netns", "exec", netns, "docker-registry", "serve", config],
            stdout=log,
            stderr=log,
        )
        try:
            _push(netns)
            yield parent
        finally:
            registry.terminate()
            registry.wait(30)
    finally:
        run("ip", "netns", "del", netns)
        subprocess.run(["ip", "link", "del", host], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", parent], capture_output=True, check=False)


def _push(netns: str) -> None:
    command = ["-m", "bench.images", REGISTRY, "bench", str(LAYERS), str(LAYER_BYTES)]
    for attempt in range(50):
        try:
            print(run("ip", "netns", "exec", netns, sys.executable, *command).strip())
        except RuntimeError:
            if attempt == 49:
                raise
            time.sleep(0.2)
        else:
            return
