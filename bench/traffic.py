"""What passes between two tasks, and to a proxy in one of them, beside plain interfaces.

In a network namespace of its own, which stands for the host. The peers are two namespaces that a
pair of interfaces joins, with nothing between: the least that Linux can do. For the way through the
host, two pairs and a host that forwards, without any filter, stand beside it.
"""

import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, ip_network
from pathlib import Path
from typing import Final

from fargate_agent.composition import make_enis, make_firewall
from fargate_agent.findings import Findings
from fargate_agent.network.names import name_instance
from fargate_agent.network.netns import KernelNetns
from fargate_agent.plan import EniPlan
from fargate_agent.plan.security_groups import GroupPlan, RulePlan
from fargate_agent.settings import AgentSettings
from fargate_agent.wire.eni_kinds import EniKind

ROUNDS: Final = int(os.environ.get("BENCH_TRAFFIC_ROUNDS", "5"))
SECONDS: Final = int(os.environ.get("BENCH_TRAFFIC_SECONDS", "3"))
SUBNET: Final = IPv4Network("10.213.0.0/20")
MTU: Final = 9001
PROXY_PORT, WEB_PORT = 8080, 8081
CONNECTIONS: Final = 16
STARTED_WITHIN_S: Final = 10

_PROXY: Final = f"""
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend proxy
    bind :{PROXY_PORT}
    default_backend web
backend web
    server web 127.0.0.1:{WEB_PORT}
frontend web
    bind 127.0.0.1:{WEB_PORT}
    http-request return status 200 content-type text/plain string hello
"""


@dataclass(frozen=True)
class Way:
    """Two namespaces, and how the first reaches the second."""

    name: str
    client: Path
    server: Path
    address: str


async def measure(root: Path) -> None:
    """Print the tables."""
    missing = [name for name in ("iperf3", "haproxy", "wrk") if shutil.which(name) is None]
    if missing:
        sys.exit(f"bench traffic: install {', '.join(missing)}")
    command = ["unshare", "--net", sys.executable, "-m", "bench.traffic", str(root)]
    await asyncio.to_thread(subprocess.run, command, check=True, cwd=Path(__file__).parents[1])


async def _measure(root: Path) -> None:
    async with _tasks(root) as tasks:
        with _joined(root) as joined, _forwarded(root) as forwarded:
            ways = (joined, forwarded, tasks)
            print(f"medians of {ROUNDS} rounds of {SECONDS} s, the ways in turn; MTU {MTU}")
            columns = {"": 28, "iperf3 Gbit/s": 15, "of joined": 11, "HAProxy req/s": 15}
            print("".join(f"{name:>{width}}" for name, width in columns.items()), "  of joined")
            rates = _take_turns(ways, _load_stream)
            requests = _take_turns(ways, _load_proxy)
    for way in ways:
        print(
            f"{way.name:28}{statistics.median(rates[way.name]):15.2f}"
            f"{_ratio(rates, way, joined):11.2f}"
            f"{statistics.median(requests[way.name]):15,.0f}"
            f"{_ratio(requests, way, joined):11.2f}"
        )


def _ratio(figures: dict[str, list[float]], way: Way, to: Way) -> float:
    """Return the median of the ratios of each round."""
    pairs = zip(figures[way.name], figures[to.name], strict=True)
    return statistics.median(one / other for one, other in pairs)


def _take_turns(ways: tuple[Way, ...], load: Callable[[Way], float]) -> dict[str, list[float]]:
    figures: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(ROUNDS):
        for way in ways:
            figures[way.name].append(load(way))
    return figures


def _load_stream(way: Way) -> float:
    with _serving(way.server, ["iperf3", "-s", "-1"], way, 5201):
        told = _run(way.client, ["iperf3", "-c", way.address, "-J", "-t", str(SECONDS)])
    return float(json.loads(told)["end"]["sum_received"]["bits_per_second"]) / 1e9


def _load_proxy(way: Way) -> float:
    config = Path(sys.argv[1]) / "haproxy.cfg"
    config.write_text(_PROXY, encoding="utf-8")
    with _serving(way.server, ["haproxy", "-db", "-f", str(config)], way, PROXY_PORT):
        url = f"http://{way.address}:{PROXY_PORT}/"
        threads = ("-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s")
        told = _run(way.client, ["wrk", *threads, url])
    found = re.search(r"Requests/sec:\s+([\d.]+)", told)
    if found is None or "Non-2xx" in told:
        raise RuntimeError(told)
    return float(found[1])


@contextmanager
def _serving(netns: Path, command: list[str], way: Way, port: int) -> Iterator[None]:
    """Run a server until the end of the body, which begins when it listens."""
    entered = ["nsenter", f"--net={netns}", *command]
    server = subprocess.Popen(entered, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + STARTED_WITHIN_S
        while f":{port} " not in _run(way.server, ["ss", "-Hltn"]):
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"{command[0]} doesn't listen on port {port}")
            time.sleep(0.02)
        yield
    finally:
        server.terminate()
        server.wait(STARTED_WITHIN_S)


def _run(netns: Path, command: list[str]) -> str:
    entered = ["nsenter", f"--net={netns}", *command]
    return subprocess.run(entered, capture_output=True, text=True, check=True, timeout=60).stdout


@asynccontextmanager
async def _tasks(root: Path) -> AsyncIterator[Way]:
    """Attach two ENIs, as for two tasks of one security group."""
    settings = AgentSettings(state_dir=root / "state", netns_dir=root / "netns")
    settings.state_dir.mkdir(exist_ok=True)
    firewall = make_firewall(settings, Findings())
    netns = KernelNetns(name_instance(settings.state_dir), settings.netns_dir, lambda: False)
    enis = make_enis(netns.prepared, firewall, settings.state_dir, settings.netns_dir, Findings())
    group = GroupPlan(
        id="sg-bench",
        ingress=(RulePlan(protocol="-1", groups=("sg-bench",)),),
        egress=(RulePlan(protocol="-1", cidrs=(ip_network("0.0.0.0/0"),)),),
    )
    plans = [_plan(place) for place in (10, 11)]
    paths = [settings.netns_dir / f"fargate-{uuid.uuid4().hex}" for _ in plans]
    async with netns, firewall, enis[EniKind.VETH] as driver:
        await firewall.learn([group])
        for plan, path in zip(plans, paths, strict=True):
            await netns.ensure(path)
            await driver.attach(plan, path)
        yield Way("two tasks", paths[0], paths[1], str(plans[1].address.ip))
        for plan, path in zip(plans, paths, strict=True):
            await driver.detach(plan, path)
            await netns.release(path)
    for sweeper in (netns, driver, firewall):
        await sweeper.sweep(())  # type: ignore[attr-defined]


def _plan(place: int) -> EniPlan:
    address = SUBNET[place]
    return EniPlan(
        kind=EniKind.VETH,
        id=f"eni-{uuid.uuid4().hex[:17]}",
        attachment_arn="",
        ifname="eth1",
        mac=":".join(f"{octet:02x}" for octet in (0x02, 0, *address.packed)),
        address=IPv4Interface((address, SUBNET.prefixlen)),
        gateway=SUBNET[1],
        mtu=MTU,
        security_groups=("sg-bench",),
        vpc_cidr_blocks=(SUBNET,),
    )


@contextmanager
def _joined(root: Path) -> Iterator[Way]:
    """Join two namespaces by one pair."""
    with _namespaces(root, "joined") as (one, other):
        ends = ("eth1", "netns", str(one)), ("eth1", "netns", str(other))
        _ip("link", "add", *ends[0], "mtu", str(MTU), "type", "veth", "peer", "name", *ends[1],
            "mtu", str(MTU))  # fmt: skip
        for netns, address in ((one, "10.215.0.1/24"), (other, "10.215.0.2/24")):
            _run(netns, ["ip", "address", "add", address, "dev", "eth1"])
            _run(netns, ["ip", "link", "set", "eth1", "up"])
        yield Way("joined by one pair", one, other, "10.215.0.2")


@contextmanager
def _forwarded(root: Path) -> Iterator[Way]:
    """Join two namespaces by a pair each, and a host that forwards."""
    with _namespaces(root, "forwarded") as both:
        for place, netns in enumerate(both):
            name, subnet = f"plain{place}", f"10.216.{place}"
            _ip("link", "add", name, "mtu", str(MTU), "type", "veth", "peer", "name", "eth1",
                "netns", str(netns), "mtu", str(MTU))  # fmt: skip
            _ip("address", "add", f"{subnet}.1/24", "dev", name)
            _ip("link", "set", name, "up")
            Path(f"/proc/sys/net/ipv4/conf/{name}/forwarding").write_text("1", encoding="ascii")
            _run(netns, ["ip", "address", "add", f"{subnet}.2/24", "dev", "eth1"])
            _run(netns, ["ip", "link", "set", "eth1", "up"])
            _run(netns, ["ip", "route", "add", "default", "via", f"{subnet}.1"])
        yield Way("two pairs, no filter", *both, "10.216.1.2")


@contextmanager
def _namespaces(root: Path, name: str) -> Iterator[tuple[Path, Path]]:
    marks = [f"bench-{name}-{uuid.uuid4().hex[:6]}" for _ in range(2)]
    one, other = (Path("/run/netns") / mark for mark in marks)
    for mark in marks:
        _ip("netns", "add", mark)
        _ip("-n", mark, "link", "set", "lo", "up")
    try:
        yield one, other
    finally:
        for mark in marks:
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "del", mark)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


if __name__ == "__main__":
    asyncio.run(_measure(Path(sys.argv[1])))
