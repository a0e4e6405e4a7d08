"""The PID namespace that the containers of a task share (`pidMode: task`).

No container is its first process, with whose end all others of the namespace end. That is a holder,
which reaps orphans and does nothing else. A container may look into it, and with
CAP_SYS_PTRACE take it over, so it is a container as well, which can do less than they can: it has
no capabilities, its root directory is empty but for its program, and it is in the task's network.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.containers import ContainerRecord
from fargate_agent.containerd.errors import ContainerdError, NotFoundError
from fargate_agent.containerd.processes import ProcessStatus
from fargate_agent.containerd.types import Mount
from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.runtime.cgroupdriver import CgroupDriver, CgroupDrivers
from fargate_agent.runtime.creation import Creation, create_process_anew
from fargate_agent.runtime.init import INIT_DESTINATION, NO_INIT, find_init
from fargate_agent.runtime.records import TASK_LABEL
from fargate_agent.runtime.seccomp import JsonObject, render_seccomp
from fargate_agent.runtime.spec import (
    DEVICE_RULES,
    MASKED_PATHS,
    OCI_VERSION,
    READONLY_PATHS,
)
from fargate_agent.threads import in_thread

DIRECTORY: Final = "pidns"
"""The holder's root directory, below that of the task."""

_NOBODY: Final = 65534
"""Source: Linux, `DEFAULT_OVERFLOWUID`."""

_ENDED: Final = "find PID namespace: that of the task has ended"
_MIN_CPU_SHARES: Final = 2


class PidNamespaces:
    """Makes and removes those of the tasks of one containerd namespace."""

    def __init__(
        self,
        containerd: Containerd,
        cgroups: CgroupDrivers,
        plan_creation: Callable[[tuple[Mount, ...], str | None, CgroupDriver], Creation],
    ) -> None:
        """`plan_creation` says how processes of containers are made, as for all others."""
        self._containerd = containerd
        self._cgroups = cgroups
        self._plan_creation = plan_creation

    async def ensure(self, task: TaskPlan) -> None:
        """Return when the namespace of a task is there, whose lease and group are.

        Raises:
            ContainerdError: containerd or runC refused.
            OSError: there is no program for the holder, or the kernel refused.
        """
        holder = _plan_holder(task)
        if await self._find(holder.id) is not None:
            return
        await self._remove(holder.id)
        client, cgroups = self._containerd.with_lease(task.lease), self._cgroups.of(task.cgroup)
        root = await in_thread(_make_root, task)
        await in_thread(
            cgroups.ensure_container,
            holder.cgroup,
            cpu_shares=_MIN_CPU_SHARES,
            memory_reservation_mib=None,
        )
        spec = _render_spec(task, root, cgroups.render_path(holder.cgroup))
        labels = {TASK_LABEL: task.id}
        await client.containers.create(
            ContainerRecord(id=holder.id, image="", spec=spec, labels=labels)
        )
        # a predecessor may have been interrupted right here
        await create_process_anew(client, holder, self._plan_creation((), None, cgroups))
        await client.processes.start(holder.id)

    async def find(self, task: TaskPlan) -> Path | None:
        """Return the namespace for the spec of a container; None if the task shares none.

        Raises:
            ContainerdError: it has ended.
        """
        if not task.shares_pid_namespace:
            return None
        pid = await self._find(_plan_holder(task).id)
        if pid is None:
            raise ContainerdError(_ENDED)
        return Path(f"/proc/{pid}/ns/pid")

    async def check(self, task: TaskPlan, container: ContainerPlan) -> None:
        """Return if the namespace that a container's record names is that of its task.

        Its number may be another process's by now, on the host even.

        Raises:
            ContainerdError: it isn't, or it has ended.
        """
        namespace = await self.find(task)
        if namespace is None:
            return
        spec = json.loads((await self._containerd.containers.get(container.id)).spec)
        if str(namespace) not in {one.get("path") for one in spec["linux"]["namespaces"]}:
            raise ContainerdError(_ENDED)

    async def remove(self, task: TaskPlan) -> None:
        """Return when the namespace of a task is gone, and all in it.

        Raises:
            ContainerdError: it is still there.
        """
        if task.shares_pid_namespace:
            await self._remove(_plan_holder(task).id)

    async def _find(self, holder_id: str) -> int | None:
        try:
            process = await self._containerd.processes.get(holder_id)
        except NotFoundError:
            return None
        return process.pid if process.status is ProcessStatus.RUNNING else None

    async def _remove(self, holder_id: str) -> None:
        await self._containerd.processes.force_delete(holder_id)
        await self._containerd.containers.delete(holder_id)


def _plan_holder(task: TaskPlan) -> ContainerPlan:
    """A container as far as its creation looks at it."""
    holder_id = f"{task.id}-{DIRECTORY}"
    return replace(
        task.containers[0],
        name=DIRECTORY,
        id=holder_id,
        cgroup=f"{task.cgroup}/{holder_id}",
        terminal=False,
        stdin=None,
    )


def _make_root(task: TaskPlan) -> Path:
    """Make the root directory, and the places of its mounts."""
    root = task.directory / DIRECTORY
    for directory in (root, root / "dev", root / "proc"):
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)
    return root


def _render_spec(task: TaskPlan, root: Path, cgroup: str) -> bytes:
    program = find_init()
    if program is None:
        raise FileNotFoundError(None, NO_INIT)
    closed = ["nosuid", "nodev"]
    spec: JsonObject = {
        "ociVersion": OCI_VERSION,
        "root": {"path": str(root), "readonly": True},
        "process": {
            "user": {"uid": _NOBODY, "gid": _NOBODY},
            "args": [INIT_DESTINATION, "-P"],
            "cwd": "/",
            "noNewPrivileges": True,
        },
        "mounts": [
            {
                "destination": "/proc",
                "type": "proc",
                "source": "proc",
                "options": [*closed, "noexec"],
            },
            {
                "destination": INIT_DESTINATION,
                "type": "bind",
                "source": str(program),
                "options": ["bind", "rprivate", "ro", *closed],
            },
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [
                *({"type": kind} for kind in ("pid", "ipc", "uts", "mount")),
                {"type": "network", "path": str(task.netns)},
            ],
            "resources": {"devices": list(DEVICE_RULES), "cpu": {"shares": _MIN_CPU_SHARES}},
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READONLY_PATHS),
            "seccomp": render_seccomp(task.architecture, ()),
        },
    }
    return json.dumps(spec, separators=(",", ":")).encode()
