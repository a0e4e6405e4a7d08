"""Rules about the volumes of a task, whatever it runs on."""

from typing import Final

from fargate_agent.controlplane.errors import ApiError, client_error
from fargate_agent.controlplane.rules.draft import Draft
from fargate_agent.controlplane.rules.task import NAME
from fargate_agent.controlplane.validate import Json
from fargate_agent.wire.container_paths import find_path_fault, normalize_path

MAX_SHARED_NAME_CHARS: Final = 240
"""The agent writes `.NAME.json.` and 8 characters, a file name of 255 bytes at most.
Source: Linux, include/uapi/linux/limits.h, `NAME_MAX`."""
_KINDS: Final = (
    "host",
    "dockerVolumeConfiguration",
    "efsVolumeConfiguration",
    "s3filesVolumeConfiguration",
    "fsxWindowsFileServerVolumeConfiguration",
    "configuredAtLaunch",
)


def check_volumes(draft: Draft) -> None:
    """Raise if a volume on its own is wrong."""
    volumes = draft.request.get("volumes", [])
    for volume in volumes:
        _check_volume(volume)
        if "s3filesVolumeConfiguration" in volume and "taskRoleArn" not in draft.request:
            # unverified
            raise client_error("S3 Files volumes require a value for 'taskRoleArn'.")
    names = [volume["name"] for volume in volumes]
    if len(set(names)) != len(names):  # unverified
        raise client_error("Volume names must be unique within a task definition")
    if sum(volume.get("configuredAtLaunch", False) for volume in volumes) > 1:  # unverified
        raise client_error("A task definition can have at most one volume configured at launch.")


def check_mounts(draft: Draft) -> None:
    """Raise if a container mounts what isn't there, or if a volume is mounted nowhere."""
    known, used = [volume["name"] for volume in draft.request.get("volumes", [])], set[str]()
    for container, point in draft.members("mountPoints"):
        name = point.get("sourceVolume", "")
        if name not in known:
            raise client_error(f"Unknown volume '{name}'.")
        path = point.get("containerPath")
        if not path:  # unverified
            raise client_error("MountPoint.containerPath should not be null or empty.")
        if fault := find_path_fault(path):  # unverified
            raise _invalid(container, f"containerPath '{path}' {fault}")
        used.add(name)
    for container in draft.containers:
        _check_paths(container)
    if unused := [name for name in known if name not in used]:
        raise client_error(
            f"Volumes [{', '.join(unused)}] are not referenced by any of the containers"
        )


def _check_paths(container: Json) -> None:
    """Raise if two mounts of a container have the same path, as Docker does."""
    used: set[str] = set()
    tmpfs = container.get("linuxParameters", {}).get("tmpfs", [])
    for one in (*tmpfs, *container.get("mountPoints", [])):
        path = normalize_path(one["containerPath"])
        if path in used:  # unverified
            raise _invalid(container, f"two mounts at {path}")
        used.add(path)


def _invalid(container: Json, fault: str) -> ApiError:
    return client_error(
        f"Invalid 'mountPoints' setting for container '{container['name']}': {fault}."
    )


def _check_volume(volume: Json) -> None:
    if not NAME.fullmatch(volume.get("name", "")):  # unverified
        raise client_error("Volume name should be 1 to 255 letters, digits, hyphens, underscores.")
    if sum(bool(volume.get(kind)) for kind in _KINDS) > 1:  # unverified
        raise client_error(f"Volume '{volume['name']}' has more than one configuration.")
    source_path = volume.get("host", {}).get("sourcePath") or "/x"
    if (fault := find_path_fault(source_path)) and source_path != "/":  # unverified
        raise client_error(f"Volume '{volume['name']}': sourcePath '{source_path}' {fault}.")
    if "efsVolumeConfiguration" in volume:
        _check_efs(volume["efsVolumeConfiguration"])
    docker = volume.get("dockerVolumeConfiguration", {})
    if docker.get("scope") == "shared" and len(volume["name"]) > MAX_SHARED_NAME_CHARS:
        raise client_error(
            f"Volume '{volume['name']}': the name of a volume of the scope shared has at most "
            f"{MAX_SHARED_NAME_CHARS} characters."
        )
    if "autoprovision" in docker and docker.get("scope", "task") != "shared":  # unverified
        raise client_error(
            f"Volume '{volume['name']}': autoprovision is only for volumes of the scope shared."
        )


def _check_efs(efs: Json) -> None:
    authorization = efs.get("authorizationConfig", {})
    if efs.get("transitEncryption") != "ENABLED":
        if authorization.get("iam") == "ENABLED":
            raise client_error("EFS IAM authorization requires TransitEncryption to be enabled.")
        if authorization.get("accessPointId"):  # unverified
            raise client_error("EFS access points require TransitEncryption to be enabled.")
        if efs.get("transitEncryptionPort"):
            raise client_error("TransitEncryptionPort requires that TransitEncryption is enabled.")
    if authorization.get("accessPointId") and efs.get("rootDirectory", "/") != "/":
        raise client_error(
            'When using an EFS access point, the root directory must either be set to "/" or be '
            "omitted."
        )
