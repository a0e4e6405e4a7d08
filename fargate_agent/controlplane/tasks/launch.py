"""What RunTask asks for, checked and decided before a task is made. Pure.

Source: error texts as measured on the ECS API.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from fargate_agent.controlplane.agents.needs import (
    ARCHITECTURES,
    Need,
    find_group_needs,
    find_needs,
    find_storage_needs,
    find_volume_needs,
)
from fargate_agent.controlplane.clusters.strategies import share
from fargate_agent.controlplane.errors import (
    ApiError,
    client_error,
    invalid_parameter,
    unsupported,
    unsupported_members,
)
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.sizes import is_pair
from fargate_agent.controlplane.state.model import TaskDefinition
from fargate_agent.controlplane.tags import check_tags
from fargate_agent.controlplane.tasks.managed_volumes import ManagedVolume, plan_volumes
from fargate_agent.controlplane.tasks.overrides import (
    TaskSize,
    check_overridden,
    override_containers,
    plan_size,
    render_overrides,
)
from fargate_agent.controlplane.validate import Json, check_length
from fargate_agent.controlplane.vpc import Subnet, Vpc

MAX_COUNT: Final = 10
"""Source: ECS API, RunTask.count."""
MAX_STARTED_BY_CHARS: Final = 128
"""Source: ECS API, RunTask.startedBy."""
MAX_CLIENT_TOKEN_CHARS: Final = 64
"""Source: ECS API, RunTask.clientToken."""

PLATFORM_VERSION: Final = "1.4.0"
RELAXED: Final = {"name": "fargate.relaxed", "value": "true"}
"""Attribute of a task that Fargate would refuse."""

_PLATFORM_VERSIONS: Final = {PLATFORM_VERSION, "LATEST"}
NO_ROLE_FOR_EXEC: Final = (
    "The execute command failed because a valid task role is not being used. Specify a valid task "
    "role in your task definition or as a task override and try again."
)
_OTHER_NETWORK_MODES: Final = {"host", "none"}
"""What can't be had even where Fargate's rules don't count: each task has an ENI of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceMark:
    """What a task has from being a service's."""

    name: str
    deployment_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Tasks to be made, all alike."""

    cluster: str
    definition: TaskDefinition
    count: int
    containers: list[Json]
    """Of the definition, with the overrides."""
    size: TaskSize
    needs: tuple[Need, ...]
    """Beside room, of an agent; the subnets have some of their own."""
    volumes: tuple[ManagedVolume, ...]
    """Each task has its own."""
    subnets: tuple[Subnet, ...]
    security_groups: tuple[str, ...]
    """Empty: the default one."""
    group: str
    started_by: str | None
    service: ServiceMark | None
    tags: list[Json]
    providers: list[str | None]
    """Name of the capacity provider of each task; None: a launch type was asked for."""
    document: Json
    """What all of these tasks show in DescribeTasks and never changes."""


def plan_launch(  # noqa: PLR0913 - what a launch follows from, each of another kind
    plane: Plane,
    vpc: Vpc,
    cluster: str,
    definition: TaskDefinition,
    request: Json,
    service: ServiceMark | None = None,
    placed: Mapping[str, int] | None = None,
) -> Launch:
    """Decide what a RunTask request means; the first thing that is wrong is what is said.

    Args:
        plane: its settings.
        vpc: what there is of the subnets and security groups that are named.
        cluster: name of the cluster.
        definition: that is meant.
        request: the request, or what a service makes of its own.
        service: whose tasks these are.
        placed: how many tasks of the service the capacity providers have already.

    Raises:
        ApiError: it can't be done.
    """
    document, overrides = definition.document, request.get("overrides", {})
    _check_capacity(request)
    _check_count(request)
    is_relaxed = cluster in plane.settings.relaxed_clusters
    if not is_relaxed and (request.get("launchType") or request.get("capacityProviderStrategy")):
        _check_compatible(document)
    network = _check_network(vpc, request, document, relaxed=is_relaxed)
    if not is_relaxed:
        _check_compatible(document)
    _check_platform(request, document)
    containers = override_containers(document, overrides)
    has_32_vcpus = plane.settings.has_32_vcpus
    size = plan_size(document, overrides, relaxed=is_relaxed, has_32_vcpus=has_32_vcpus)
    if overrides:
        check_overridden(document, overrides, containers, size, plane.settings.account)
    volumes = plan_volumes(request.get("volumeConfigurations", []), document)
    size = replace(size, volumes_gib=sum(volume.size_gib or 0 for volume in volumes))
    _check_rest(request, document)
    count = request.get("count", 1)
    return Launch(
        cluster=cluster,
        definition=definition,
        count=count,
        containers=containers,
        size=size,
        needs=(
            *find_needs(document, containers),
            *find_storage_needs(document, overrides),
            *find_volume_needs(v.filesystem_type for v in volumes),
            *find_group_needs(network.get("securityGroups", ())),
        ),
        volumes=volumes,
        subnets=tuple(vpc.subnets[subnet] for subnet in dict.fromkeys(network["subnets"])),
        security_groups=tuple(network.get("securityGroups", [])),
        group=_plan_group(request, definition, service),
        started_by=request.get("startedBy") if service is None else service.deployment_id,
        service=service,
        tags=_plan_tags(request, definition, cluster, service),
        providers=share(request.get("capacityProviderStrategy", []), placed or {}, count),
        document=_render_document(
            request,
            document,
            size,
            has_size=is_pair(size.cpu_units, size.memory_mib, has_32_vcpus=has_32_vcpus),
        ),
    )


def check_runnable(definition: TaskDefinition | None) -> TaskDefinition:
    """Return a definition of which tasks may be made.

    Raises:
        ApiError: there is none, or it was taken back.
    """
    if definition is None:
        raise client_error("TaskDefinition not found.")
    if definition.status != "ACTIVE":
        raise client_error("TaskDefinition is inactive")
    return definition


def _check_capacity(request: Json) -> None:
    """Tasks run on Fargate, whether it is named or not: there is nothing else here."""
    launch_type = request.get("launchType")
    if launch_type and request.get("capacityProviderStrategy"):
        raise invalid_parameter(
            "Specifying both a launch type and capacity provider strategy is not supported. "
            "Remove one and try again."
        )
    if launch_type not in {None, "FARGATE"}:
        raise invalid_parameter("No Container Instances were found in your cluster.")


def _check_count(request: Json) -> None:
    if not 1 <= request.get("count", 1) <= MAX_COUNT:  # text unverified
        raise invalid_parameter(f"count must be between 1 and {MAX_COUNT}.")


def _check_compatible(document: Json) -> None:
    if "FARGATE" not in document["compatibilities"]:
        raise invalid_parameter("Task definition does not support launch_type FARGATE.")


def _check_network(vpc: Vpc, request: Json, document: Json, *, relaxed: bool) -> Json:
    network: Json | None = request.get("networkConfiguration", {}).get("awsvpcConfiguration")
    mode = document.get("networkMode")
    if relaxed and mode in _OTHER_NETWORK_MODES:
        raise unsupported(f"networkMode {mode} is not supported: each task has an ENI of its own.")
    if mode != "awsvpc" and not relaxed:
        if network is not None:
            raise invalid_parameter(
                "Network Configuration is not valid for the given networkMode of this task "
                "definition."
            )
        _check_compatible(document)
    if network is None:
        raise invalid_parameter(
            "Network Configuration must be provided when networkMode 'awsvpc' is specified."
        )
    vpc.check(network["subnets"], network.get("securityGroups", []))
    return network


def _check_platform(request: Json, document: Json) -> None:
    for member, what in (
        ("placementConstraints", "Placement constraints"),
        ("placementStrategy", "Placement strategies"),
    ):
        if request.get(member):
            raise invalid_parameter(f"{what} are not supported with FARGATE launch type.")
    if request.get("platformVersion", "LATEST") not in _PLATFORM_VERSIONS:
        raise ApiError("PlatformUnknownException", "The specified platform does not exist.")
    family = document.get("runtimePlatform", {}).get("operatingSystemFamily", "LINUX")
    if family != "LINUX":  # text unverified
        raise ApiError(
            "PlatformTaskDefinitionIncompatibilityException",
            "The specified platform does not satisfy the task definition's required capabilities: "
            f"operatingSystemFamily {family}.",
        )


def _check_rest(request: Json, document: Json) -> None:
    """Check what concerns one member only. Texts are unverified."""
    if request.get("propagateTags") == "SERVICE":
        raise invalid_parameter("propagateTags SERVICE is only for tasks of a service.")
    if request.get("enableExecuteCommand") and not _task_role(request, document):
        raise invalid_parameter(NO_ROLE_FOR_EXEC)
    check_length(request.get("startedBy", ""), "startedBy", MAX_STARTED_BY_CHARS)
    check_length(request.get("group", ""), "group")
    if request.get("group", "").startswith("service:"):
        raise invalid_parameter("Invalid namespace for group.")
    _check_client_token(request.get("clientToken", "-"))
    check_tags(request.get("tags", []))
    if names := list(_unsupported(request)):
        raise unsupported_members(names)


def _unsupported(request: Json) -> Iterator[str]:
    """Give the members of a request that ask for what isn't done here."""
    overrides = request.get("overrides", {})
    if request.get("enableExecuteCommand"):
        yield "enableExecuteCommand"
    if overrides.get("inferenceAcceleratorOverrides"):
        yield "overrides.inferenceAcceleratorOverrides"
    if any(o.get("resourceRequirements") for o in overrides.get("containerOverrides", [])):
        yield "overrides.containerOverrides.resourceRequirements"


def _check_client_token(token: str) -> None:
    if not 1 <= len(token) <= MAX_CLIENT_TOKEN_CHARS:
        raise invalid_parameter(f"clientToken must have 1 to {MAX_CLIENT_TOKEN_CHARS} characters.")
    if not (token.isascii() and token.isprintable()):
        raise invalid_parameter("clientToken can only have printable ASCII characters.")


def _task_role(request: Json, document: Json) -> str | None:
    role: str | None = request.get("overrides", {}).get("taskRoleArn")
    return role or document.get("taskRoleArn")


def _plan_group(request: Json, definition: TaskDefinition, service: ServiceMark | None) -> str:
    if service is not None:
        return f"service:{service.name}"
    return request.get("group") or f"family:{definition.family}"


def _plan_tags(
    request: Json, definition: TaskDefinition, cluster: str, service: ServiceMark | None
) -> list[Json]:
    tags = {tag["key"]: tag for tag in request.get("tags", [])}
    if request.get("propagateTags") == "TASK_DEFINITION":
        tags = {tag["key"]: tag for tag in definition.tags} | tags
    if request.get("enableECSManagedTags"):
        managed = {"aws:ecs:clusterName": cluster}
        if service is not None:
            managed["aws:ecs:serviceName"] = service.name
        tags |= {key: {"key": key, "value": value} for key, value in managed.items()}
    return list(tags.values())


def _render_document(request: Json, document: Json, size: TaskSize, *, has_size: bool) -> Json:
    attributes = [{"name": "ecs.cpu-architecture", "value": _architecture(document)}]
    if "FARGATE" not in document["compatibilities"] or not has_size:
        attributes.append(RELAXED)
    return {
        "attributes": attributes,
        "enableExecuteCommand": request.get("enableExecuteCommand", False),
        "launchType": "FARGATE",
        "overrides": render_overrides(document, request.get("overrides", {})),
        "platformVersion": PLATFORM_VERSION,
        "platformFamily": "Linux",
        "taskDefinitionArn": document["taskDefinitionArn"],
        "ephemeralStorage": {"sizeInGiB": size.ephemeral_storage_gib},
        "fargateEphemeralStorage": {"sizeInGiB": size.ephemeral_storage_gib},
    }


def _architecture(document: Json) -> str:
    named = document.get("runtimePlatform", {}).get("cpuArchitecture", "X86_64")
    return ARCHITECTURES[named]
