"""What AWS adds to a task definition: defaults, and what its tasks need of a host.

Tools that compare what is there with what they asked for depend on these.
"""

from collections.abc import Iterator
from typing import Any, Final

from fargate_agent.controlplane.rules.definition import is_fargate_compatible
from fargate_agent.controlplane.rules.draft import Draft
from fargate_agent.controlplane.rules.fargate import is_ecr_image
from fargate_agent.controlplane.rules.logs import driver_of
from fargate_agent.controlplane.validate import Json
from fargate_agent.wire.attributes import CONTAINER_HEALTH, CONTAINER_RESTARTS, PID_SHARING

_LISTS_OF_CONTAINER: Final = (
    "environment",
    "mountPoints",
    "volumesFrom",
    "portMappings",
    "systemControls",
)
"""Answered as empty lists where they were not given."""

_HEALTH_CHECK: Final = {"interval": 30, "timeout": 5, "retries": 3}
"""Seconds, seconds, times. Source: ECS API, HealthCheck."""

_CAPABILITY: Final = "com.amazonaws.ecs.capability"


def complete(draft: Draft) -> Json:
    """Return a definition that has passed `check_definition` as DescribeTaskDefinition answers it.

    Its name, revision and dates are left to whoever stores it.
    """
    request = {member: value for member, value in draft.request.items() if member != "tags"}
    sizes = {"cpu": draft.cpu_units(), "memory": draft.memory_mib()}
    return {
        **request,
        **{member: str(size) for member, size in sizes.items() if size is not None},
        "containerDefinitions": [_complete_container(c, draft) for c in draft.containers],
        "volumes": request.get("volumes", []),
        "placementConstraints": request.get("placementConstraints", []),
        "compatibilities": _compatibilities(draft),
        "requiresAttributes": [{"name": name} for name in dict.fromkeys(_attributes(draft))],
    }


def _complete_container(container: Json, draft: Draft) -> Json:
    filled: dict[str, Any] = {
        "cpu": 0,
        "essential": True,
        **{member: [] for member in _LISTS_OF_CONTAINER},
        **container,
    }
    filled["portMappings"] = [_complete_ports(port, draft) for port in filled["portMappings"]]
    if "healthCheck" in filled:
        filled["healthCheck"] = {**_HEALTH_CHECK, **filled["healthCheck"]}
    return filled


def _complete_ports(mapping: Json, draft: Draft) -> Json:
    filled = {"protocol": "tcp", **mapping}
    if "containerPort" in mapping:
        is_same = draft.request.get("networkMode") in {"awsvpc", "host"}
        # 0 leaves the choice to the host
        filled["hostPort"] = mapping.get("hostPort") or (mapping["containerPort"] if is_same else 0)
    return filled


def _compatibilities(draft: Draft) -> list[str]:
    found = ["EC2"]
    if is_fargate_compatible(draft):
        found.append("FARGATE")
    if not draft.is_windows:
        found.append("MANAGED_INSTANCES")
    return found


def _attributes(draft: Draft) -> Iterator[str]:
    """Give what a host has to have, some twice.

    Source: amazon-ecs-agent, agent/app/agent_capability.go.
    """
    request = draft.request
    if draft.is_awsvpc:
        yield "ecs.capability.task-eni"
    if request.get("pidMode") == "task":
        yield PID_SHARING
    if "taskRoleArn" in request:
        yield f"{_CAPABILITY}.task-iam-role"
    for container in draft.containers:
        yield from _attributes_of(container, has_role="executionRoleArn" in request)
    yield f"{_CAPABILITY}.docker-remote-api.1.18"


def _attributes_of(container: Json, *, has_role: bool) -> Iterator[str]:
    if driver := driver_of(container):
        yield f"{_CAPABILITY}.logging-driver.{driver}"
        yield f"{_CAPABILITY}.docker-remote-api.1.19"
        if driver == "awslogs" and has_role:
            yield "ecs.capability.execution-role-awslogs"
    if is_ecr_image(container["image"]):
        yield f"{_CAPABILITY}.ecr-auth"
        if has_role:
            yield "ecs.capability.execution-role-ecr-pull"
    asked = {
        "ecs.capability.container-ordering": container.get("dependsOn"),
        CONTAINER_HEALTH: container.get("healthCheck"),
        CONTAINER_RESTARTS: container.get("restartPolicy", {}).get("enabled"),
        "ecs.capability.env-files.s3": container.get("environmentFiles"),
        "ecs.capability.private-registry-authentication.secretsmanager": container.get(
            "repositoryCredentials"
        ),
    }
    yield from (attribute for attribute, is_asked in asked.items() if is_asked)
    for secret in container.get("secrets", []):
        store = "asm" if ":secretsmanager:" in secret["valueFrom"] else "ssm"
        yield f"ecs.capability.secrets.{store}.environment-variables"
