"""What an ENI costs a start and an end, beside tasks that have theirs; and Debian's CNI plugins.

In a network namespace of its own, which stands for the host.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Final

from fargate_agent.composition import make_enis, make_firewall
from fargate_agent.findings import Findings
from fargate_agent.network.names import name_instance
from fargate_agent.network.namespaces import make_netns, mount_netns, unmount_netns
from fargate_agent.network.netns import KernelNetns
from fargate_agent.plan import EniPlan
from fargate_agent.plan.security_groups import GroupPlan, RulePlan
from fargate_agent.settings import AgentSettings
from fargate_agent.wire.eni_kinds import EniKind

ROUNDS: Final = int(os.environ.get("BENCH_ENIS_ROUNDS", "31"))
TASKS: Final = (1, 50, 200, 500)
GROUP: Final = "sg-bench"
SUBNET: Final = IPv4Network("10.213.0.0/20")
CNI: Final = Path("/usr/lib/cni")
"""Of Debian's package containernetworking-plugins."""
CHAIN: Final[tuple[dict[str, object], ...]] = (
    {
        "type": "bridge",
        "bridge": "cnibench",
        "isGateway": True,
        "ipMasq": True,
        "ipam": {"type": "host-local", "subnet": "10.214.0.0/20"},
    },
    {"type": "firewall"},
)
BEFORE: Final = "with a bridge for each subnet, measured on 2 cores: attach 6.3, detach 25"


async def measure(root: Path) -> None:
    """Print the table."""
    command = ["unshare", "--net", sys.executable, "-m", "bench.enis", str(root)]
    await asyncio.to_thread(subprocess.run, command, check=True, cwd=Path(__file__).parents[1])


async def _measure(root: Path) -> None:
    print(f"\nmedians of {ROUNDS} in ms; {BEFORE}")
    columns = {"tasks": 6, "netns": 9, "attach": 9, "detach": 9, "CNI ADD": 10, "CNI DEL": 10}
    print("".join(f"{name:>{width}}" for name, width in columns.items()))
    with _cni(root) as chain:
        for tasks in TASKS:
            figures = await _measure_beside(root, tasks)
            cells = [f"{one:9.2f}" for one in figures]
            if chain is not None:
                cells += [f"{one:10.1f}" for one in await chain.measure(tasks)]
            print(f"{tasks:6}{''.join(cells)}", flush=True)


async def _measure_beside(root: Path, tasks: int) -> list[float]:
    """Return what it takes to prepare, attach and detach the last of so many ENIs."""
    settings = AgentSettings(state_dir=root / "state", netns_dir=root / "netns")
    settings.state_dir.mkdir(exist_ok=True)
    instance = name_instance(settings.state_dir)
    findings = Findings()
    firewall = make_firewall(settings, findings)
    netns = KernelNetns(instance, settings.netns_dir, lambda: False)
    enis = make_enis(netns.prepared, firewall, settings.state_dir, settings.netns_dir, findings)
    rounds = []
    rule = RulePlan(protocol="-1", cidrs=(IPv4Network("0.0.0.0/0"),))
    async with netns, firewall, enis[EniKind.VETH] as driver:
        await firewall.learn([GroupPlan(id=GROUP, egress=(rule,))])
        plans = [_plan(SUBNET[place]) for place in range(10, 10 + tasks)]
        paths = [settings.netns_dir / f"fargate-{uuid.uuid4().hex}" for _ in plans]
        for plan, path in zip(plans[1:], paths[1:], strict=True):
            await netns.ensure(path)
            await driver.attach(plan, path)
        for _ in range(ROUNDS):
            moments = [time.perf_counter()]
            for step in (
                netns.ensure(paths[0]),
                driver.attach(plans[0], paths[0]),
                driver.detach(plans[0], paths[0]),
            ):
                await step
                moments.append(time.perf_counter())
            rounds.append([later - one for one, later in zip(moments, moments[1:], strict=False)])
            await netns.release(paths[0])
            await asyncio.sleep(0.05)  # as the containers of a task go before the next one comes
        for plan, path in zip(plans[1:], paths[1:], strict=True):
            await driver.detach(plan, path)
            await netns.release(path)
    for sweeper in (netns, driver, firewall):
        await sweeper.sweep(())  # type: ignore[union-attr]
    return [statistics.median(one) * 1e3 for one in zip(*rounds, strict=True)]


def _plan(address: IPv4Address) -> EniPlan:
    return EniPlan(
        kind=EniKind.VETH,
        id=f"eni-{uuid.uuid4().hex[:17]}",
        attachment_arn="",
        ifname="eth1",
        mac=":".join(f"{octet:02x}" for octet in (0x02, 0, *address.packed)),
        address=IPv4Interface((address, SUBNET.prefixlen)),
        gateway=SUBNET[1],
        security_groups=(GROUP,),
        vpc_cidr_blocks=(IPv4Network("10.213.0.0/16"),),
    )


class Chain:
    """The plugins `bridge` and `firewall`, run as a runtime runs them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._attached: list[tuple[str, Path]] = []

    async def measure(self, tasks: int) -> tuple[float, float]:
        """Return what ADD and DEL of the last of so many take, in ms."""
        while len(self._attached) < tasks - 1:
            one = self._make()
            self._add(*one)
            self._attached.append(one)
        figures = []
        for _ in range(max(ROUNDS // 3, 5)):
            one = self._make()
            began = time.perf_counter()
            self._add(*one)
            added = time.perf_counter()
            self._delete(*one)
            figures.append((added - began, time.perf_counter() - added))
            unmount_netns(one[1])
        add, delete = (statistics.median(one) * 1e3 for one in zip(*figures, strict=True))
        return add, delete

    def close(self) -> None:
        """Take back what is attached."""
        for one in self._attached:
            self._delete(*one)
            unmount_netns(one[1])

    def _make(self) -> tuple[str, Path]:
        container = uuid.uuid4().hex
        path = self._root / "cni" / container
        with make_netns() as namespace:
            mount_netns(namespace, path)
        return container, path

    def _add(self, container: str, netns: Path) -> None:
        result: object = None
        for plugin in CHAIN:
            result = json.loads(self._run("ADD", plugin, container, netns, result))

    def _delete(self, container: str, netns: Path) -> None:
        for plugin in reversed(CHAIN):
            self._run("DEL", plugin, container, netns, None)

    def _run(
        self, verb: str, plugin: dict[str, object], container: str, netns: Path, result: object
    ) -> bytes:
        ipam = plugin.get("ipam")
        given = {"cniVersion": "1.0.0", "name": "bench", **plugin}
        if isinstance(ipam, dict):
            given["ipam"] = {**ipam, "dataDir": str(self._root / "ipam")}
        if result is not None:
            given["prevResult"] = result
        environment = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": str(netns),
            "CNI_PATH": str(CNI),
            "PATH": os.environ["PATH"],
        }
        done = subprocess.run(
            [CNI / str(plugin["type"])],
            input=json.dumps(given).encode(),
            env=environment,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{plugin['type']} {verb}: {done.stdout.decode()}")
        return done.stdout


@contextmanager
def _cni(root: Path) -> Iterator[Chain | None]:
    """Yield the chain of plugins, if they are installed."""
    if not (CNI / "bridge").exists():
        print(f"no CNI plugins in {CNI}: install containernetworking-plugins to compare")
        yield None
        return
    chain = Chain(root)
    try:
        yield chain
    finally:
        chain.close()


if __name__ == "__main__":
    asyncio.run(_measure(Path(sys.argv[1])))
