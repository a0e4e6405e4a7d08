"""Look for what belongs to others, from inside a container: KIND ARGUMENT..."""

import ctypes
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

ETH_P_ALL = 3
PTRACE_ATTACH = 16
PTRACE_DETACH = 17


def say(what: object) -> None:
    print(json.dumps(what), flush=True)


def sniff(seconds: str, *words: str) -> None:
    """Read every frame of every interface, and say which of the words were in one."""
    listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    listener.settimeout(0.2)
    say("listening")
    end = time.monotonic() + float(seconds)
    interfaces, seen = set(), set()
    urlopen(os.environ["ECS_CONTAINER_METADATA_URI_V4"]).read()
    while time.monotonic() < end:
        with suppress(TimeoutError):
            frame, (interface, *_) = listener.recvfrom(65536)
            interfaces.add(interface)
            seen |= {word for word in words if word.encode() in frame}
    say({"interfaces": sorted(interfaces), "seen": sorted(seen)})


def processes(*pids: str) -> None:
    """Say which processes are there, and do to those with these ids what a debugger does."""
    own = sorted(int(path.name) for path in Path("/proc").glob("[0-9]*"))
    lines = {pid: _read(f"/proc/{pid}/cmdline").replace("\0", " ") for pid in own}
    libc = ctypes.CDLL(None, use_errno=True)
    done = []
    for pid in map(int, pids):
        if pid in own:  # another process, which has the same number here
            continue
        with suppress(OSError):
            os.kill(pid, 0)
            done.append(f"kill {pid}")
        if libc.ptrace(PTRACE_ATTACH, pid, 0, 0) == 0:
            libc.ptrace(PTRACE_DETACH, pid, 0, 0)
            done.append(f"ptrace {pid}")
        for file in ("environ", "mem", "root/", "cwd/", "fd/", "maps"):
            with suppress(OSError):
                Path(f"/proc/{pid}/{file}").stat()
                done.append(f"{file} {pid}")
        with suppress(OSError):
            os.pidfd_open(pid)
            done.append(f"pidfd {pid}")
    say({"visible": lines, "done": done})


def sockets(*paths: str) -> None:
    """Connect to sockets of the machine, by every way to them that a container might have."""
    roots = ["", *(f"/proc/{path.name}/root" for path in Path("/proc").glob("[0-9]*"))]
    files = [f"{root}{path}" for root in roots for path in paths]
    abstract = [f"\0{path}" for path in paths]
    listed = [line.split()[-1] for line in _read("/proc/net/unix").splitlines() if "@" in line]
    reached = []
    for name in (*files, *abstract, *(f"\0{one[1:]}" for one in listed)):
        with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
            client.connect(name)
            reached.append(name)
    say({"reached": reached, "abstract": listed, "files": list(_find_sockets())})


def _find_sockets() -> Iterator[str]:
    """Name the sockets in this container's files."""
    for directory, _, names in os.walk("/"):
        if directory.startswith(("/proc", "/sys")):
            continue
        for name in names:
            with suppress(OSError):
                if Path(directory, name).is_socket():
                    yield f"{directory}/{name}"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


KINDS: dict[str, Callable[..., None]] = {
    "sniff": sniff,
    "processes": processes,
    "sockets": sockets,
}

signal.alarm(120)  # nothing here lasts as long
KINDS[sys.argv[1]](*sys.argv[2:])
