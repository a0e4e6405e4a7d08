"""Service deployments and service revisions: what was rolled out, and how that came out."""

from collections.abc import Awaitable, Callable
from typing import Final

from sqlalchemy import select

from fargate_agent.controlplane.clusters.clusters import find_cluster
from fargate_agent.controlplane.definitions import find_definition
from fargate_agent.controlplane.errors import invalid_parameter
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.pages import cut, parse_page
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.services.editing import get_service
from fargate_agent.controlplane.services.failures import threshold
from fargate_agent.controlplane.services.names import (
    parse_part,
    service_arn,
    service_deployment_arn,
    service_revision_arn,
)
from fargate_agent.controlplane.services.shapes import count_tasks, render_revision_counts
from fargate_agent.controlplane.state.model import Deployment, Service
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.tasks.launch import PLATFORM_VERSION
from fargate_agent.controlplane.validate import Json

MAX_ARNS: Final = 20
"""Source: ECS API, DescribeServiceDeployments and DescribeServiceRevisions."""

_LATEST_MS: Final = 10**15 - 1
_OF_REVISION: Final = (
    "launchType",
    "capacityProviderStrategy",
    "networkConfiguration",
    "volumeConfigurations",
)


async def list_service_deployments(plane: Plane, call: Call) -> Json:
    """List the deployments of a service, the newest first."""
    request = call.request
    async with plane.store.read() as session:
        cluster = await find_cluster(plane.arns, plane.settings, session, request)
        service = await get_service(plane.arns, session, cluster, request["service"])
        found = await _read_history(session, service)
    chosen = {_key(deployment): deployment for deployment in found if _matches(deployment, request)}
    page = parse_page(request)
    return page.render(
        cut(sorted(chosen), page),
        "serviceDeployments",
        lambda key: _render_brief(plane.arns, service, chosen[key]),
    )


async def describe_service_deployments(plane: Plane, call: Call) -> Json:
    """Describe deployments by ARN; those that aren't there are failures."""
    arns = call.request["serviceDeploymentArns"]
    shown, failures = await _describe(plane, "service-deployment", arns, _render_deployment)
    return {"serviceDeployments": shown, "failures": failures}


async def describe_service_revisions(plane: Plane, call: Call) -> Json:
    """Describe what the tasks of deployments are made of; what isn't there is a failure."""
    arns = call.request["serviceRevisionArns"]
    shown, failures = await _describe(plane, "service-revision", arns, _render_revision)
    return {"serviceRevisions": shown, "failures": failures}


_Render = Callable[[Arns, Session, Service, Deployment], Awaitable[Json]]


async def _describe(
    plane: Plane, kind: str, arns: list[str], render: _Render
) -> tuple[list[Json], list[Json]]:
    """Return the deployments that ARNs of a kind name, rendered, and failures for the others."""
    if not 1 <= len(arns) <= MAX_ARNS:  # text unverified
        raise invalid_parameter(f"Specify 1 to {MAX_ARNS} ARNs.")
    shown, failures = list[Json](), list[Json]()
    async with plane.store.read() as session:
        for arn in dict.fromkeys(arns):
            found = await _find(plane.arns, session, kind, arn)
            if found is None:
                failures.append({"arn": arn, "reason": "MISSING"})
            else:
                shown.append(await render(plane.arns, session, *found))
    return shown, failures


async def _find(
    arns: Arns, session: Session, kind: str, arn: str
) -> tuple[Service, Deployment] | None:
    named = parse_part(arns, kind, arn)
    if named is None:
        return None
    cluster, name, deployment_id = named
    deployment = await session.get(Deployment, deployment_id)
    if deployment is None:
        return None
    service = await session.get_one(Service, deployment.service_id)
    return (service, deployment) if (service.cluster, service.name) == (cluster, name) else None


async def _read_history(session: Session, service: Service) -> list[Deployment]:
    found = await session.scalars(select(Deployment).where(Deployment.service_id == service.id))
    return list(found)


def _key(deployment: Deployment) -> str:
    """Return what sorts a deployment before older ones."""
    return f"{_LATEST_MS - round(deployment.created_at * 1000):015d} {deployment.id}"


def _matches(deployment: Deployment, request: Json) -> bool:
    statuses, created = request.get("status"), request.get("createdAt", {})
    return (
        (not statuses or _status(deployment) in statuses)
        and deployment.created_at >= created.get("after", 0.0)
        and deployment.created_at <= created.get("before", deployment.created_at)
    )


def _status(deployment: Deployment) -> str:
    """Return how a deployment came out, in the words of the newer operations."""
    if deployment.rolls_back:
        return "ROLLBACK_SUCCESSFUL" if deployment.status == "INACTIVE" else "ROLLBACK_IN_PROGRESS"
    if deployment.rollout_state == "COMPLETED":
        return "SUCCESSFUL"
    is_current = deployment.status == "PRIMARY" and deployment.rollout_state == "IN_PROGRESS"
    return "IN_PROGRESS" if is_current else "STOPPED"


def _render_brief(arns: Arns, service: Service, deployment: Deployment) -> Json:
    brief: Json = {
        "serviceDeploymentArn": service_deployment_arn(arns, service, deployment),
        "serviceArn": service_arn(arns, service),
        "clusterArn": arns.cluster(service.cluster),
        "createdAt": deployment.created_at,
        "startedAt": deployment.created_at,
        "targetServiceRevisionArn": service_revision_arn(arns, service, deployment),
        "status": _status(deployment),
        "statusReason": deployment.rollout_reason,
    }
    if deployment.finished_at is not None:
        brief["finishedAt"] = deployment.finished_at
    return brief


async def _render_deployment(
    arns: Arns, session: Session, service: Service, deployment: Deployment
) -> Json:
    shown = _render_brief(arns, service, deployment)
    del shown["targetServiceRevisionArn"]
    everything = await _read_history(session, service)
    counts = await count_tasks(session, everything)
    sources = [
        other
        for other in everything
        if other.status != "INACTIVE" and other.created_at < deployment.created_at
    ]
    configuration = service.document["deploymentConfiguration"]
    return shown | {
        "updatedAt": deployment.updated_at,
        "sourceServiceRevisions": [
            render_revision_counts(arns, service, other, counts) for other in sources
        ],
        "targetServiceRevision": render_revision_counts(arns, service, deployment, counts),
        "deploymentConfiguration": configuration,
        "deploymentCircuitBreaker": {
            "status": _breaker_status(configuration["deploymentCircuitBreaker"], deployment),
            "failureCount": deployment.failed_tasks,
            "threshold": threshold(
                configuration["deploymentCircuitBreaker"], service.desired_count
            ),
        },
    }


def _breaker_status(breaker: Json, deployment: Deployment) -> str:
    if deployment.rollout_state == "FAILED":
        return "TRIGGERED"
    if not breaker["enable"]:
        return "DISABLED"
    return "MONITORING" if _status(deployment) == "IN_PROGRESS" else "MONITORING_COMPLETE"


async def _render_revision(
    arns: Arns, session: Session, service: Service, deployment: Deployment
) -> Json:
    template = deployment.document
    definition = await find_definition(arns, session, template["taskDefinition"])
    containers = [] if definition is None else definition.document["containerDefinitions"]
    return {
        "serviceRevisionArn": service_revision_arn(arns, service, deployment),
        "serviceArn": service_arn(arns, service),
        "clusterArn": arns.cluster(service.cluster),
        "taskDefinition": template["taskDefinition"],
        **{member: template[member] for member in _OF_REVISION if member in template},
        "platformVersion": PLATFORM_VERSION,
        "platformFamily": "Linux",
        "loadBalancers": [],
        "serviceRegistries": template.get("serviceRegistries", []),
        "containerImages": [
            {"containerName": container["name"], "image": container["image"]}
            for container in containers
        ],
        "guardDutyEnabled": False,
        "createdAt": deployment.created_at,
    }


OPERATIONS: Final[dict[str, Operation]] = {
    "ListServiceDeployments": list_service_deployments,
    "DescribeServiceDeployments": describe_service_deployments,
    "DescribeServiceRevisions": describe_service_revisions,
}
