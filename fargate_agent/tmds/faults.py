"""`$ECS_AGENT_URI/fault/v1/…`: no task may inject faults yet, and is told so as ECS tells it.

Source: amazon-ecs-agent, ecs-agent/tmds/handlers/fault/v1.
"""

from fargate_agent.plan import TaskPlan
from fargate_agent.tmds.answers import Answer, answer_json


def answer_fault(task: TaskPlan | None, metadata_id: str, path: str, body: bytes) -> Answer:
    """Answer a request to start, stop, or tell of a fault; None is a task that isn't there."""
    *_, fault, action = path.split("/")
    needs_body = action == "start" or fault == "network-blackhole-port"
    if needs_body and not body.strip():
        return answer_json(400, {"Error": "required request body is missing"})
    if task is None:
        # the text is unverified
        return answer_json(404, {"Error": f"unable to lookup container: {metadata_id}"})
    return answer_json(400, {"Error": f"enableFaultInjection is not enabled for task: {task.arn}"})
