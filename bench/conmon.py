"""Podman's logger, conmon, as a peer: containers that print, with `k8s-file` and `journald`.

conmon knows journald's own socket only. It runs in a mount namespace where another directory lies
over `/run/systemd`: so nothing comes into a journal, and both sides have the same destination.
"""

import json
import shlex
import subprocess
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from bench.logged import DEADLINE_S, INSIDE, Text, Usage, Watch, count_lines, removed
from bench.rig import run
from bench.sinks import Sink

CGROUP = "bench-podman"
OPTIONS = (
    *("--network=none", f"--cgroup-parent=/{CGROUP}"),
    *("--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096"),
)
"""Podman raises limits that it isn't told, which a machine without CAP_SYS_RESOURCE refuses."""
Found = TypeVar("Found")
K8S_FILE, JOURNALD = "podman k8s-file", "podman journald"


class Podman:
    """Podman with a storage of its own."""

    def __init__(self, root: Path, image: str, archive: Path, journal: Sink) -> None:
        self.drivers: tuple[str, ...] = ()
        """Those that can be measured here."""
        self._root = root
        self._image = image
        self._journal = journal
        self._log = root / "k8s.log"
        systemd = journal.path.parent.parent
        script = f"mount --bind {shlex.quote(str(systemd))} /run/systemd && echo && exec cat"
        self._inside = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            if self._inside.stdout is None or not self._inside.stdout.readline():
                raise RuntimeError("no mount namespace, or no /run/systemd")
            run(*self._command("load", "-i", str(archive)))
            run(*self._command("run", "--rm", *OPTIONS, image, "/bin/echo"))
        except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
            print(f"podman: does not start here ({str(error)[-160:]})")
        else:
            self.drivers = (K8S_FILE, JOURNALD)

    def close(self) -> None:
        """End it, and what it has mounted."""
        if self.drivers:
            run(*self._command("rm", "-fa", "-t", "0"))
        self._inside.kill()
        self._inside.wait(30)
        remove_groups()

    def run(self, driver: str, text: Text, times: int) -> tuple[float, Usage, int]:
        """Let a container print; return seconds, what conmon has used, and how many lines came.

        As for our loggers the clock stops when the last line has come.
        """
        if driver == JOURNALD:
            self._journal.forget()
            began, usage = self._print(["--log-driver=journald"], text, times)
            return self._journal.last_s - _to_monotonic(began), usage, self._journal.lines
        with removed(self._log):
            options = ["--log-driver=k8s-file", f"--log-opt=path={self._log}"]
            _, usage = self._print(options, text, times)
            with self._log.open() as file:  # podman notes the start of a container too late
                began = _parse_time(file.readline().partition(" ")[0])
            return self._log.stat().st_mtime - began, usage, count_lines(self._log)

    def _print(self, options: list[str], text: Text, times: int) -> tuple[float, Usage]:
        """Return when a container was started, as `time.time` has it, and what conmon has used."""
        pid_path = self._root / "conmon.pid"
        options += [f"--conmon-pidfile={pid_path}", *OPTIONS]
        mount = f"--volume={text.path}:{INSIDE}:ro"
        command = ["/bin/cat", *[INSIDE] * times]
        name = run(*self._command("create", *options, mount, self._image, *command)).strip()
        with subprocess.Popen(self._command("start", name), stdout=subprocess.DEVNULL):
            _until(lambda: pid_path.exists() and pid_path.read_text() != "")
            watch = Watch(int(pid_path.read_text()), before_s=0)
        usage = watch.wait(DEADLINE_S)
        began = _until(lambda: self._read_start(name))
        run(*self._command("rm", name))
        pid_path.unlink(missing_ok=True)
        return began, usage

    def _read_start(self, name: str) -> float:
        """Return when a container was started; 0 if it still runs."""
        state = json.loads(run(*self._command("inspect", name)))[0]["State"]
        return _parse_time(state["StartedAt"]) if state["Status"] == "exited" else 0

    def _command(self, *arguments: str) -> list[str]:
        root = self._root
        return [
            *("nsenter", f"--mount=/proc/{self._inside.pid}/ns/mnt", "podman"),
            *("--root", str(root / "podman"), "--runroot", str(root / "podman-run")),
            *("--tmpdir", str(root / "podman-tmp"), "--events-backend", "file"),
            *("--runtime", "/usr/sbin/runc", "--cgroup-manager", "cgroupfs"),
            *arguments,
        ]


def remove_groups() -> None:
    """Remove the control groups that podman leaves."""
    for group in Path("/sys/fs/cgroup").rglob(CGROUP):
        for inner in sorted(filter(Path.is_dir, group.rglob("*")), reverse=True):
            inner.rmdir()
        group.rmdir()


def _parse_time(text: str) -> float:
    """Read RFC 3339 in UTC; nanoseconds are more than Python takes."""
    return datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00").timestamp()


def _to_monotonic(moment: float) -> float:
    return moment - time.time() + time.monotonic()


def _until(condition: Callable[[], Found]) -> Found:
    deadline_s = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        if time.monotonic() > deadline_s:
            raise TimeoutError("podman has not done it in time")
        time.sleep(0.001)
    return found
