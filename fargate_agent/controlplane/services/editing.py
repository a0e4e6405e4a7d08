"""CreateService, UpdateService and DeleteService: what should be. The scheduler does the rest.

Texts of errors are as clients of ECS know them.
"""

import time
from typing import Final

from sqlalchemy import select

from fargate_agent.controlplane.cloudmap.registries import check_registries, note_registries
from fargate_agent.controlplane.clusters.clusters import find_cluster, plan_capacity
from fargate_agent.controlplane.definitions import find_definition
from fargate_agent.controlplane.errors import ApiError, invalid_parameter
from fargate_agent.controlplane.names import Arns, new_id
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.roles.passing import check_pass_role, check_pass_volume_roles
from fargate_agent.controlplane.services import deploying
from fargate_agent.controlplane.services.launches import render_request
from fargate_agent.controlplane.services.names import parse_service
from fargate_agent.controlplane.services.rules import (
    check_change,
    check_new,
    check_served,
    complete,
    render_template,
    replaces_tasks,
)
from fargate_agent.controlplane.services.shapes import render_service
from fargate_agent.controlplane.state.announcements import SERVICES
from fargate_agent.controlplane.state.model import Deployment, Service, TaskDefinition
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.state.store import announce
from fargate_agent.controlplane.tasks.launch import check_runnable, plan_launch
from fargate_agent.controlplane.validate import Json
from fargate_agent.controlplane.vpc import read_vpc_of


async def create_service(plane: Plane, call: Call) -> Json:
    """Make a service; one that is there already, and is just the same, is answered as it is."""
    request = call.request
    async with plane.store.write() as session:
        cluster = await find_cluster(plane.arns, plane.settings, session, request)
        check_new(request)
        definition = check_runnable(
            await find_definition(plane.arns, session, request["taskDefinition"])
        )
        check_pass_role(plane, call, definition.document)
        check_pass_volume_roles(plane, call, request.get("volumeConfigurations", []))
        check_served(request, definition.document, "created")
        service = Service(
            id=new_id(),
            cluster=cluster,
            name=request["serviceName"],
            status="ACTIVE",
            desired_count=request["desiredCount"],
            document=complete(
                await plan_capacity(session, cluster, request),
                {},
                definition.document["taskDefinitionArn"],
            ),
            tags=request.get("tags", []),
            events=[],
            created_at=round(time.time(), 3),
            created_by=plane.arns.user(call.caller.principal),
        )
        template = render_template(service.document)
        await _check_launch(plane, session, service, template, definition)
        known = await find_service(session, cluster, service.name)
        if known is not None and known.status != "INACTIVE":
            await _check_same(session, known, service, template)
            service = known
        else:
            session.add(service)
            await session.flush()
            await _begin(plane, session, service, template, definition)
            announce(session, SERVICES)
        shown = await render_service(plane.arns, session, service, tags=True)
    return {"service": shown}


async def update_service(plane: Plane, call: Call) -> Json:
    """Change what a service should be; if its tasks have to be others, by a new deployment."""
    request = call.request
    async with plane.store.write() as session:
        cluster = await find_cluster(plane.arns, plane.settings, session, request)
        service = await _find_active(plane.arns, session, cluster, request["service"])
        check_change(request)
        primary = (await deploying.read_deployments(session, service))[0]
        definition = await _find_definition(plane.arns, session, request, primary)
        if "taskDefinition" in request:
            check_pass_role(plane, call, definition.document)
        check_pass_volume_roles(plane, call, request.get("volumeConfigurations", []))
        check_served(request, definition.document, "updated")
        service.document = complete(
            request, service.document, definition.document["taskDefinitionArn"]
        )
        template = render_template(service.document)
        wanted_count = request.get("desiredCount", service.desired_count)
        is_forced = request.get("forceNewDeployment", False)
        # what only takes tasks away needs nothing of what they are made of
        if is_forced or template != primary.document or wanted_count > service.desired_count:
            await _check_launch(plane, session, service, template, definition)
        service.desired_count = wanted_count
        if is_forced or replaces_tasks(template, primary.document):
            await _begin(plane, session, service, template, definition)
        else:
            primary.document = template
            primary.desired_count = service.desired_count
        announce(session, SERVICES)
        await session.flush()
        shown = await render_service(plane.arns, session, service, tags=True)
    return {"service": shown}


async def delete_service(plane: Plane, call: Call) -> Json:
    """End the tasks of a service, and then the service; it may be repeated until it is gone."""
    request = call.request
    async with plane.store.write() as session:
        cluster = await find_cluster(plane.arns, plane.settings, session, request)
        service = await get_service(plane.arns, session, cluster, request["service"])
        if service.status == "INACTIVE":
            raise _service_not_found()
        if service.desired_count and not request.get("force"):
            raise invalid_parameter("The service cannot be stopped while it is scaled above 0.")
        service.status = "DRAINING"
        service.desired_count = 0
        service.steady = False
        for deployment in await deploying.read_deployments(session, service):
            deployment.desired_count = 0
        announce(session, SERVICES)
        await session.flush()
        shown = await render_service(plane.arns, session, service, tags=True)
    return {"service": shown}


async def find_service(session: Session, cluster: str, name: str) -> Service | None:
    """Return the service that a name means: the newest one, if others of that name are gone."""
    found = await session.scalars(
        select(Service)
        .where(Service.cluster == cluster, Service.name == name)
        .order_by((Service.status == "INACTIVE"), Service.created_at.desc())
        .limit(1)
    )
    return found.first()


async def get_service(arns: Arns, session: Session, cluster: str, reference: str) -> Service:
    """Return the service that a name or an ARN means; it may be gone by now.

    Raises:
        ApiError: there never was one.
    """
    service = await find_service(session, cluster, parse_service(arns, reference, cluster))
    if service is None:
        raise _service_not_found()
    return service


def _service_not_found() -> ApiError:
    return ApiError("ServiceNotFoundException", "Service not found.")


async def _find_active(arns: Arns, session: Session, cluster: str, reference: str) -> Service:
    service = await get_service(arns, session, cluster, reference)
    if service.status != "ACTIVE":
        raise ApiError("ServiceNotActiveException", "Service was not ACTIVE.")
    return service


async def _find_definition(
    arns: Arns, session: Session, request: Json, primary: Deployment
) -> TaskDefinition:
    """Return the definition that is asked for, or else the one that there is, active or not."""
    if "taskDefinition" in request:
        return check_runnable(await find_definition(arns, session, request["taskDefinition"]))
    found = await find_definition(arns, session, primary.document["taskDefinition"])
    if found is None:
        return check_runnable(found)
    return found


async def _check_launch(
    plane: Plane, session: Session, service: Service, template: Json, definition: TaskDefinition
) -> None:
    """Return if tasks can be made of a template, and registered as it says.

    Raises:
        ApiError: they can't.
    """
    asked = render_request(service, template)
    vpc = await read_vpc_of(session, plane.settings.region, asked)
    plan_launch(plane, vpc, service.cluster, definition, asked)
    subnets = template["networkConfiguration"]["awsvpcConfiguration"]["subnets"]
    await check_registries(
        plane.arns,
        session,
        template.get("serviceRegistries", []),
        definition.document,
        vpc.subnets[subnets[0]].vpc_id,
    )


async def _begin(
    plane: Plane, session: Session, service: Service, template: Json, definition: TaskDefinition
) -> None:
    deployment = await deploying.begin(plane.arns, session, service, template)
    note_registries(session, deployment, definition.document)


async def _check_same(session: Session, known: Service, service: Service, template: Json) -> None:
    """Return if the service is there as it is asked for."""
    if known.status == "DRAINING":
        raise invalid_parameter("Unable to Start a service that is still Draining.")
    primary = (await deploying.read_deployments(session, known))[0]
    same = (known.desired_count, known.document, known.tags, primary.document) == (
        service.desired_count,
        service.document,
        service.tags,
        template,
    )
    if not same:
        raise invalid_parameter("Creation of service was not idempotent.")


OPERATIONS: Final[dict[str, Operation]] = {
    "CreateService": create_service,
    "UpdateService": update_service,
    "DeleteService": delete_service,
}
