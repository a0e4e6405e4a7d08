"""From requests of the ECS API to what an agent is told, without a store: for pure tests."""

from typing import Any, cast

from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.rules.computed import complete
from fargate_agent.controlplane.rules.definition import check_definition
from fargate_agent.controlplane.rules.draft import Draft
from fargate_agent.controlplane.services import rules
from fargate_agent.controlplane.services.launches import render_request
from fargate_agent.controlplane.settings import ControlPlaneSettings
from fargate_agent.controlplane.state.model import Service, TaskDefinition
from fargate_agent.controlplane.tasks.launch import Launch, plan_launch
from fargate_agent.controlplane.tasks.managed_volumes import configure_volumes, mint_volumes
from fargate_agent.controlplane.tasks.overrides import override_task
from fargate_agent.controlplane.tasks.payload import render_task
from fargate_agent.controlplane.vpc import Vpc, plan_vpc
from fargate_agent.wire.messages import EniMessage, TaskMessage
from tests.messages import CLUSTER_ARN, TASK_ARN, eni_json

RELAXED = "relaxed"
"""Name of a cluster in which Fargate's rules don't count."""
DEFINITION_ARN = "arn:aws:ecs:us-east-1:000000000000:task-definition/web:1"


def make_plane(**settings: Any) -> Plane:
    """A control plane that has settings and no state."""
    chosen = ControlPlaneSettings(relaxed_clusters=(RELAXED,), **settings)
    return Plane(
        settings=chosen,
        arns=Arns(chosen.region, chosen.account),
        store=cast(Any, None),
        announcements=cast(Any, None),
        started_at=0,
    )


def make_vpc(plane: Plane) -> Vpc:
    """The subnets and security groups of its settings."""
    return plan_vpc(plane.settings)


def register(request: dict[str, Any]) -> TaskDefinition:
    """Register a definition.

    Raises:
        ApiError: it is refused.
    """
    draft = Draft(request, "000000000000")
    check_definition(draft)
    document = {**complete(draft), "taskDefinitionArn": DEFINITION_ARN, "revision": 1}
    return TaskDefinition(
        family=request["family"],
        revision=1,
        status="ACTIVE",
        document=document,
        tags=request.get("tags", []),
    )


def launch_service(
    plane: Plane, definition: TaskDefinition, request: dict[str, Any], cluster: str = "default"
) -> Launch:
    """Make a service, and the launch of its tasks.

    Raises:
        ApiError: it is refused.
    """
    rules.check_new(request)
    rules.check_served(request, definition.document, "created")
    document = rules.complete(request, {}, DEFINITION_ARN)
    service = Service(name=request["serviceName"], tags=request.get("tags", []))
    asked = render_request(service, rules.render_template(document))
    return plan_launch(plane, make_vpc(plane), cluster, definition, asked)


def tell(launch: Launch) -> TaskMessage:
    """Return what an agent is told of a task of a launch."""
    definition = override_task(launch.definition.document, launch.document["overrides"])
    attachments = mint_volumes(launch.volumes)
    message = render_task(
        arn=TASK_ARN,
        cluster_arn=CLUSTER_ARN,
        definition=configure_volumes(definition, launch.volumes, attachments),
        containers=[{**container, "containerArn": None} for container in launch.containers],
        size=launch.size,
        group=launch.group,
        zone="us-east-1a",
        vpc_id="vpc-default",
        eni=EniMessage.model_validate(eni_json()),
        role_arn=Arns("us-east-1", "000000000000").role,
    )
    return TaskMessage.model_validate(message)
