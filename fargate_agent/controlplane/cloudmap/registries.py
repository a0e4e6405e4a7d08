"""Which services of Cloud Map the tasks of an ECS service are instances of.

Texts of errors about ports are as users report them, and as ECS has them for load balancers; the
others are unverified.
"""

from fargate_agent.controlplane.cloudmap.calls import last_part, registry_arn
from fargate_agent.controlplane.cloudmap.services import MAX_INSTANCE_CHARS
from fargate_agent.controlplane.errors import ApiError, invalid_parameter
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
    _check_port(registry, definition, has_srv="SRV" in kinds)


def _check_port(registry: Json, definition: Json, *, has_srv: bool) -> None:
    """Return if a registry says which port SRV records have, if there are such records."""
    if has_srv:
        if find_port(registry, definition) is None:
            raise _one_of_both()
    elif given := {"port", "containerName", "containerPort"} & registry.keys():
        raise invalid_parameter(
            "The values specified for serviceRegistries do not require a value for"
            f" '{min(given)}'. Remove the value and retry. Registry: {registry['registryArn']}"
        )


def _one_of_both() -> ApiError:
    return invalid_parameter(
        "Specify a value for either 'port' or the 'containerName' and 'containerPort' combination,"
        " but not both. Remove one and retry."
    )


def find_port(registry: Json, definition: Json) -> int | None:
    """Return the port that SRV records say, if any.

    Raises:
        ApiError: the registry names a port or container that isn't there.
    """
    port, name = registry.get("port"), registry.get("containerName")
    container_port = registry.get("containerPort")
    if (name is None) != (container_port is None) or (port is not None and name is not None):
        raise _one_of_both()
    if port is not None and not 1 <= port <= _MAX_PORT:
        raise invalid_parameter(f"port must be between 1 and {_MAX_PORT}.")
    if name is None or container_port is None:
        return port
    containers = {one["name"]: one for one in definition["containerDefinitions"]}
    if name not in containers:
        raise invalid_parameter(f"The container {name} does not exist in the task definition.")
    if container_port not in [
        one.get("containerPort") for one in containers[name].get("portMappings", [])
    ]:
        raise invalid_parameter(
            f"The container {name} did not have a container port {container_port} defined."
        )
    return int(container_port)


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
