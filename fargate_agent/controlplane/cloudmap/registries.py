"""Which services of Cloud Map the tasks of an ECS service are instances of.

Texts of errors are unverified.
"""

from fargate_agent.controlplane.cloudmap.calls import last_part, registry_arn
from fargate_agent.controlplane.cloudmap.services import MAX_INSTANCE_CHARS
from fargate_agent.controlplane.errors import invalid_parameter
from fargate_agent.controlplane.names import MAX_TASK_ID_CHARS, Arns
from fargate_agent.controlplane.state.cloudmap import (
    DeploymentRegistry,
    DiscoverableService,
    Namespace,
)
from fargate_agent.controlplane.state.model import Deployment
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.validate import Json

_MAX_PORT = 65_535
assert MAX_TASK_ID_CHARS <= MAX_INSTANCE_CHARS  # noqa: S101 - ids of tasks are labels of names


async def check_registries(
    arns: Arns, session: Session, registries: list[Json], definition: Json, vpc_id: str | None
) -> None:
    """Return if the tasks of a definition can be registered.

    `vpc_id` is where the tasks are.

    Raises:
        ApiError: they can't.
    """
    if not registries:
        return
    if len(registries) > 1:
        raise invalid_parameter("A service can have one service registry.")
    (registry,) = registries
    arn = registry.get("registryArn", "")
    service = await session.get(DiscoverableService, last_part(arn))
    if service is None or arn != registry_arn(arns, service.id):
        raise invalid_parameter(f"The service registry {arn[:256]} does not exist.")
    namespace = await session.get_one(Namespace, service.namespace_id)
    if namespace.vpc_id not in {None, vpc_id}:
        raise invalid_parameter(
            f"The service registry {arn} belongs to the VPC {namespace.vpc_id}, and the subnets of"
            f" the service to {vpc_id}."
        )
    kinds = {one["Type"] for one in service.document.get("DnsConfig", {}).get("DnsRecords", [])}
    if "CNAME" in kinds:
        raise invalid_parameter("A service registry with CNAME records can't have tasks.")
    port = find_port(registry, definition)
    if "SRV" in kinds and port is None:
        raise invalid_parameter(
            "A service registry with SRV records needs port, or containerName and containerPort."
        )


def find_port(registry: Json, definition: Json) -> int | None:
    """Return the port that SRV records say, if any.

    Raises:
        ApiError: the registry names a port or container that isn't there.
    """
    port, name = registry.get("port"), registry.get("containerName")
    container_port = registry.get("containerPort")
    if (name is None) != (container_port is None):
        raise invalid_parameter("containerName and containerPort must be given together.")
    if port is not None and name is not None:
        raise invalid_parameter("port can't be combined with containerName and containerPort.")
    if port is not None and not 1 <= port <= _MAX_PORT:
        raise invalid_parameter(f"port must be between 1 and {_MAX_PORT}.")
    if name is None or container_port is None:
        return port
    for container in definition["containerDefinitions"]:
        if container["name"] == name:
            mapped = {one.get("containerPort") for one in container.get("portMappings", [])}
            if container_port in mapped:
                return int(container_port)
    raise invalid_parameter(
        f"The container {name} does not exist in the task definition, or has no containerPort"
        f" {container_port}."
    )


def note_registries(session: Session, deployment: Deployment, definition: Json) -> None:
    """Have the tasks of a new deployment registered as its template says."""
    for registry in deployment.document.get("serviceRegistries", []):
        session.add(
            DeploymentRegistry(
                deployment_id=deployment.id,
                service_id=last_part(registry["registryArn"]),
                port=find_port(registry, definition),
            )
        )
