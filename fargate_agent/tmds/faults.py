"""`$ECS_AGENT_URI/fault/v1/…`: a task makes its own network worse, to see how it gets along.

Source: amazon-ecs-agent, ecs-agent/tmds/handlers/fault/v1.
"""

import asyncio
import logging
from pathlib import Path
from typing import Final

from fargate_agent.drivers.faults import BlackHole, FaultInjector, Impairment, Latency, Network
from fargate_agent.errors import TaskError
from fargate_agent.plan import TaskPlan
from fargate_agent.tmds.answers import Answer, answer_json
from fargate_agent.tmds.fault_requests import (
    BLACK_HOLE,
    LATENCY,
    LOSS,
    FaultRequestError,
    read_hole,
    read_impairment,
    read_members,
)

log = logging.getLogger(__name__)

TIMEOUT_S: Final = 5.0
"""For one request. Source: amazon-ecs-agent, ecs-agent/tmds/handlers/fault/v1/handlers."""

RUNNING, STOPPED, NOT_RUNNING = "running", "stopped", "not-running"
_VERBS: Final = {"start": "start", "stop": "stop", "status": "check status"}

_Asked = tuple[BlackHole, tuple[Network, ...]] | Impairment | None
"""What a body says; None: nothing is to be read of it."""


class Faults:
    """Answers what one task asks about faults, one request after another."""

    def __init__(self, injector: FaultInjector, timeout_s: float = TIMEOUT_S) -> None:
        self._injector = injector
        self._timeout_s = timeout_s
        self._lock = asyncio.Lock()
        self._overdue = set[asyncio.Task[Answer]]()
        """What the kernel hasn't done in time; the next request waits for it."""

    async def answer(
        self, task: TaskPlan | None, metadata_id: str, path: str, body: bytes
    ) -> Answer:
        """Answer a request to start, stop, or tell of a fault; None is a task that isn't there."""
        *_, fault, action = path.split("/")
        try:
            asked = _read(fault, action, body)
        except FaultRequestError as error:
            return _refuse(400, str(error))
        if task is None:
            # the text is unverified
            return _refuse(404, f"unable to lookup container: {metadata_id}")
        if not task.may_inject_faults:
            return _refuse(400, f"enableFaultInjection is not enabled for task: {task.arn}")
        return await self._do_in_time(task, fault, action, asked)

    async def _do_in_time(self, task: TaskPlan, fault: str, action: str, asked: _Asked) -> Answer:
        what = f"{_VERBS[action]} {fault}"
        doing = asyncio.create_task(self._do(task, fault, action, asked))
        self._overdue.add(doing)
        doing.add_done_callback(self._overdue.discard)
        try:
            await asyncio.wait({doing}, timeout=self._timeout_s)
            if not doing.done():
                log.error("task %s: %s isn't done after %g s", task.id, what, self._timeout_s)
                return _refuse(500, f"{what}: request timed out")
            return doing.result()
        except TaskError as error:
            log.error("task %s: %s: %s", task.id, what, error.detail)
            return answer_json(500, {"Error": "internal error", "Reason": error.detail})
        finally:
            doing.cancel()  # what waits for its turn doesn't begin any more

    async def _do(self, task: TaskPlan, fault: str, action: str, asked: _Asked) -> Answer:
        async with self._lock:
            if isinstance(asked, tuple):
                return _tell(await self._do_hole(task.netns, action, *asked))
            ifname = next(eni.ifname for eni in task.enis if eni.primary)
            return await self._do_impairment(task.netns, ifname, fault, asked, action)

    async def _do_hole(
        self, netns: Path, action: str, hole: BlackHole, exempt: tuple[Network, ...]
    ) -> str:
        if action == "start":
            await self._injector.swallow(netns, hole, exempt)
            return RUNNING
        if action == "stop":
            await self._injector.fill(netns, hole)
            return STOPPED
        return RUNNING if await self._injector.swallows(netns, hole) else NOT_RUNNING

    async def _do_impairment(
        self, netns: Path, ifname: str, fault: str, asked: _Asked, action: str
    ) -> Answer:
        running = await self._injector.find_impairment(netns, ifname)
        kind = None if running is None else LATENCY if running is Latency else LOSS
        if action == "status":
            return _tell(RUNNING if kind == fault else NOT_RUNNING)
        if isinstance(asked, Impairment):
            if kind is not None:
                name = kind.replace("-", " ")
                return _refuse(409, f"There is already one {name} fault running")
            await self._injector.impair(netns, ifname, asked)
            return _tell(RUNNING)
        if kind in (None, fault):  # of one that is there in part, something is left
            await self._injector.repair(netns, ifname)
        return _tell(STOPPED)


def _read(fault: str, action: str, body: bytes) -> _Asked:
    """Return what a body asks for.

    Raises:
        FaultRequestError: it isn't as it should be.
    """
    if fault == BLACK_HOLE:
        return read_hole(read_members(body))
    return read_impairment(fault, read_members(body)) if action == "start" else None


def _tell(status: str) -> Answer:
    return answer_json(200, {"Status": status})


def _refuse(status: int, text: str) -> Answer:
    return answer_json(status, {"Error": text})
