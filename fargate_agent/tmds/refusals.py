"""What is refused, and in which words, by the version that was asked.

Source: amazon-ecs-agent, ecs-agent/tmds/handlers/v2, v4 and agent/handlers/v2, v3.
"""

from typing import Final

from fargate_agent.network.metadata import TASK_ADDRESS
from fargate_agent.tmds.answers import TEXT, Answer, refuse
from fargate_agent.tmds.limits import Rate
from fargate_agent.tmds.routes import Found, Version, What

_NO_TASK: Final = "unable to get task arn from request: unable to get task Arn"
_NO_CONTAINER: Final = "unable to get container ID from request: unable to get docker ID"

_UNKNOWN: Final = {
    What.CONTAINER: f"container metadata handler: {_NO_CONTAINER}",
    What.TASK: f"task metadata handler: {_NO_TASK}",
    What.TASK_WITH_TAGS: f"task metadata handler: {_NO_TASK}",
    What.STATS: f"container stats handler: {_NO_CONTAINER}",
    What.TASK_STATS: f"task stats handler: {_NO_TASK}",
    What.ASSOCIATIONS: f"container associations handler: {_NO_CONTAINER}",
    What.ASSOCIATION: f"container associations handler: {_NO_CONTAINER}",
    What.TASKS: f"task metadata handler: {_NO_TASK}",
    What.TASKS_STATS: f"task stats handler: {_NO_TASK}",
}

_STATS: Final = frozenset({What.STATS, What.TASK_STATS})
_ASSOCIATIONS: Final = frozenset({What.ASSOCIATIONS, What.ASSOCIATION})


class RefusedRequest(Exception):  # noqa: N818 - an answer, not a fault of ours
    """A request that is answered with an error."""

    def __init__(self, answer: Answer) -> None:
        """Keep the answer."""
        super().__init__(answer.status)
        self.answer = answer


def refuse_without_task() -> RefusedRequest:
    """Refuse what was asked by nobody's address, version 2."""
    text = f"unable to associate '{TASK_ADDRESS.ip}' with task"
    return RefusedRequest(refuse(400, f"Unable to get task arn from request: {text}"))


def refuse_unknown(found: Found) -> RefusedRequest:
    """Refuse an id that is none of the task that asks, be it one of another task."""
    version, what = found.route.version, found.route.what
    if version is Version.V2:
        docker_id = found.parts.get("docker_id", "")
        text = f"Unable to generate metadata for container '{docker_id}'"
        if what is What.STATS:
            text = f"Unable to get container stats for: {docker_id}"
        return RefusedRequest(refuse(400, text))
    text = f"{version} {_UNKNOWN[what]} from v3 endpoint ID: {found.parts['id']}"
    if what in _ASSOCIATIONS or (version is Version.V3 and what in _STATS):
        return RefusedRequest(refuse(400, text))
    return RefusedRequest(refuse(404 if version is Version.V4 else 500, text))


def refuse_stats(version: Version, text: str) -> RefusedRequest:
    """Refuse stats that can't be had."""
    return RefusedRequest(refuse(500 if version is Version.V4 else 400, text))


def refuse_too_many(rate: Rate, text: str, forwarded_for: str, remote: str) -> Answer:
    """Refuse what is over a limit. Source: didip/tollbooth, tollbooth.go, `setResponseHeaders`."""
    return Answer(
        status=429,
        body=text.encode(),
        content_type=TEXT,
        headers={
            "X-Rate-Limit-Limit": f"{rate.per_second:.2f}",
            "X-Rate-Limit-Duration": "1",
            "X-Rate-Limit-Request-Forwarded-For": forwarded_for,
            "X-Rate-Limit-Request-Remote-Addr": remote,
        },
    )
