"""From a request to its answer: paths, statuses and error texts of the task metadata endpoint.

An error is a JSON string, not an object. Source: amazon-ecs-agent, ecs-agent/tmds/handlers/v4.
"""

import asyncio
import json
import logging
import posixpath
import re
from collections.abc import Callable
from typing import Final

from aiohttp import web

from fargate_agent.errors import TaskError
from fargate_agent.network.netlink import NetlinkError
from fargate_agent.plan import ContainerPlan
from fargate_agent.tmds.clock import read_clock_drift
from fargate_agent.tmds.confidential import Confidential
from fargate_agent.tmds.metadata import TaskView, describe_container, describe_task
from fargate_agent.tmds.stats import StatsSampler
from fargate_agent.wire.stats import ContainerStats

log = logging.getLogger(__name__)

ANSWER_TIMEOUT_S: Final = 4.0
"""So that an error can still be sent before the client gives up. Source: amazon-ecs-agent,
ecs-agent/tmds/handlers/taskprotection/v1/handlers/handlers.go, `ecsCallTimeout`."""

FindTask = Callable[[str], TaskView | None]
"""By task id."""

_PATH: Final = re.compile(r"/v4/(?P<id>[^/]*)(?P<what>|/task|/stats|/task/stats)")

_UNKNOWN: Final = {
    "": "container metadata handler: unable to get container ID from request: "
    "unable to get docker ID",
    "/task": "task metadata handler: unable to get task arn from request: unable to get task Arn",
    "/stats": "container stats handler: unable to get container ID from request: "
    "unable to get docker ID",
    "/task/stats": "task stats handler: unable to get task arn from request: "
    "unable to get task Arn",
}


class Handlers:
    """Answers what a task asks about itself."""

    def __init__(
        self,
        find_task: FindTask,
        stats: StatsSampler,
        snapshotter: str,
        confidential: Confidential,
    ) -> None:
        self._find_task = find_task
        self._confidential = confidential
        self._stats = stats
        self._snapshotter = snapshotter

    async def answer(self, task_id: str, request: web.BaseRequest) -> web.Response:
        """Answer a request that came out of the network namespace of the task.

        An id that belongs to another task is as unknown as one that nobody has.
        """
        path = request.rel_url.raw_path
        if (cleaned := _clean(path)) != path:
            return web.Response(status=301, headers={"Location": cleaned})
        task = self._find_task(task_id)
        wanted = _PATH.fullmatch(path)
        if wanted is None:
            plan = None if task is None else task.plan
            answer = await self._confidential.answer(plan, path, request)
            return answer or web.Response(status=404, text="404 page not found\n")
        container = _find_container(task, wanted["id"])
        if task is None or container is None:
            text = f"V4 {_UNKNOWN[wanted['what']]} from v3 endpoint ID: {wanted['id']}"
            return _error(404, text)
        return await self._describe(task, container, wanted["what"])

    async def _describe(self, task: TaskView, container: ContainerPlan, what: str) -> web.Response:
        match what:
            case "/task":
                clock = read_clock_drift()
                return _json(describe_task(task, self._snapshotter, clock).to_json())
            case "/stats":
                return await self._answer_stats(task, container)
            case "/task/stats":
                return await self._answer_task_stats(task)
            case _:
                return _json(describe_container(task, container, self._snapshotter).to_json())

    async def _answer_stats(self, task: TaskView, container: ContainerPlan) -> web.Response:
        stats = await self._sample(task, (container,))
        if stats is None or container.id not in stats:
            return _error(500, f"Unable to get container stats for: {container.id}")
        return _json(stats[container.id].to_json())

    async def _answer_task_stats(self, task: TaskView) -> web.Response:
        stats = await self._sample(task, task.plan.containers)
        if stats is None:
            return _error(500, f"Unable to get task stats for: {task.plan.arn}")
        members = [
            json.dumps(container.id).encode()
            + b":"
            + (stats[container.id].to_json() if container.id in stats else b"{}")
            for container in task.plan.containers
        ]
        return _json(b"{" + b",".join(members) + b"}")

    async def _sample(
        self, task: TaskView, containers: tuple[ContainerPlan, ...]
    ) -> dict[str, ContainerStats] | None:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await self._stats.sample(task.plan, containers)
        except (TaskError, NetlinkError, TimeoutError) as error:
            log.warning("a container asked for stats, and gets none: %r", error)
            return None


def _clean(path: str) -> str:
    """Drop what says nothing from a path. Source: gorilla/mux, mux.go, `cleanPath`."""
    cleaned = posixpath.normpath(f"/{path.lstrip('/')}")
    return f"{cleaned}/" if path.endswith("/") and cleaned != "/" else cleaned


def _find_container(task: TaskView | None, metadata_id: str) -> ContainerPlan | None:
    containers = task.plan.containers if task is not None else ()
    return next((one for one in containers if one.metadata_id == metadata_id), None)


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


def _error(status: int, text: str) -> web.Response:
    return web.Response(
        status=status, body=json.dumps(text).encode(), content_type="application/json"
    )
