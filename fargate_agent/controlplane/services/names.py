"""ARNs and ids of services and of what belongs to them."""

import re
import secrets
from typing import Final

from fargate_agent.controlplane.names import Arns, wrong_cluster
from fargate_agent.controlplane.state.model import Deployment, Service

SERVICE_NAME: Final = re.compile(r"[a-zA-Z0-9\-_]{1,255}", re.ASCII)
"""Source: ECS API, CreateService.serviceName."""

DEPLOYMENT_PREFIX: Final = "ecs-svc/"
_LEAST_NUMBER: Final = 10**18
_NUMBERS: Final = 9 * 10**18
"""A deployment's number has 19 digits."""


def new_deployment_id() -> str:
    """Make the id of a deployment."""
    return f"{DEPLOYMENT_PREFIX}{_LEAST_NUMBER + secrets.randbelow(_NUMBERS)}"


def service_arn(arns: Arns, service: Service) -> str:
    """Return the ARN of a service."""
    return named_service_arn(arns, service.cluster, service.name)


def named_service_arn(arns: Arns, cluster: str, name: str) -> str:
    """Return the ARN of a service that need not exist."""
    return _arn(arns, f"service/{cluster}/{name}")


def service_deployment_arn(arns: Arns, service: Service, deployment: Deployment) -> str:
    """Return the ARN by which DescribeServiceDeployments knows a deployment."""
    return _part_arn(arns, "service-deployment", service, deployment)


def service_revision_arn(arns: Arns, service: Service, deployment: Deployment) -> str:
    """Return the ARN of what the tasks of a deployment are made of."""
    return _part_arn(arns, "service-revision", service, deployment)


def parse_service(arns: Arns, reference: str, cluster: str) -> str:
    """Return the name of a service of a cluster, given as name or ARN, in its old or new form.

    Raises:
        ApiError: it is the ARN of a service of another cluster.
    """
    if not reference.startswith("arn:"):
        return reference
    path = reference.removeprefix(_arn(arns, "service/"))
    named, _, name = path.rpartition("/")
    if named not in {"", cluster}:
        raise wrong_cluster(named, cluster)
    return name


def parse_part(arns: Arns, kind: str, arn: str) -> tuple[str, str, str] | None:
    """Return cluster, service and deployment id that an ARN names; None if it names none.

    Args:
        arns: of this account.
        kind: `service-deployment` or `service-revision`.
        arn: as a client gave it.
    """
    parts = arn.removeprefix(_arn(arns, f"{kind}/")).split("/")
    if len(parts) != len(("cluster", "service", "number")):
        return None
    cluster, name, number = parts
    return cluster, name, f"{DEPLOYMENT_PREFIX}{number}"


def _part_arn(arns: Arns, kind: str, service: Service, deployment: Deployment) -> str:
    number = deployment.id.removeprefix(DEPLOYMENT_PREFIX)
    return _arn(arns, f"{kind}/{service.cluster}/{service.name}/{number}")


def _arn(arns: Arns, resource: str) -> str:
    return f"arn:aws:ecs:{arns.region}:{arns.account}:{resource}"
