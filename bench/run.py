"""Run every benchmark, or those named, and print their tables.

Usage: sudo .venv/bin/python bench/run.py [NAME]...

The names are starts, pulls, memory, control-plane, loggers, health, metadata,
secrets, enis, cni and traffic.
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

# In the place of this directory, whose `secrets` isn't that of Python.
sys.path.insert(0, str(Path(sys.path.pop(0)).parent))

from bench import (
    cni,
    control_plane,
    enis,
    health,
    loggers,
    memory,
    metadata,
    pulls,
    secrets,
    starts,
    traffic,
)
from bench.machine import print_machine

BENCHMARKS = {
    "starts": starts.measure,
    "pulls": pulls.measure,
    "memory": memory.measure,
    "control-plane": control_plane.measure,
    "loggers": loggers.measure,
    "health": health.measure,
    "metadata": metadata.measure,
    "secrets": secrets.measure,
    "enis": enis.measure,
    "cni": cni.measure,
    "traffic": traffic.measure,
}


def main() -> None:
    """Run them in turn, each on a machinery of its own."""
    if os.geteuid() != 0:
        sys.exit("bench: run it as root: sudo make bench")
    print_machine(Path(tempfile.gettempdir()))
    for name in sys.argv[1:] or BENCHMARKS:
        if name not in BENCHMARKS:
            sys.exit(f"bench: no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
        with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as root:
            asyncio.run(BENCHMARKS[name](Path(root)))


if __name__ == "__main__":
    main()
