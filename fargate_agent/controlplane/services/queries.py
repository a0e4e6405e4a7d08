"""DescribeServices and ListServices."""

from typing import Final

from sqlalchemy import select

from fargate_agent.controlplane.clusters.clusters import find_cluster, find_known_cluster
from fargate_agent.controlplane.errors import invalid_parameter
from fargate_agent.controlplane.pages import render_page
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.services.editing import find_service
from fargate_agent.controlplane.services.names import (
    named_service_arn,
    parse_service,
    service_arn,
)
from fargate_agent.controlplane.services.shapes import render_service
from fargate_agent.controlplane.state.model import Service
from fargate_agent.controlplane.validate import Json

MAX_SERVICES: Final = 10
"""Source: ECS API, DescribeServices.services."""
PAGE_SIZE: Final = 10
"""Unless another is asked for. Source: ECS API, ListServices.maxResults."""


async def describe_services(plane: Plane, call: Call) -> Json:
    """Describe services by name or ARN; those that aren't there are failures."""
    references = call.request["services"]
    if not references:  # text unverified
        raise invalid_parameter("Services cannot be empty.")
    if len(references) > MAX_SERVICES:  # text unverified
        raise invalid_parameter(f"Services cannot have more than {MAX_SERVICES} elements.")
    has_tags = "TAGS" in call.request.get("include", [])
    shown, failures = list[Json](), list[Json]()
    async with plane.store.read() as session:
        cluster = await find_known_cluster(plane.arns, plane.settings, session, call.request)
        for name in dict.fromkeys(parse_service(plane.arns, r, cluster) for r in references):
            service = await find_service(session, cluster, name)
            if service is None:
                arn = named_service_arn(plane.arns, cluster, name)
                failures.append({"arn": arn, "reason": "MISSING"})
            else:
                shown.append(await render_service(plane.arns, session, service, tags=has_tags))
    return {"services": shown, "failures": failures}


async def list_services(plane: Plane, call: Call) -> Json:
    """List the ARNs of the services of a cluster that are not gone."""
    request = call.request
    async with plane.store.read() as session:
        cluster = await find_cluster(plane.arns, plane.settings, session, request)
        found = await session.scalars(
            select(Service)
            .where(Service.cluster == cluster, Service.status != "INACTIVE")
            .order_by(Service.name)
        )
    arns = sorted(service_arn(plane.arns, s) for s in found if _matches(s, request))
    return render_page(arns, {"maxResults": PAGE_SIZE, **request}, "serviceArns")


def _matches(service: Service, request: Json) -> bool:
    """Whether a service is one of those that are asked for."""
    known = {
        "launchType": service.document.get("launchType"),
        "schedulingStrategy": service.document["schedulingStrategy"],
        "resourceManagementType": "CUSTOMER",
    }
    return all(request.get(member, value) == value for member, value in known.items())


OPERATIONS: Final[dict[str, Operation]] = {
    "DescribeServices": describe_services,
    "ListServices": list_services,
}
