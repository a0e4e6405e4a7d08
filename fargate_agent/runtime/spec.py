"""What runC is told about a container: the OCI runtime specification.

A container looks as it does under Docker, but for two things that Fargate does: it joins a network
namespace that exists already, and it has no control group namespace, so that
/proc/self/cgroup says which task and container this is.

Source: OCI runtime specification, config.md and config-linux.md; defaults are Docker's.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from fargate_agent.drivers import ImageConfig
from fargate_agent.errors import CannotCreateContainerError
from fargate_agent.plan import ContainerPlan, MountPlan, TaskPlan, TmpfsPlan
from fargate_agent.runtime.host import HostLimits
from fargate_agent.runtime.init import INIT_DESTINATION, NO_INIT
from fargate_agent.runtime.seccomp import JsonObject, render_seccomp
from fargate_agent.runtime.secret_files import find_sources
from fargate_agent.runtime.users import ContainerUser

OCI_VERSION: Final = "1.0.2"
"""The youngest one that runC 1.1 knows."""

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

ETC_FILES: Final = ("hosts", "hostname", "resolv.conf")
"""Files of the task that each of its containers has in /etc."""

ETC_DIRECTORY: Final = "etc"
"""Where they are, in the task's ephemeral volume."""

MAX_HOSTNAME_CHARS: Final = 64
"""Source: Linux, `__NEW_UTS_LEN`."""

MASKED_PATHS: Final = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS: Final = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)

_SYSCTLS: Final[Mapping[str, str]] = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 2147483647",
}
"""Any user may bind low ports and ping: nobody else is in the task's network namespace.
What the definition says wins."""

DEVICE_RULES: Final = (
    {"allow": False, "access": "rwm"},
    {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
    {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "rwm"},
    {"allow": True, "type": "c", "major": 1, "minor": 8, "access": "rwm"},
    {"allow": True, "type": "c", "major": 1, "minor": 9, "access": "rwm"},
    {"allow": True, "type": "c", "major": 5, "minor": 0, "access": "rwm"},
    {"allow": True, "type": "c", "major": 5, "minor": 1, "access": "rwm"},
    {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
)
"""null, zero, random, urandom, tty and console, but not fuse.
Source: Linux, Documentation/admin-guide/devices.txt."""

_MIB: Final = 1 << 20

DEFAULT_SHM_SIZE_MIB: Final = 64
"""Size of /dev/shm. Source: moby, daemon/config, `DefaultShmSize`."""

_TMPFS_DEFAULTS: Final = ("noexec", "nosuid", "nodev")
_OPPOSITES: Final[Mapping[str, str]] = {
    "exec": "noexec",
    "suid": "nosuid",
    "dev": "nodev",
    "defaults": "",
}


def render_spec(
    task: TaskPlan,
    container: ContainerPlan,
    image: ImageConfig,
    user: ContainerUser,
    host: HostLimits,
    pid_namespace: Path | None = None,
) -> bytes:
    """Return the specification as JSON.

    `pid_namespace` is that of the task, if its containers share one.

    Raises:
        CannotCreateContainerError: neither the task nor the image says what to run; or the host
            has no init, and the container asks for one.
    """
    capabilities = host.fit_capabilities(container)
    init = _find_init(container, host)
    spec: JsonObject = {
        "ociVersion": OCI_VERSION,
        "root": {"path": "rootfs", "readonly": container.readonly_rootfs},
        "hostname": task.dns.hostname[:MAX_HOSTNAME_CHARS],
        "process": {
            "terminal": container.terminal,
            "user": {
                "uid": user.uid,
                "gid": user.gid,
                "additionalGids": list(user.additional_gids),
            },
            "args": [*([INIT_DESTINATION, "--"] if init else []), *plan_args(container, image)],
            "env": plan_environment(task, container, image),
            "cwd": plan_directory(container, image),
            "capabilities": _render_capabilities(capabilities, user),
            "rlimits": [
                {
                    "type": f"RLIMIT_{ulimit.name.upper()}",
                    "soft": _unsigned(ulimit.soft),
                    "hard": _unsigned(ulimit.hard),
                }
                for ulimit in host.fit_ulimits(container)
            ],
            "oomScoreAdj": 0,
            "noNewPrivileges": False,
            **({"apparmorProfile": host.apparmor_profile} if host.apparmor_profile else {}),
        },
        "mounts": [*_default_mounts(container), *_own_mounts(task, container), *map(_bind, init)],
        "linux": {
            "cgroupsPath": container.cgroup,
            "namespaces": [
                {"type": "pid", **({"path": str(pid_namespace)} if pid_namespace else {})},
                *({"type": kind} for kind in ("ipc", "uts", "mount")),
                {"type": "network", "path": str(task.netns)},
            ],
            "resources": _render_resources(container, host),
            "sysctl": dict(_SYSCTLS) | dict(container.sysctls),
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READONLY_PATHS),
            "seccomp": render_seccomp(task.architecture, capabilities),
        },
    }
    return json.dumps(spec, separators=(",", ":")).encode()


def plan_args(container: ContainerPlan, image: ImageConfig) -> list[str]:
    """Return what to run. An entry point of the task drops the image's command too.

    Raises:
        CannotCreateContainerError: nothing is left.
    """
    if container.entry_point:
        args = [*container.entry_point, *(container.command or ())]
    else:
        args = [*image.entrypoint, *(container.command or image.command)]
    if not args:
        raise CannotCreateContainerError("no command specified", container=container.name)
    return args


def plan_directory(container: ContainerPlan, image: ImageConfig) -> str:
    """Return where the program begins."""
    return "/" + (container.working_directory or image.working_directory).lstrip("/")


def plan_environment(task: TaskPlan, container: ContainerPlan, image: ImageConfig) -> list[str]:
    """Return `NAME=value`, each name once; the task wins over the image over the defaults.

    But for what gives way if the image has an opinion: see `ContainerPlan.gives_way`.
    """
    environment = {"PATH": DEFAULT_PATH, "HOSTNAME": task.dns.hostname}
    if container.terminal:
        environment["TERM"] = "xterm"
    for variable in image.environment:
        name, is_set, value = variable.partition("=")
        if is_set:
            environment[name] = value
    given_way = {n for names in container.gives_way if names & environment.keys() for n in names}
    environment |= {k: v for k, v in container.environment.items() if k not in given_way}
    return [f"{name}={value}" for name, value in environment.items()]


def _find_init(container: ContainerPlan, host: HostLimits) -> tuple[MountPlan, ...]:
    """Return the mount of the container's init, if it has one."""
    if not container.init:
        return ()
    if host.init_program is None:
        raise CannotCreateContainerError(NO_INIT)
    source, destination = host.init_program, INIT_DESTINATION
    return (MountPlan(source=source, destination=destination, read_only=True),)


def _render_capabilities(capabilities: Iterable[str], user: ContainerUser) -> JsonObject:
    """A user other than root has them only through programs that carry them, as with Docker."""
    names = list(capabilities)
    own = names if user.uid == 0 else []
    return {"bounding": names, "permitted": own, "effective": own}


def _render_resources(container: ContainerPlan, host: HostLimits) -> JsonObject:
    memory: JsonObject = {}
    if container.memory_mib is not None:
        memory["limit"] = container.memory_mib * _MIB
        if host.limits_swap:
            memory["swap"] = container.memory_mib * _MIB
    if container.memory_reservation_mib is not None:
        memory["reservation"] = container.memory_reservation_mib * _MIB
    return {
        "devices": list(DEVICE_RULES),
        "cpu": {"shares": container.cpu_shares},
        "memory": memory,
        **({"pids": {"limit": host.pids_limit}} if host.pids_limit else {}),
    }


def _default_mounts(container: ContainerPlan) -> Iterator[JsonObject]:
    shm_size_mib = container.shm_size_mib or DEFAULT_SHM_SIZE_MIB
    closed = ["nosuid", "noexec", "nodev"]
    yield _mount("/proc", "proc", "proc", closed)
    yield _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"])
    yield _mount(
        "/dev/pts",
        "devpts",
        "devpts",
        ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    )
    yield _mount("/sys", "sysfs", "sysfs", [*closed, "ro"])
    yield _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*closed, "ro"])
    yield _mount("/dev/mqueue", "mqueue", "mqueue", closed)
    yield _mount(
        "/dev/shm",  # noqa: S108 - a path in the container
        "tmpfs",
        "shm",
        [*closed, "mode=1777", f"size={shm_size_mib}m"],
    )


def _own_mounts(task: TaskPlan, container: ContainerPlan) -> list[JsonObject]:
    """The files of task and container, volumes and tmpfs; a directory before what lies in it."""
    etc = (
        MountPlan(
            source=task.storage / ETC_DIRECTORY / name,
            destination=f"/etc/{name}",
            read_only=container.readonly_rootfs,
        )
        for name in ETC_FILES
    )
    mounts = [
        *(_bind(mount) for mount in (*etc, *container.mounts)),
        *(_bind_file(*file) for file in find_sources(task, container).items()),
        *(_tmpfs(tmpfs) for tmpfs in container.tmpfs),
    ]
    return sorted(mounts, key=lambda mount: str(mount["destination"]).strip("/").count("/"))


def _bind(mount: MountPlan) -> JsonObject:
    """A device that a container makes on a volume is of no use, be it in another container."""
    options = ["rbind", "rprivate", "nodev", "ro" if mount.read_only else "rw"]
    return _mount(mount.destination, "bind", str(mount.source), options)


def _bind_file(destination: str, source: Path) -> JsonObject:
    options = ["bind", "rprivate", "nosuid", "nodev", "noexec", "ro"]
    return _mount(destination, "bind", str(source), options)


def _tmpfs(tmpfs: TmpfsPlan) -> JsonObject:
    overridden = {_OPPOSITES[option] for option in tmpfs.options if option in _OPPOSITES}
    defaults = [option for option in _TMPFS_DEFAULTS if option not in overridden]
    own = [option for option in tmpfs.options if option != "defaults"]
    return _mount(tmpfs.destination, "tmpfs", "tmpfs", [*defaults, *own, f"size={tmpfs.size_mib}m"])


def _mount(destination: str, kind: str, source: str, options: list[str]) -> JsonObject:
    return {"destination": destination, "type": kind, "source": source, "options": options}


def _unsigned(value: int) -> int:
    """A limit as the specification has it: unlimited is the largest number of 64 bits."""
    return value % 2**64
