"""What Fargate refuses and other capacity of ECS doesn't."""

import re
from typing import Final

from fargate_agent.controlplane.errors import ApiError, client_error
from fargate_agent.controlplane.rules.draft import Draft
from fargate_agent.controlplane.rules.logs import (
    NOT_ON_FARGATE,
    driver_of,
    refuse_awslogs_options,
)
from fargate_agent.controlplane.sizes import check_pair, check_windows_pair, no_configuration
from fargate_agent.controlplane.validate import Json
from fargate_agent.wire.log_options import DRIVER_OPTIONS

LOG_DRIVERS: Final = tuple(name for name, one in DRIVER_OPTIONS.items() if one.on_fargate)
MAX_TIMEOUT_S: Final = 120
"""Source: ECS API, ContainerDefinition.startTimeout and stopTimeout."""
MAX_OPEN_FILES: Final = 1048576
"""Source: ECS developer guide, "Fargate task definition considerations", resource limits."""

_ECR_IMAGE: Final = re.compile(r"[0-9]{12}\.dkr[.-]ecr[a-z-]*\.[a-z0-9.-]+/.+")
"""Source: Amazon ECR user guide, "Registry URLs"."""

_NO_CONTAINER_MEMBERS: Final = ("dockerSecurityOptions", "credentialSpecs")  # second: unverified
_NO_LINUX_PARAMETERS: Final = ("devices", "sharedMemorySize", "maxSwap", "swappiness")
"""The last one is unverified."""
_NO_VOLUMES: Final = ("dockerVolumeConfiguration", "fsxWindowsFileServerVolumeConfiguration")
"""The last one is unverified."""


def check_network_mode(draft: Draft) -> None:
    """Raise if the task has no ENI of its own."""
    if not draft.is_awsvpc:
        raise client_error("Fargate only supports network mode ‘awsvpc’.")


def check_task(draft: Draft) -> None:
    """Raise for members of the task."""
    request = draft.request
    if request.get("pidMode", "task") != "task":
        raise client_error(
            f"Tasks using the Fargate launch type do not support pidMode '{request['pidMode']}'. "
            "The supported value for pidMode is 'task'."
        )
    if "ipcMode" in request:
        raise _unsupported("ipcMode")
    if request.get("placementConstraints"):
        raise _unsupported("constraints")
    if "trustedExecutionConfiguration" in request:  # unverified
        raise _unsupported("trustedExecutionConfiguration")


def check_containers(draft: Draft) -> None:
    """Raise for members of a container."""
    for container in draft.containers:
        if container.get("privileged"):
            raise client_error(
                "Fargate requires that the ‘privileged’ setting be ‘false’ at the container level."
            )
        for member in _NO_CONTAINER_MEMBERS:
            if container.get(member):
                raise _unsupported(member)
        _check_linux_parameters(container.get("linuxParameters", {}))
        _check_limits(container)
        for requirement in container.get("resourceRequirements", []):
            raise client_error(
                f"Tasks using the Fargate launch type do not support {requirement['type']} "
                "resource requirements."
            )
        if is_ecr_image(container["image"]) and "executionRoleArn" not in draft.request:
            raise client_error(
                "Fargate requires task definition to have execution role ARN to support ECR images."
            )


def check_log_drivers(draft: Draft) -> None:
    """Raise if the output of a container would go where Fargate doesn't send it."""
    for container in draft.containers:
        driver = driver_of(container)
        if driver is not None and driver not in LOG_DRIVERS:
            raise client_error(
                f"{driver} is not a valid log driver. Must be one of [{','.join(LOG_DRIVERS)}]"
            )
        if driver == "awslogs":
            _check_awslogs(container["logConfiguration"].get("options", {}), draft)
        router = container.get("firelensConfiguration", {}).get("options", {})
        if router.get("config-file-type") == "s3":
            raise client_error(
                "Fargate launch type does not support FirelensConfiguration config file from 's3'"
            )


def check_size(draft: Draft) -> None:
    """Raise if Fargate has no tasks of this size for the platform."""
    cpu_units, memory_mib = draft.cpu_units(), draft.memory_mib()
    if cpu_units is None:
        raise client_error("Fargate requires that 'cpu' be defined at the task level.")
    if memory_mib is None:
        raise client_error("Fargate requires that 'memory' be defined at the task level.")
    check_pair(cpu_units, memory_mib, has_32_vcpus=draft.has_32_vcpus)
    if draft.is_windows:
        check_windows_pair(cpu_units, memory_mib)
        if draft.request["runtimePlatform"].get("cpuArchitecture") == "ARM64":
            raise no_configuration(cpu_units, memory_mib)


def check_volumes(draft: Draft) -> None:
    """Raise if a volume lies where Fargate has none."""
    for volume in draft.request.get("volumes", []):
        if volume.get("host", {}).get("sourcePath"):
            raise _unsupported("sourcePath")
        for kind in _NO_VOLUMES:
            if kind in volume:
                raise _unsupported(kind)


def is_ecr_image(image: str) -> bool:
    """Whether an image lies in a private registry of Amazon ECR."""
    return _ECR_IMAGE.fullmatch(image) is not None


def _check_linux_parameters(parameters: Json) -> None:
    for capability in parameters.get("capabilities", {}).get("add", []):
        if capability != "SYS_PTRACE":
            raise client_error(f"{capability} is not allowed on Fargate.")
    for member in _NO_LINUX_PARAMETERS:
        if parameters.get(member, []) != []:
            raise _unsupported(member)


def _check_limits(container: Json) -> None:
    for member, what in (("startTimeout", "start"), ("stopTimeout", "stop")):
        if container.get(member, 0) > MAX_TIMEOUT_S:  # start: unverified
            raise client_error(
                f"Tasks using the Fargate launch type must have a container {what} timeout of less "
                f"than {MAX_TIMEOUT_S} seconds."
            )
    for ulimit in container.get("ulimits", []):
        if ulimit["name"] == "nofile" and not _is_within(ulimit, MAX_OPEN_FILES):  # unverified
            raise client_error(
                f"Fargate supports a nofile ulimit of at most {MAX_OPEN_FILES} open files."
            )


def _is_within(ulimit: Json, most: int) -> bool:
    return all(0 <= ulimit[member] <= most for member in ("softLimit", "hardLimit"))


def _check_awslogs(options: Json, draft: Draft) -> None:
    refuse_awslogs_options(options.keys() & NOT_ON_FARGATE)
    if "awslogs-stream-prefix" not in options:
        raise client_error(
            "Fargate requires log configuration options to include awslogs-stream-prefix to "
            "support log driver awslogs."
        )
    if "executionRoleArn" not in draft.request:
        raise client_error(
            "Fargate requires task definition to have execution role ARN to support log driver "
            "awslogs."
        )


def _unsupported(what: str) -> ApiError:
    return client_error(f"Fargate compatible task definitions do not support {what}")
