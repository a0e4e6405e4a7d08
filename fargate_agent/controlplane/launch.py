"""What RunTask asks for, checked and decided before a task is made. Pure.

Source: error texts as measured on the ECS API.
"""

from dataclasses import dataclass
from typing import Final

from fargate_agent.controlplane.errors import ApiError, client_error, invalid_parameter, unsupported
from fargate_agent.controlplane.model import TaskDefinition
from fargate_agent.controlplane.overrides import (
    TaskSize,
    override_containers,
    plan_size,
    render_overrides,
)
from fargate_agent.controlplane.tags import check_tags
from fargate_agent.controlplane.validate import Json
from fargate_agent.controlplane.vpc import Vpc

MAX_COUNT: Final = 10
"""Source: ECS API, RunTask.count."""
MAX_STARTED_BY_CHARS: Final = 128
"""Source: ECS API, RunTask.startedBy."""
MAX_CLIENT_TOKEN_CHARS: Final = 64
"""Source: ECS API, RunTask.clientToken."""

PLATFORM_VERSION: Final = "1.4.0"
_PLATFORM_VERSIONS: Final = {PLATFORM_VERSION, "LATEST"}
_CAPACITY_PROVIDERS: Final = {"FARGATE", "FARGATE_SPOT"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Tasks to be made, all alike."""

    cluster: str
    definition: TaskDefinition
    count: int
    containers: list[Json]
    """Of the definition, with the overrides."""
    size: TaskSize
    subnets: tuple[str, ...]
    group: str
    started_by: str | None
    document: Json
    """What all of these tasks show in DescribeTasks and never changes."""


def plan_launch(vpc: Vpc, cluster: str, definition: TaskDefinition, request: Json) -> Launch:
    """Decide what a RunTask request means.

    Raises:
        ApiError: it can't be done.
    """
    document, overrides = definition.document, request.get("overrides", {})
    _check_request(request)
    _check_launch_type(request, document)
    containers = override_containers(document, overrides)
    size = plan_size(document, overrides)
    network = _check_network(vpc, request, document)
    group = request.get("group") or f"family:{definition.family}"
    return Launch(
        cluster=cluster,
        definition=definition,
        count=request.get("count", 1),
        containers=containers,
        size=size,
        subnets=tuple(network["subnets"]),
        group=group,
        started_by=request.get("startedBy"),
        document={
            "attributes": [{"name": "ecs.cpu-architecture", "value": _architecture(document)}],
            "enableExecuteCommand": request.get("enableExecuteCommand", False),
            **_render_capacity(request),
            "overrides": render_overrides(document, overrides),
            "platformVersion": PLATFORM_VERSION,
            "platformFamily": "Linux",
            "tags": _plan_tags(request, definition, cluster),
            "taskDefinitionArn": document["taskDefinitionArn"],
            "ephemeralStorage": {"sizeInGiB": size.ephemeral_storage_gib},
            "fargateEphemeralStorage": {"sizeInGiB": size.ephemeral_storage_gib},
        },
    )


def _check_request(request: Json) -> None:
    if not 1 <= request.get("count", 1) <= MAX_COUNT:
        raise invalid_parameter(f"count must be between 1 and {MAX_COUNT}.")
    if len(request.get("startedBy", "")) > MAX_STARTED_BY_CHARS:
        raise invalid_parameter(f"startedBy can have at most {MAX_STARTED_BY_CHARS} characters.")
    if not 1 <= len(request.get("clientToken", "-")) <= MAX_CLIENT_TOKEN_CHARS:
        raise invalid_parameter(f"clientToken must have 1 to {MAX_CLIENT_TOKEN_CHARS} characters.")
    if request.get("propagateTags") == "SERVICE":
        raise invalid_parameter("propagateTags SERVICE is only for tasks of a service.")
    if request.get("volumeConfigurations"):
        raise unsupported("volumeConfigurations is not supported.")
    check_tags(request.get("tags", []))


def _check_launch_type(request: Json, document: Json) -> None:
    """Tasks run on Fargate, whether it is named or not: there is nothing else here."""
    launch_type, strategy = request.get("launchType"), request.get("capacityProviderStrategy", [])
    if launch_type and strategy:
        raise invalid_parameter(
            "Specifying both a launch type and capacity provider strategy is not supported. "
            "Remove one and try again."
        )
    if launch_type not in {None, "FARGATE"}:
        raise invalid_parameter("No Container Instances were found in your cluster.")
    if any(item["capacityProvider"] not in _CAPACITY_PROVIDERS for item in strategy):
        raise invalid_parameter("The specified capacity provider was not found.")
    for member, what in (
        ("placementConstraints", "Placement constraints"),
        ("placementStrategy", "Placement strategies"),
    ):
        if request.get(member):
            raise invalid_parameter(f"{what} are not supported with FARGATE launch type.")
    if request.get("platformVersion", "LATEST") not in _PLATFORM_VERSIONS:
        raise ApiError("PlatformUnknownException", "The specified platform does not exist.")
    if "FARGATE" not in document["compatibilities"]:
        raise invalid_parameter("Task definition does not support launch_type FARGATE.")


def _check_network(vpc: Vpc, request: Json, document: Json) -> Json:
    network: Json | None = request.get("networkConfiguration", {}).get("awsvpcConfiguration")
    if network is None:
        raise invalid_parameter(
            "Network Configuration must be provided when networkMode 'awsvpc' is specified."
        )
    vpc.check(network["subnets"], network.get("securityGroups", []))
    if request.get("enableExecuteCommand") and not _task_role(request, document):
        raise invalid_parameter(
            "The task definition needs a taskRoleArn when enableExecuteCommand is set."
        )
    return network


def _task_role(request: Json, document: Json) -> str | None:
    role: str | None = request.get("overrides", {}).get("taskRoleArn")
    return role or document.get("taskRoleArn")


def _render_capacity(request: Json) -> Json:
    shown: Json = {"launchType": "FARGATE"}
    if strategy := request.get("capacityProviderStrategy"):
        shown["capacityProviderName"] = strategy[0]["capacityProvider"]
    return shown


def _plan_tags(request: Json, definition: TaskDefinition, cluster: str) -> list[Json]:
    tags = {tag["key"]: tag for tag in request.get("tags", [])}
    if request.get("propagateTags") == "TASK_DEFINITION":
        tags = {tag["key"]: tag for tag in definition.tags} | tags
    if request.get("enableECSManagedTags"):
        key = "aws:ecs:clusterName"
        tags[key] = {"key": key, "value": cluster}
    return list(tags.values())


def _architecture(document: Json) -> str:
    named = document.get("runtimePlatform", {}).get("cpuArchitecture", "X86_64")
    return {"X86_64": "x86_64", "ARM64": "arm64"}[named]


def check_runnable(definition: TaskDefinition | None) -> TaskDefinition:
    """Return the definition if tasks can be made from it.

    Raises:
        ApiError: there is none, or it isn't active any more.
    """
    if definition is None:
        raise client_error("TaskDefinition not found.")
    if definition.status != "ACTIVE":
        raise client_error("TaskDefinition is inactive")
    return definition
