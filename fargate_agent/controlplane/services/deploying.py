"""How a deployment of a service begins, comes out, and gives way to another."""

import time
from collections.abc import Sequence
from typing import Final

from sqlalchemy import select

from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.services import news
from fargate_agent.controlplane.services.names import new_deployment_id
from fargate_agent.controlplane.state.model import Deployment, Service
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.validate import Json

_FAILED: Final = "ECS deployment circuit breaker: tasks failed to start."
_WITH_TASKS: Final = (
    "taskDefinition",
    "networkConfiguration",
    "launchType",
    "capacityProviderStrategy",
    "platformVersion",
    "volumeConfigurations",
    "serviceRegistries",
)


async def read_deployments(session: Session, service: Service) -> list[Deployment]:
    """Return the deployments that have tasks or should have: the primary one first."""
    found = await session.scalars(
        select(Deployment)
        .where(Deployment.service_id == service.id, Deployment.status != "INACTIVE")
        .order_by(Deployment.status.desc(), Deployment.created_at.desc())
    )
    return list(found)


async def begin(arns: Arns, session: Session, service: Service, template: Json) -> Deployment:
    """Make a deployment the primary one; the one that was is replaced by it."""
    now = round(time.time(), 3)
    for deployment in await read_deployments(session, service):
        deployment.status = "ACTIVE"
    deployment = Deployment(
        id=new_deployment_id(),
        service_id=service.id,
        status="PRIMARY",
        desired_count=service.desired_count,
        failed_tasks=0,
        document=template,
        created_at=now,
        updated_at=now,
    )
    session.add(deployment)
    _start_afresh(service)
    _move(deployment, "IN_PROGRESS", f"ECS deployment {deployment.id} in progress.")
    await session.flush()
    news.note_deployment(arns, session, service, deployment, "SERVICE_DEPLOYMENT_IN_PROGRESS")
    return deployment


def complete(arns: Arns, session: Session, service: Service, deployment: Deployment) -> None:
    """All tasks of a deployment run."""
    _move(deployment, "COMPLETED", f"ECS deployment {deployment.id} completed.")
    deployment.finished_at = deployment.finished_at or deployment.updated_at
    news.tell(service, f"(deployment {deployment.id}) deployment completed.")
    news.note_deployment(arns, session, service, deployment, "SERVICE_DEPLOYMENT_COMPLETED")


async def fail(arns: Arns, session: Session, service: Service, deployment: Deployment) -> None:
    """Too many tasks of a deployment have failed: it goes no further, or back."""
    _move(deployment, "FAILED", _FAILED)
    deployment.finished_at = deployment.updated_at
    news.tell(service, f"(deployment {deployment.id}) deployment failed: tasks failed to start.")
    news.note_deployment(arns, session, service, deployment, "SERVICE_DEPLOYMENT_FAILED")
    breaker = service.document["deploymentConfiguration"]["deploymentCircuitBreaker"]
    target = await _find_completed(session, service) if breaker["rollback"] else None
    if target is None:
        return
    deployment.status = "ACTIVE"
    deployment.rolls_back = True
    target.status = "PRIMARY"
    target.failed_tasks = 0
    reason = f"ECS deployment circuit breaker: rolling back to deploymentId {target.id}"
    _move(target, "IN_PROGRESS", reason)
    _start_afresh(service)
    service.document = _take_back(service.document, target.document)
    news.tell(service, f"rolling back to deployment {target.id}.")
    news.note_deployment(arns, session, service, target, "SERVICE_DEPLOYMENT_IN_PROGRESS")


def drain(deployments: Sequence[Deployment], drained: Sequence[str]) -> None:
    """Take leave of deployments of which no task is left."""
    for deployment in deployments:
        if deployment.id in drained:
            deployment.status = "INACTIVE"
            deployment.desired_count = 0
            deployment.updated_at = round(time.time(), 3)
            deployment.finished_at = deployment.finished_at or deployment.updated_at


async def _find_completed(session: Session, service: Service) -> Deployment | None:
    """Return what was last rolled out with success."""
    found = await session.scalars(
        select(Deployment)
        .where(Deployment.service_id == service.id, Deployment.rollout_state == "COMPLETED")
        .order_by(Deployment.created_at.desc())
        .limit(1)
    )
    return found.first()


def _take_back(document: Json, template: Json) -> Json:
    """Return the members of the Service shape as they go back with a deployment."""
    kept = {member: value for member, value in document.items() if member not in _WITH_TASKS}
    return kept | {member: template[member] for member in _WITH_TASKS if member in template}


def _start_afresh(service: Service) -> None:
    service.failed_starts = 0
    service.start_not_before = 0.0
    service.steady = False


def _move(deployment: Deployment, state: str, reason: str) -> None:
    deployment.rollout_state = state
    deployment.rollout_reason = reason
    deployment.updated_at = round(time.time(), 3)
