"""What a task needs of an agent, and whether an agent has it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from fargate_agent.controlplane.file_labels import asks_for_files
from fargate_agent.controlplane.state.model import ContainerInstance
from fargate_agent.controlplane.tasks.health import has_check, may_restart
from fargate_agent.controlplane.validate import Json
from fargate_agent.controlplane.vpc.plan import Subnet
from fargate_agent.controlplane.vpc_settings import DEFAULT_SECURITY_GROUP
from fargate_agent.wire.attributes import (
    ARCHITECTURE,
    CNI_NETWORK,
    CONTAINER_FILES,
    CONTAINER_HEALTH,
    CONTAINER_INIT,
    CONTAINER_RESTARTS,
    CONTAINER_SHM,
    CONTAINER_STDIN,
    CONTAINER_SYSCTLS,
    DOCKER_PLUGIN,
    EBS_FILE_SYSTEM,
    EBS_VOLUMES,
    EFS,
    EFS_AUTHORIZATION,
    EMULATES,
    EPHEMERAL_STORAGE,
    FIRELENS,
    HOST_VOLUMES,
    IPV6,
    LOG_DRIVER,
    MACVLAN_PARENT,
    NIC,
    PID_SHARING,
    SECURITY_GROUPS,
    TASK_ENI,
    VLAN_TRUNK,
    name_mac,
)
from fargate_agent.wire.container_paths import normalize_path
from fargate_agent.wire.eni_kinds import EniKind

ARCHITECTURES: Final = {"X86_64": "x86_64", "ARM64": "arm64"}
"""Values of the attribute by those of a task definition."""


@dataclass(frozen=True, slots=True)
class Need:
    """Something that an agent must be able to do."""

    what: str
    """In words, e.g. `log driver gelf`."""
    attributes: tuple[tuple[str, str], ...]
    """Names and values; one of them will do."""


def find_needs(definition: Json, containers: Sequence[Json]) -> tuple[Need, ...]:
    """Return what the tasks of a definition need, wherever they are put."""
    return tuple(
        dict.fromkeys(
            (
                *_find_machine(definition),
                *_find_volumes(definition),
                *_find_logging(containers),
                *_find_life(containers),
            )
        )
    )


def find_volume_needs(filesystems: Iterable[str]) -> tuple[Need, ...]:
    """Return what tasks with EBS volumes need, by the types of their file systems."""
    return tuple(
        need
        for kind in filesystems
        for need in (
            _need("EBS volumes", EBS_VOLUMES),
            _need(f"EBS volumes with {kind}", EBS_FILE_SYSTEM + kind),
        )
    )


def find_storage_needs(document: Json, overrides: Json) -> tuple[Need, ...]:
    """Return what a task needs that has another ephemeral volume than by default."""
    if document.get("ephemeralStorage") or overrides.get("ephemeralStorage"):
        return (_need("ephemeral storage of a size of its own", EPHEMERAL_STORAGE),)
    return ()


def find_group_needs(security_groups: Sequence[str]) -> tuple[Need, ...]:
    """Return what a task needs that names security groups: agents of before enforce none."""
    if set(security_groups) <= {DEFAULT_SECURITY_GROUP}:
        return ()
    return (_need("security groups", SECURITY_GROUPS),)


def find_subnet_needs(subnet: Subnet) -> tuple[Need, ...]:
    """Return what a task needs to have an ENI in a subnet."""
    needs = []
    if subnet.kind is EniKind.NIC:
        needs.append(_need_nic(*subnet.nics))
    elif subnet.kind is EniKind.VLAN and subnet.parent is not None:
        needs.append(_need(f"trunk {subnet.parent}", VLAN_TRUNK + name_mac(subnet.parent)))
    elif subnet.kind is EniKind.CNI and subnet.parent is not None:
        needs.append(_need(f"CNI network {subnet.parent}", CNI_NETWORK + subnet.parent))
    elif subnet.parent is not None:
        needs.append(_need(f"network interface {subnet.parent}", MACVLAN_PARENT + subnet.parent))
    if subnet.ipv6_cidr is not None:
        needs.append(_need("IPv6", IPV6))
    return tuple(needs)


def find_eni_needs(subnet: Subnet, mac: str) -> tuple[Need, ...]:
    """Return what a task needs to have one ENI of a subnet, beside what all of them need."""
    return (_need_nic(mac),) if subnet.kind is EniKind.NIC else ()


def find_missing(instance: ContainerInstance, needs: Sequence[Need]) -> list[Need]:
    """Return what an instance lacks.

    One that doesn't say what it can do, as agents of before, is taken to have everything.
    """
    has = {
        attribute["name"]: attribute.get("value", "")
        for attribute in instance.document.get("attributes", [])
    }
    if TASK_ENI not in has:
        return []
    return [need for need in needs if not _has(has, need)]


def _find_machine(definition: Json) -> Iterator[Need]:
    architecture = definition.get("runtimePlatform", {}).get("cpuArchitecture", "X86_64")
    name = ARCHITECTURES[architecture]
    yield Need(f"architecture {architecture}", ((ARCHITECTURE, name), (EMULATES + name, "")))
    if definition.get("pidMode") == "task":
        yield _need("PID namespaces of tasks", PID_SHARING)
    for volume in definition.get("volumes", []):
        if path := volume.get("host", {}).get("sourcePath"):
            named = PurePosixPath(normalize_path(path))
            attributes = tuple((f"{HOST_VOLUMES}{one}", "") for one in (named, *named.parents))
            yield Need(f"host.sourcePath {path} (its setting host_volume_paths)", attributes)


def _find_volumes(definition: Json) -> Iterator[Need]:
    for volume in definition.get("volumes", []):
        if "efsVolumeConfiguration" in volume:
            yield _need("EFS volumes", EFS)
            if volume["efsVolumeConfiguration"].get("authorizationConfig"):
                yield _need("authorization of EFS volumes", EFS_AUTHORIZATION)
        if "dockerVolumeConfiguration" in volume:
            driver = volume["dockerVolumeConfiguration"].get("driver", "local")
            yield _need(f"volume driver {driver}", DOCKER_PLUGIN + driver)


def _find_logging(containers: Iterable[Json]) -> Iterator[Need]:
    for container in containers:
        if driver := container.get("logConfiguration", {}).get("logDriver"):
            yield _need(f"log driver {driver}", LOG_DRIVER + driver)
        if kind := container.get("firelensConfiguration", {}).get("type"):
            yield _need(f"log router {kind}", FIRELENS + kind)


def _find_life(containers: Iterable[Json]) -> Iterator[Need]:
    for container in containers:
        if has_check(container):
            yield _need("container health checks", CONTAINER_HEALTH)
        if may_restart(container):
            yield _need("container restart policies", CONTAINER_RESTARTS)
        yield from _find_linux(container.get("linuxParameters", {}))
        if container.get("interactive"):
            yield _need("interactive containers", CONTAINER_STDIN)
        if container.get("systemControls"):
            yield _need("systemControls", CONTAINER_SYSCTLS)
        if asks_for_files(container):
            yield _need("files in the place of variables", CONTAINER_FILES)


def _find_linux(parameters: Json) -> Iterator[Need]:
    if parameters.get("initProcessEnabled"):
        yield _need("inits of containers", CONTAINER_INIT)
    if parameters.get("sharedMemorySize"):
        yield _need("sharedMemorySize", CONTAINER_SHM)


def _need(what: str, attribute: str) -> Need:
    return Need(what, ((attribute, ""),))


def _need_nic(*macs: str) -> Need:
    return Need(f"NIC {' or '.join(macs)}", tuple((NIC + name_mac(mac), "") for mac in macs))


def _has(has: Mapping[str, str], need: Need) -> bool:
    return any(has.get(name) == value for name, value in need.attributes)
