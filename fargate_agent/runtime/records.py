"""What containerd remembers of a container for whoever comes later."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.containers import ContainerRecord
from fargate_agent.drivers import Image
from fargate_agent.plan import ContainerPlan, TaskPlan

TASK_LABEL: Final = "fargate.task"
"""On a container's record and on a task's lease: the id of the task."""

CONTAINER_LABEL: Final = "fargate.container"
"""The name in the task definition."""

STOP_SIGNAL_LABEL: Final = "fargate.stop-signal"
"""As the image says it; absent if it doesn't."""

OOM_KILLS_LABEL: Final = "fargate.oom-kills"
"""How many of its processes the kernel had killed for memory when its present run began; absent
if none. Where systemd owns the groups, a container's outlives its runs, and counts on."""

STDIN_LABEL: Final = "fargate.stdin"
"""The FIFO of one that is `interactive`; absent if it isn't."""

MAX_LABEL_BYTES: Final = 4096
"""Longest name and value of a label together. Source: containerd, labels/validate.go."""

_RESERVED: Final = ("containerd.io/", "fargate.")
"""The first make containerd do things, e.g. start a program of one's choice as root; the others
are ours. A task definition may set neither."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRoot:
    """What the record of a container says of its root file system."""

    snapshotter: str
    snapshot_key: str = ""
    """The snapshot that it is written to; empty: it isn't written to a snapshot."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """These keep what it consists of from the garbage collector."""


def render_record(
    task: TaskPlan,
    container: ContainerPlan,
    image: Image,
    spec: bytes,
    root: RecordedRoot,
) -> ContainerRecord:
    """Return the record of a container."""
    stop_signal = image.config.stop_signal
    return ContainerRecord(
        id=container.id,
        image=image.name,
        spec=spec,
        snapshotter=root.snapshotter,
        snapshot_key=root.snapshot_key,
        labels={
            **_keep_harmless(container.labels),
            **root.labels,
            TASK_LABEL: task.id,
            CONTAINER_LABEL: container.name,
            **({STOP_SIGNAL_LABEL: stop_signal} if stop_signal else {}),
            **({STDIN_LABEL: str(container.stdin)} if container.stdin else {}),
        },
    )


def render_cgroup(task_id: str) -> str:
    """Return the control group of a task that has no plan; a plan has its own."""
    return f"/ecs/{task_id}"


async def find_containers(containerd: Containerd, task_id: str) -> tuple[ContainerRecord, ...]:
    """Return the records of a task's containers.

    Raises:
        ContainerdError: containerd didn't say.
    """
    return await containerd.containers.list([f'labels."{TASK_LABEL}"=="{task_id}"'])


async def find_leases(containerd: Containerd, task_id: str) -> tuple[str, ...]:
    """Return the ids of a task's leases.

    Raises:
        ContainerdError: containerd didn't say.
    """
    leases = await containerd.leases.list()
    return tuple(lease.id for lease in leases if lease.labels.get(TASK_LABEL) == task_id)


async def find_tasks(containerd: Containerd) -> set[str]:
    """Return the ids of all tasks that have a lease or a container.

    Raises:
        ContainerdError: containerd didn't say.
    """
    leases = await containerd.leases.list()
    records = await containerd.containers.list([f'labels."{TASK_LABEL}"'])
    labels = [lease.labels for lease in leases] + [record.labels for record in records]
    return {one[TASK_LABEL] for one in labels if TASK_LABEL in one}


def _keep_harmless(labels: Mapping[str, str]) -> dict[str, str]:
    """Drop what containerd would act on, or refuse; the metadata endpoint still tells of it."""
    return {
        name: value
        for name, value in labels.items()
        if not name.startswith(_RESERVED) and len((name + value).encode()) <= MAX_LABEL_BYTES
    }
