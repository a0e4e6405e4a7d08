"""`serviceRegistries` of ECS: the tasks of a service are instances of a service of Cloud Map.

Source: ECS API, ServiceRegistry; ECS developer guide, "Use service discovery to connect Amazon ECS
services with DNS names"; texts as users report them, where nothing else is said.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fargate_agent.controlplane.cloudmap.instances import (
    IPV4,
    IPV6,
    PORT,
    record_types,
)
from fargate_agent.controlplane.cloudmap.members import HEALTHY
from fargate_agent.controlplane.cloudmap.namespaces import PRIVATE
from fargate_agent.controlplane.cloudmap.references import service_arn
from fargate_agent.controlplane.errors import invalid_parameter
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.state.discovery import (
    DiscoveryServiceRow,
    InstanceRow,
    NamespaceRow,
)
from fargate_agent.controlplane.state.model import Service, Task
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.validate import Json

MAX_PORT: Final = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """Where the tasks of a service are registered."""

    service_id: str
    """Of Cloud Map."""
    port: int | None


async def check_registries(
    arns: Arns, session: Session, registries: Sequence[Json], definition: Json
) -> None:
    """Return if a service of ECS can have these registries.

    Raises:
        ApiError: it can't.
    """
    if not registries:
        return
    if len(registries) > 1:  # text unverified
        raise invalid_parameter("Multiple service registries for each service are not supported.")
    (registry,) = registries
    arn = registry.get("registryArn")
    if not arn:  # text unverified
        raise invalid_parameter("registryArn is missing in serviceRegistries.")
    service = await _find(arns, session, registry)
    namespace = await session.get_one(NamespaceRow, service.namespace_id)
    types = record_types(service)
    if namespace.kind != PRIVATE or not types or "CNAME" in types:  # text unverified
        raise invalid_parameter(
            f"The service registry must have A, AAAA or SRV records in a private DNS namespace:"
            f" {arn}"
        )
    if "SRV" in types:
        _check_port(registry, definition)
        return
    for member in ("port", "containerName", "containerPort"):
        if member in registry:
            raise invalid_parameter(
                f"The values specified for serviceRegistries do not require a value for '{member}'."
                f" Remove the value and retry. Registry: {arn}"
            )


def _check_port(registry: Json, definition: Json) -> None:
    """Return if a registry says which port SRV records have."""
    by_name = "containerName" in registry and "containerPort" in registry
    half = ("containerName" in registry) != ("containerPort" in registry)
    if half or ("port" in registry) == by_name:
        raise invalid_parameter(
            "Specify a value for either 'port' or the 'containerName' and 'containerPort'"
            " combination, but not both. Remove one and retry."
        )
    if not by_name:
        if not 1 <= registry["port"] <= MAX_PORT:  # text unverified
            raise invalid_parameter(f"port must be between 1 and {MAX_PORT}.")
        return
    # texts: those that ECS has for load balancers
    name, port = registry["containerName"], registry["containerPort"]
    containers = {one["name"]: one for one in definition["containerDefinitions"]}
    if name not in containers:
        raise invalid_parameter(f"The container {name} does not exist in the task definition.")
    ports = [one.get("containerPort") for one in containers[name].get("portMappings", [])]
    if port not in ports:
        raise invalid_parameter(
            f"The container {name} did not have a container port {port} defined."
        )


async def read_registries(
    arns: Arns, session: Session, registries: Sequence[Json]
) -> list[Registry]:
    """Return where tasks are to be registered.

    Raises:
        ApiError: it isn't there any more.
    """
    return [
        Registry(
            service_id=(await _find(arns, session, registry)).id,
            port=registry.get("port", registry.get("containerPort")),
        )
        for registry in registries
    ]


async def register_tasks(
    arns: Arns,
    session: Session,
    service: Service,
    registries: Sequence[Registry],
    tasks: Sequence[Task],
) -> None:
    """Have new tasks be instances of services of Cloud Map, each while it runs."""
    if not registries or not tasks:
        return
    for task in tasks:
        task.registered = True
    await session.flush()  # instances refer to their tasks
    session.add_all(
        InstanceRow(
            service_id=registry.service_id,
            id=task.id,
            task_id=task.id,
            health=HEALTHY,
            attributes=_render_attributes(arns, service, registry, task),
        )
        for task in tasks
        for registry in registries
    )


def _render_attributes(
    arns: Arns, service: Service, registry: Registry, task: Task
) -> dict[str, str]:
    """Source: ECS developer guide, "Use service discovery to connect Amazon ECS services"."""
    addresses = {IPV4: task.eni.address, IPV6: task.eni.ipv6_address}
    port = registry.port
    return {
        "AVAILABILITY_ZONE": task.eni.availability_zone or f"{arns.region}a",
        "ECS_CLUSTER_NAME": task.cluster,
        "ECS_SERVICE_NAME": service.name,
        "ECS_TASK_DEFINITION_FAMILY": task.family,
        "REGION": arns.region,
        **{name: address for name, address in addresses.items() if address is not None},
        **({} if port is None else {PORT: str(port)}),
    }


async def _find(arns: Arns, session: Session, registry: Json) -> DiscoveryServiceRow:
    arn = registry["registryArn"]
    prefix = service_arn(arns, "")
    row = None
    if arn.startswith(prefix):
        row = await session.get(DiscoveryServiceRow, arn.removeprefix(prefix))
    if row is None:  # text unverified
        raise invalid_parameter(f"The service registry does not exist: {arn[:256]}")
    return row
