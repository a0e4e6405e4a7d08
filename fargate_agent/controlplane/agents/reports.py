"""What agents report: SubmitTaskStateChange."""

import logging
import time
from typing import Final

from fargate_agent.controlplane.agents.instances import check_owner
from fargate_agent.controlplane.errors import invalid_parameter
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.state.model import ContainerInstance, Task
from fargate_agent.controlplane.tasks.changes import change_task, task_not_found
from fargate_agent.controlplane.tasks.lifecycle import apply_change
from fargate_agent.controlplane.validate import Json, check_length

log = logging.getLogger(__name__)

_STATUSES: Final = {None, "PENDING", "RUNNING", "STOPPED"}


async def submit_task_state_change(plane: Plane, call: Call) -> Json:
    """Take over how a task stands; what is known already, or comes too late, changes nothing."""
    request = call.request
    if request.get("status") not in _STATUSES:
        raise invalid_parameter("status must be one of: PENDING, RUNNING, STOPPED")
    for container in request.get("containers", []):
        for member in ("imageDigest", "runtimeId"):
            check_length(container.get(member, ""), member)
    cluster = plane.arns.parse_cluster(request.get("cluster") or plane.settings.cluster)
    task_id = plane.arns.parse_task(request.get("task", ""), cluster)
    now = round(time.time(), 3)

    def change(task: Task, instance: ContainerInstance) -> tuple[str, str]:
        if task.cluster != cluster:
            raise task_not_found()
        check_owner(instance, call.caller.access_key_id)
        before = task.last_status
        apply_change(task, request, now)
        return before, task.last_status

    before, after = await change_task(plane, task_id, change)
    if before != after:
        log.info("task %s: %s → %s", task_id, before, after)
    return {"acknowledgment": "ACK"}


OPERATIONS: Final[dict[str, Operation]] = {
    "SubmitTaskStateChange": submit_task_state_change,
}
