"""From a question to its answer: statuses and error texts of the metadata endpoint.

An error of metadata or stats is a JSON string, not an object. Source: amazon-ecs-agent,
ecs-agent/tmds/handlers/v2, v4 and agent/handlers/v2, v3.
"""

import asyncio
import json
import logging
import posixpath
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from zlib import crc32

from aiohttp import web

from fargate_agent.drivers.faults import FaultInjector
from fargate_agent.errors import TaskError
from fargate_agent.network.netlink import NetlinkError
from fargate_agent.plan import ContainerPlan
from fargate_agent.task.status import ContainerFacts, TaskFacts
from fargate_agent.tmds.answers import NOT_FOUND, TEXT, Answer, answer_json, refuse
from fargate_agent.tmds.clock import read_clock_drift
from fargate_agent.tmds.confidential import Confidential
from fargate_agent.tmds.control_plane import CALL_TIMEOUT_S, Calls, read_tags
from fargate_agent.tmds.faults import Faults
from fargate_agent.tmds.limits import FAULTS, Limiter, Rate
from fargate_agent.tmds.metadata import (
    Site,
    TaskView,
    describe_container,
    describe_container_v2,
    describe_task,
    describe_task_v2,
)
from fargate_agent.tmds.protection import answer_protection
from fargate_agent.tmds.refusals import (
    RefusedRequest,
    refuse_stats,
    refuse_too_many,
    refuse_unknown,
    refuse_without_task,
)
from fargate_agent.tmds.routes import Found, Version, What, find_route
from fargate_agent.tmds.sampling import Pair, Sampler
from fargate_agent.tmds.stats import render_stats
from fargate_agent.tmds.storage import StorageMeter
from fargate_agent.wire.metadata import Shape

log = logging.getLogger(__name__)

KEPT_S: Final = 1.0
"""How long a rendered answer counts at most while no fact moves: clock and storage go on by
themselves."""

FindTask = Callable[[str], TaskView | None]
"""By task id."""

_AT_ONCE: Final = frozenset({What.CONTAINER, What.TASK})


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request, whoever has read it."""

    method: str
    path: str
    """Without the query, as it was sent."""
    query: str = ""
    body: bytes = b""
    forwarded_for: str = ""
    """As the client says; shown to it, and nothing else."""
    remote: str = ""
    """Address and port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where answers come from; one for all tasks."""

    find_task: FindTask
    sampler: Sampler
    storage: StorageMeter
    confidential: Confidential
    calls: Calls
    faults: FaultInjector
    snapshotter: str
    limit: Rate | None
    """Of each path; None is no limit."""


@dataclass(slots=True)
class _Kept:
    """An answer as it was sent."""

    facts: tuple[object, ...]
    old_at_s: float
    wire: bytes


class TaskAnswers:
    """Answers what one task asks about itself.

    Which task asks is known before anything is read. An id that belongs to another task is as
    unknown as one that nobody has.
    """

    def __init__(self, sources: Sources, task_id: str) -> None:
        self._sources = sources
        self._task_id = task_id
        self._limiter = Limiter(sources.limit) if sources.limit else None
        self._fault_limiter = Limiter(FAULTS)
        self._faults = Faults(sources.faults)
        self._kept: dict[str, _Kept] = {}
        self._stats: dict[tuple[str, bool], tuple[Pair, bytes]] = {}
        """By container id, and whether rates are there: what the last samples were rendered as."""

    def refuse_too_many(self, question: Question) -> Answer | None:
        """Count a request; say so if it is one too many."""
        rate = self._sources.limit
        if rate is None or self._limiter is None or self._limiter.take(question.path):
            return None
        text = "You have reached maximum request limit."
        return refuse_too_many(rate, text, question.forwarded_for, question.remote)

    def answer_at_once(self, path: str) -> bytes | None:
        """Answer a GET with what needs no waiting, as it goes over the wire; None: ask `answer`."""
        task = self._sources.find_task(self._task_id)
        if task is None:
            return None
        facts, now_s = _look(task.facts), time.monotonic()
        kept = self._kept.get(path)
        if kept is not None and kept.facts == facts and now_s < kept.old_at_s:
            return kept.wire
        answer = self._find_at_once(task, path)
        if answer is None:
            return None
        wire = answer.render()
        if answer.status == HTTPStatus.OK:  # so there are as many as the task has paths
            self._kept[path] = _Kept(facts, find_end(self._task_id, now_s), wire)
        return wire

    def _find_at_once(self, task: TaskView, path: str) -> Answer | None:
        found = find_route(path)
        if found is None or found.route.what not in _AT_ONCE:
            return None
        if _shows_storage(found) and not self._sources.storage.was_measured(task.plan):
            return None
        try:
            return self._answer_metadata(task, found)
        except RefusedRequest as refused:
            return refused.answer

    async def answer(
        self, question: Question, request: web.BaseRequest | None = None
    ) -> Answer | web.Response:
        """Answer a request; what is behind ids alone needs it as it came."""
        path = question.path
        if (cleaned := _clean(path)) != path:
            place = f"{cleaned}?{question.query}" if question.query else cleaned
            return Answer(status=301, content_type=TEXT, headers={"Location": place})
        task = self._sources.find_task(self._task_id)
        found = find_route(path)
        if request is not None and (found is None or found.route.what is What.CREDENTIALS):
            plan = None if task is None else task.plan
            return await self._sources.confidential.answer(plan, path, request) or NOT_FOUND
        if found is None:
            return NOT_FOUND
        try:
            return await self._answer_found(task, found, question)
        except RefusedRequest as refused:
            return refused.answer

    async def _answer_found(
        self, task: TaskView | None, found: Found, question: Question
    ) -> Answer:
        """Answer what has a place in the table of routes.

        Raises:
            RefusedRequest: the answer is an error.
        """
        route = found.route
        if route.methods is not None and question.method not in route.methods:
            allowed = ", ".join(sorted(route.methods))
            return Answer(status=405, content_type=TEXT, headers={"Allow": allowed})
        if route.version is Version.API:
            return await self._answer_api(task, found, question)
        if task is None and route.version is Version.V2:
            raise refuse_without_task()
        if task is None:
            raise refuse_unknown(found)
        if _shows_storage(found):
            await self._sources.storage.bytes_of(task.plan)
        if route.what in _AT_ONCE:
            return self._answer_metadata(task, found)
        return await self._answer_in_time(task, found)

    async def _answer_api(self, task: TaskView | None, found: Found, question: Question) -> Answer:
        plan = task.plan if task is not None and _has_container(task, found) else None
        if found.route.what is What.PROTECTION:
            calls = self._sources.calls
            return await answer_protection(calls, plan, question.method, question.body)
        if not self._fault_limiter.take(question.path):
            text = "You have reached maximum request limit"
            return refuse_too_many(FAULTS, text, question.forwarded_for, question.remote)
        return await self._faults.answer(plan, found.parts["id"], question.path, question.body)

    def _answer_metadata(self, task: TaskView, found: Found) -> Answer:
        """Answer with what is known of a container or a task.

        Raises:
            RefusedRequest: the container isn't one of the task.
        """
        shape: Shape
        match found.route.version is Version.V4, found.route.what is What.TASK:
            case True, True:
                _find_container(task, found)
                shape = describe_task(task, self._site(task))
            case True, False:
                shape = describe_container(task, _find_container(task, found), self._site(task))
            case False, True:
                if found.route.version is Version.V3:
                    _find_container(task, found)
                shape = describe_task_v2(task)
            case _:
                shape = describe_container_v2(task, _find_container(task, found))
        return Answer(body=shape.to_json())

    async def _answer_in_time(self, task: TaskView, found: Found) -> Answer:
        """Answer with what others have to be asked for.

        Raises:
            RefusedRequest: the container isn't one of the task, or they don't answer.
        """
        version, what = found.route.version, found.route.what
        if not _has_container(task, found):
            raise refuse_unknown(found)
        match what:
            case What.TASK_WITH_TAGS:
                answer = await self._answer_with_tags(task, version)
            case What.STATS:
                answer = await self._answer_stats(task, _find_container(task, found), version)
            case What.TASK_STATS:
                answer = await self._answer_task_stats(task, version)
            case What.ASSOCIATIONS:
                answer = answer_json(200, {"Associations": []})
            case What.ASSOCIATION:
                name = found.parts["name"]
                answer = refuse(400, f"Unable to get association value: no association {name}")
            case _:  # of daemons, which don't exist here; the text is unverified
                answer = refuse(500, f"failed to get {what}")
        return answer

    async def _answer_with_tags(self, task: TaskView, version: Version) -> Answer:
        tags = await read_tags(self._sources.calls, task.plan)
        if version is Version.V4:
            return Answer(body=describe_task(task, self._site(task), tags).to_json())
        return Answer(body=describe_task_v2(task, tags).to_json())

    async def _answer_stats(
        self, task: TaskView, container: ContainerPlan, version: Version
    ) -> Answer:
        pairs = await self._read(task, (container,))
        if pairs is None or container.id not in pairs:
            raise refuse_stats(version, f"Unable to get container stats for: {container.id}")
        return Answer(body=self._render_stats(task, container, pairs[container.id], version))

    async def _answer_task_stats(self, task: TaskView, version: Version) -> Answer:
        pairs = await self._read(task, task.plan.containers)
        if pairs is None:
            raise refuse_stats(version, f"Unable to get task stats for: {task.plan.arn}")
        missing = b"{}" if version is Version.V4 else b"null"
        members = [
            json.dumps(one.id).encode()
            + b":"
            + (
                self._render_stats(task, one, pairs[one.id], version)
                if one.id in pairs
                else missing
            )
            for one in task.plan.containers
        ]
        return Answer(body=b"{" + b",".join(members) + b"}")

    def _render_stats(
        self, task: TaskView, container: ContainerPlan, pair: Pair, version: Version
    ) -> bytes:
        """Return the stats of a container; the same samples are rendered once for all readers."""
        with_rates = version is Version.V4
        kept, text = self._stats.get((container.id, with_rates), (None, b""))
        if kept is not pair:
            text = render_stats(task.plan, container, pair, with_rates=with_rates).to_json()
            self._stats[container.id, with_rates] = pair, text
        return text

    async def _read(
        self, task: TaskView, containers: tuple[ContainerPlan, ...]
    ) -> Mapping[str, Pair] | None:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await self._sources.sampler.read(task.plan, containers)
        except (TaskError, NetlinkError, TimeoutError) as error:
            log.warning("a container asked for stats, and gets none: %r", error)
            return None

    def _site(self, task: TaskView) -> Site:
        return Site(
            snapshotter=self._sources.snapshotter,
            clock=read_clock_drift(),
            storage_bytes=self._sources.storage.known(task.plan),
        )


def find_end(task_id: str, now_s: float) -> float:
    """Return until when an answer counts that is rendered now.

    Each task has a moment of its own in each `KEPT_S`. So the answers of many tasks are not
    rendered at one time, in which nobody else is answered, though all began to ask at once.
    """
    moment_s = crc32(task_id.encode()) / 2**32 * KEPT_S
    return now_s + KEPT_S - (now_s - moment_s) % KEPT_S


def _look(facts: TaskFacts) -> tuple[object, ...]:
    """Return what answers show of facts, to be compared."""
    return (
        facts.status,
        facts.pull_started_at,
        facts.pull_stopped_at,
        facts.execution_stopped_at,
        *[_look_at(container) for container in facts.containers.values()],
    )


def _look_at(facts: ContainerFacts) -> tuple[object, ...]:
    health, runs = facts.health, facts.runs
    return (
        facts.status,
        facts.image_digest,
        facts.restart_count,
        len(runs),
        (runs[0].created_at, runs[0].started_at) if runs else None,
        (runs[-1].finished_at, runs[-1].exit_code) if runs else None,
        (health.status, health.since, health.exit_code, health.output) if health else None,
    )


def _clean(path: str) -> str:
    """Drop what says nothing from a path. Source: gorilla/mux, mux.go, `cleanPath`."""
    cleaned = posixpath.normpath(f"/{path.lstrip('/')}")
    return f"{cleaned}/" if path.endswith("/") and cleaned != "/" else cleaned


def _shows_storage(found: Found) -> bool:
    return found.route.version is Version.V4 and found.route.what in {
        What.TASK,
        What.TASK_WITH_TAGS,
    }


def _has_container(task: TaskView, found: Found) -> bool:
    """Whether the container that a path names, if it names one, is one of the task."""
    names_one = "docker_id" in found.parts or "id" in found.parts
    return not names_one or any(_is_meant(one, found) for one in task.plan.containers)


def _is_meant(container: ContainerPlan, found: Found) -> bool:
    docker_id, metadata_id = found.parts.get("docker_id"), found.parts.get("id")
    return docker_id == container.id or metadata_id == container.metadata_id


def _find_container(task: TaskView, found: Found) -> ContainerPlan:
    """Return the container that a path names.

    Raises:
        RefusedRequest: it isn't one of the task.
    """
    for container in task.plan.containers:
        if _is_meant(container, found):
            return container
    raise refuse_unknown(found)
