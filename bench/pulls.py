"""Pull and unpack of images of 4 layers and 300 MB from a local registry, onto a fresh disk each.

A file system from which much has been deleted gives out inodes slowly for a while, so nothing is
ever deleted: each pull has a file system, a containerd and an agent of its own.
"""

import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.rig import Rig, new_task, rig, run

ROUNDS = int(os.environ.get("BENCH_PULL_ROUNDS", "5"))
DISK = os.environ.get("BENCH_PULL_DISK", "ext4")
"""`ext4`, on a loop device, with a journal; or `tmpfs`."""
DISK_BYTES = 3 << 30
LAYERS = 4
FILES = {"many": 10_000, "few": 16}
"""How many files the images have, by their names."""
SUBNET = "10.190.0"
REGISTRY = f"{SUBNET}.1:5000"
TLS_REGISTRY = f"{SUBNET}.1:5001"


@dataclass(frozen=True)
class Way:
    """How an image is pulled, by both."""

    name: str
    registry: str
    by_pigz: bool = False


async def measure(root: Path) -> None:
    """Print medians, and the ratios of the same round."""
    ways = [Way("http", REGISTRY), Way("https", TLS_REGISTRY)]
    if shutil.which("unpigz"):
        ways.insert(1, Way("http, unpigz", REGISTRY, by_pigz=True))
    else:
        print("there is no unpigz (Debian: pigz): containerd inflates by itself")
    with _registry(root) as parent:
        for files in FILES:
            taken: dict[Way, list[tuple[float, float]]] = {way: [] for way in ways}
            for _ in range(ROUNDS):
                for way in ways:
                    image = f"{way.registry}/{files}:1"
                    ours = await _measure(root, way, parent, image)
                    taken[way].append((ours, await _measure(root, way, None, image)))
            _print(files, taken)


def _print(files: str, taken: Mapping[Way, list[tuple[float, float]]]) -> None:
    print(f"\npull and unpack, {FILES[files]} files, {DISK}, n={ROUNDS}")
    print(f"{'':16}{'agent':>9}{'ctr':>9}{'ratio':>8}{'paired':>8}{'least':>8}{'most':>8}")
    for way, pairs in taken.items():
        ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratios = sorted(mine / his for mine, his in pairs)
        print(
            f"{way.name:16}{ours:7.2f} s{theirs:7.2f} s{ours / theirs:8.2f}"
            f"{statistics.median(ratios):8.2f}{ratios[0]:8.2f}{ratios[-1]:8.2f}"
        )


async def _measure(root: Path, way: Way, parent: str | None, image: str) -> float:
    """Return the seconds that one pull takes, onto a disk on which nothing has been.

    It is the agent's, through a task's macvlan on the NIC `parent`; without one it is that of ctr.
    """
    environment = {
        "FARGATE_AGENT_INSECURE_REGISTRIES": REGISTRY,
        "FARGATE_AGENT_IMAGE_PULL_BEHAVIOR": "always",
        "SSL_CERT_FILE": str(root / "tls.crt"),
    }
    with _disk(root) as disk, _inflating(by_pigz=way.by_pigz):
        async with rig(disk, environment) as machine:
            if parent is not None:
                return await _pull_ours(machine, parent, image)
            trust = ["--plain-http"]
            if way.registry == TLS_REGISTRY:
                trust = ["--tlscacert", str(root / "tls.crt")]
            return await asyncio.to_thread(_pull_ctr, machine, image, trust)


@contextmanager
def _disk(root: Path) -> Iterator[Path]:
    """Mount a new file system."""
    place = root / "disk"
    place.mkdir(exist_ok=True)
    with ExitStack() as stack:
        if DISK == "tmpfs":
            run("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "bench", str(place))
        else:
            image = root / "disk.ext4"
            with image.open("wb") as file:
                file.truncate(DISK_BYTES)
            stack.callback(image.unlink)
            run("mkfs.ext4", "-q", "-E", "lazy_itable_init=1,nodiscard", str(image))
            run("mount", "-o", "loop", str(image), str(place))
        stack.callback(run, "umount", str(place))
        yield place


@contextmanager
def _inflating(*, by_pigz: bool) -> Iterator[None]:
    """Let containerd inflate by unpigz, or by itself. Source: containerd, archive/compression."""
    if not by_pigz:
        os.environ["CONTAINERD_DISABLE_PIGZ"] = "1"
    try:
        yield
    finally:
        os.environ.pop("CONTAINERD_DISABLE_PIGZ", None)


async def _pull_ours(machine: Rig, parent: str, image: str) -> float:
    task = new_task(
        image,
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


def _pull_ctr(machine: Rig, image: str, trust: list[str]) -> float:
    start_s = time.perf_counter()
    machine.ctr("images", "pull", *trust, image)
    return time.perf_counter() - start_s


@contextmanager
def _registry(root: Path) -> Iterator[str]:
    """Run a registry in a network namespace; give the NIC that a task's macvlan hangs on."""
    mark = os.getpid()
    netns, host, parent = f"bench-{mark}", f"bh{mark}", f"bp{mark}"
    _make_certificate(root)
    tls = f", tls: {{certificate: {root}/tls.crt, key: {root}/tls.key}}"
    for name, address, more in (("http", REGISTRY, ""), ("https", TLS_REGISTRY, tls)):
        (root / f"{name}.yml").write_text(
            "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
            f"storage: {{filesystem: {{rootdirectory: {root}/registry}}}}\n"
            f'http: {{addr: "{address}"{more}}}\n'
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
        serve = ("ip", "netns", "exec", netns, "docker-registry", "serve")
        registries = [
            subprocess.Popen([*serve, root / f"{name}.yml"], stdout=log, stderr=log)
            for name in ("http", "https")
        ]
        try:
            for name, files in FILES.items():
                _push(netns, name, files)
            yield parent
        finally:
            for registry in registries:
                registry.terminate()
            for registry in registries:
                registry.wait(30)
    finally:
        run("ip", "netns", "del", netns)
        subprocess.run(["ip", "link", "del", host], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", parent], capture_output=True, check=False)


def _make_certificate(root: Path) -> None:
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    run(
        *command.split(),
        *("-keyout", str(root / "tls.key"), "-out", str(root / "tls.crt")),
        *("-subj", "/CN=registry", "-addext", f"subjectAltName=IP:{SUBNET}.1"),
    )


def _push(netns: str, name: str, files: int) -> None:
    command = ["-m", "bench.images", REGISTRY, name, str(LAYERS), str(files)]
    for attempt in range(50):
        try:
            print(run("ip", "netns", "exec", netns, sys.executable, *command).strip())
        except RuntimeError:
            if attempt == 49:
                raise
            time.sleep(0.2)
        else:
            return
