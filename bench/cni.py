"""What a runtime waits for: the CNI plugins of the ECS agent, beside Debian's `bridge`.

Both make a pair with one end on a bridge, whose address is the container's gateway, and give the
container an address. Each is an executable that a runtime starts, and starts another one or, as
`ecs-bridge` does, asks it in its own process. All of it happens in a namespace of its own.
"""

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fargate_agent.network.namespaces import make_netns, mount_netns, unmount_netns

ROUNDS: Final = int(os.environ.get("BENCH_CNI_ROUNDS", "31"))
CHECKOUT: Final = Path(__file__).parents[1]
STOCK: Final = Path("/usr/lib/cni")
"""Of Debian's package containernetworking-plugins."""
INTERPRETER: Final = ("/usr/bin/python3", "-I", "-S", "-c", "pass")
"""What a plugin in Python pays before its first line."""
START: Final = "python3 -I -S -c pass"


@dataclass(frozen=True, slots=True)
class Peer:
    """A plugin with its network."""

    name: str
    directory: Path
    config: Mapping[str, Any]

    def run(self, verb: str, container: str, netns: Path, root: Path) -> float:
        """Call it; return how many ms that took."""
        environment = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": str(netns),
            "CNI_PATH": str(self.directory),
            "IPAM_DB_PATH": str(root / "ecs-ipam.db"),
            "PATH": os.environ["PATH"],
        }
        given, said = root / "config.json", root / "answer.json"
        given.write_text(json.dumps({"cniVersion": "1.0.0", "name": "bench", **self.config}))
        with given.open("rb") as stdin, said.open("wb") as stdout:
            began = time.perf_counter()
            done = subprocess.run(
                [self.directory / self.config["type"]],
                stdin=stdin,
                stdout=stdout,
                env=environment,
                check=False,
            )
            took_ms = (time.perf_counter() - began) * 1e3
        if done.returncode != 0:
            raise RuntimeError(f"{self.name} {verb}: {said.read_text()}")
        return took_ms


async def measure(root: Path) -> None:
    """Print the table."""
    if not (STOCK / "bridge").exists():
        print(f"no CNI plugins in {STOCK}: install containernetworking-plugins to compare")
        return
    inside = 'mount -t tmpfs tmpfs /run && exec "$@"'
    command = ("unshare", "--net", "--mount", "sh", "-c", inside, "sh")
    benchmark = (sys.executable, "-m", "bench.cni", str(root))
    await asyncio.to_thread(subprocess.run, [*command, *benchmark], check=True, cwd=CHECKOUT)


def _measure(root: Path) -> None:
    ours, stock = peers = _make_peers(root)
    _run_round(peers, root)  # programs and modules are in memory from now on
    rounds = [_run_round(peers, root) for _ in range(ROUNDS)]
    print(f"\nmedians of {ROUNDS} in ms\n{'':30}{'ADD':>8}{'DEL':>8}")
    for peer in peers:
        _print_row(peer.name, [[one[peer.name, verb] for one in rounds] for verb in ("ADD", "DEL")])
    ratios = [
        [one[ours.name, verb] / one[stock.name, verb] for one in rounds] for verb in ("ADD", "DEL")
    ]
    _print_row("of that, paired", ratios)
    _print_row(START, [[one[START, ""] for one in rounds]])


def _make_peers(root: Path) -> tuple[Peer, Peer]:
    ipam = {"type": "ecs-ipam", "ipv4-subnet": "10.214.0.0/20"}
    ours = {"type": "ecs-bridge", "bridge": "bench0", "ipam": ipam}
    local = {"type": "host-local", "dataDir": str(root / "ipam"), "subnet": "10.214.16.0/20"}
    stock = {"type": "bridge", "bridge": "bench1", "isGateway": True, "ipam": local}
    return (
        Peer("ecs-bridge with ecs-ipam", CHECKOUT / "cni", ours),
        Peer("bridge with host-local", STOCK, stock),
    )


def _run_round(peers: tuple[Peer, ...], root: Path) -> dict[tuple[str, str], float]:
    """Return what each took, in another order each time."""
    took_ms = {}
    for peer in random.sample([*peers, None], len(peers) + 1):
        if peer is None:
            took_ms[START, ""] = _start_interpreter()
            continue
        container = uuid.uuid4().hex
        netns = root / "netns" / container
        with make_netns() as namespace:
            mount_netns(namespace, netns)
        for verb in ("ADD", "DEL"):
            took_ms[peer.name, verb] = peer.run(verb, container, netns, root)
        unmount_netns(netns)
    return took_ms


def _start_interpreter() -> float:
    began = time.perf_counter()
    subprocess.run(INTERPRETER, check=True)
    return (time.perf_counter() - began) * 1e3


def _print_row(name: str, columns: list[list[float]]) -> None:
    print(f"{name:30}{''.join(f'{statistics.median(one):8.2f}' for one in columns)}")


if __name__ == "__main__":
    _measure(Path(sys.argv[1]))
