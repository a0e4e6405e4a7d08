"""From a deployment to the tasks that are made of it. Pure."""

from collections import Counter
from collections.abc import Iterable

from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.state.model import Deployment, Service, Task, TaskDefinition
from fargate_agent.controlplane.tasks.launch import Launch, ServiceMark, plan_launch
from fargate_agent.controlplane.validate import Json
from fargate_agent.controlplane.vpc import Vpc


def render_request(service: Service, template: Json) -> Json:
    """Return a deployment's template as RunTask would be asked for one of its tasks."""
    request = dict(template)
    request.pop("serviceRegistries", None)
    request.pop("enableExecuteCommand", None)  # taken before it was refused; services go on
    propagated = request.pop("propagateTags")
    if propagated == "TASK_DEFINITION":
        request["propagateTags"] = propagated
    if propagated == "SERVICE":
        request["tags"] = service.tags
    if "volumeConfigurations" in request:
        request["volumeConfigurations"] = list(map(_as_of_task, request["volumeConfigurations"]))
    return request


def _as_of_task(configuration: Json) -> Json:
    """Return the configuration of a volume as RunTask takes it: only services propagate tags."""
    ebs = configuration.get("managedEBSVolume", {})
    if "tagSpecifications" not in ebs:
        return configuration
    specifications = [
        {**one, "propagateTags": "NONE"} if one.get("propagateTags") == "SERVICE" else one
        for one in ebs["tagSpecifications"]
    ]
    return {**configuration, "managedEBSVolume": {**ebs, "tagSpecifications": specifications}}


def plan_tasks(  # noqa: PLR0913 - what a launch follows from, each of another kind
    plane: Plane,
    vpc: Vpc,
    service: Service,
    deployment: Deployment,
    definition: TaskDefinition,
    count: int,
    tasks: Iterable[Task],
) -> Launch:
    """Return the launch of some tasks of a deployment; `tasks` are those that the service has.

    Raises:
        ApiError: they can't be made any more, e.g. because a subnet is gone.
    """
    request = {**render_request(service, deployment.document), "count": count}
    mark = ServiceMark(name=service.name, deployment_id=deployment.id)
    placed = Counter(
        str(task.document.get("capacityProviderName"))
        for task in tasks
        if task.desired_status == "RUNNING"
    )
    return plan_launch(plane, vpc, service.cluster, definition, request, mark, placed)
