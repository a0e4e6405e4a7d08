"""Services and their deployments as the shapes of the API."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import func, select

from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.services.deploying import read_deployments
from fargate_agent.controlplane.services.names import (
    service_arn,
    service_deployment_arn,
    service_revision_arn,
)
from fargate_agent.controlplane.state.model import Deployment, Service, Task
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.tasks.launch import PLATFORM_VERSION
from fargate_agent.controlplane.validate import Json

_PENDING: Final = ("PROVISIONING", "PENDING", "ACTIVATING")
_OF_TEMPLATE: Final = (
    "launchType",
    "capacityProviderStrategy",
    "networkConfiguration",
    "volumeConfigurations",
)


@dataclass(frozen=True, slots=True)
class Counts:
    """Tasks of a service by deployment and `lastStatus`."""

    by_status: Counter[tuple[str, str]]

    def running(self, deployments: Sequence[Deployment]) -> int:
        """Return how many tasks run."""
        return sum(self.by_status[deployment.id, "RUNNING"] for deployment in deployments)

    def pending(self, deployments: Sequence[Deployment]) -> int:
        """Return how many tasks will run soon."""
        return sum(self.by_status[d.id, status] for d in deployments for status in _PENDING)


async def count_tasks(session: Session, deployments: Sequence[Deployment]) -> Counts:
    """Count the tasks of deployments that have not ended."""
    rows = await session.execute(
        select(Task.deployment_id, Task.last_status, func.count())
        .where(
            Task.deployment_id.in_([deployment.id for deployment in deployments]),
            ~Task.settled,
            Task.last_status != "STOPPED",
        )
        .group_by(Task.deployment_id, Task.last_status)
    )
    return Counts(Counter({(str(owner), status): count for owner, status, count in rows}))


async def render_service(arns: Arns, session: Session, service: Service, *, tags: bool) -> Json:
    """Return a service as DescribeServices answers it, with its tags or an empty list."""
    deployments = await read_deployments(session, service)
    counts = await count_tasks(session, deployments)
    shown: Json = {
        **service.document,
        "serviceArn": service_arn(arns, service),
        "serviceName": service.name,
        "clusterArn": arns.cluster(service.cluster),
        "status": service.status,
        "desiredCount": service.desired_count,
        "runningCount": counts.running(deployments),
        "pendingCount": counts.pending(deployments),
        "platformFamily": "Linux",
        "loadBalancers": [],
        "serviceRegistries": service.document.get("serviceRegistries", []),
        "deployments": [_render_deployment(deployment, counts) for deployment in deployments],
        "events": service.events,
        "createdAt": service.created_at,
        "createdBy": service.created_by,
        "tags": service.tags if tags else [],
    }
    if deployments:
        primary = deployments[0]
        shown["currentServiceDeployment"] = service_deployment_arn(arns, service, primary)
        shown["currentServiceRevisions"] = [
            render_revision_counts(arns, service, deployment, counts) for deployment in deployments
        ]
    shown.pop("volumeConfigurations", None)  # of deployments alone
    return shown


def render_revision_counts(
    arns: Arns, service: Service, deployment: Deployment, counts: Counts
) -> Json:
    """Return how many tasks there are of what a deployment is made of."""
    return {
        "arn": service_revision_arn(arns, service, deployment),
        "requestedTaskCount": deployment.desired_count,
        "runningTaskCount": counts.running([deployment]),
        "pendingTaskCount": counts.pending([deployment]),
    }


def _render_deployment(deployment: Deployment, counts: Counts) -> Json:
    template = deployment.document
    return {
        "id": deployment.id,
        "status": deployment.status,
        "taskDefinition": template["taskDefinition"],
        "desiredCount": deployment.desired_count,
        "runningCount": counts.running([deployment]),
        "pendingCount": counts.pending([deployment]),
        "failedTasks": deployment.failed_tasks,
        "createdAt": deployment.created_at,
        "updatedAt": deployment.updated_at,
        **{member: template[member] for member in _OF_TEMPLATE if member in template},
        "platformVersion": PLATFORM_VERSION,
        "platformFamily": "Linux",
        "rolloutState": deployment.rollout_state,
        "rolloutStateReason": deployment.rollout_reason,
    }
