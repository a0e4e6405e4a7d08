"""Which tasks run: started and stopped by messages, adopted after a restart."""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from os.path import ismount

from fargate_agent.drivers import Drivers
from fargate_agent.errors import ContainerRuntimeError, InternalError, TaskError
from fargate_agent.plan import (
    EniPlan,
    Site,
    change_groups,
    change_messages,
    find_refused,
    plan_task,
)
from fargate_agent.task.phases import Phase
from fargate_agent.task.runner import TaskRun, run_task
from fargate_agent.task.status import StateChange, StopCode, TaskFacts, TaskStatus
from fargate_agent.task.store import TaskRecord, TaskStore
from fargate_agent.wire.arns import parse_task_arn
from fargate_agent.wire.messages import TaskMessage

log = logging.getLogger(__name__)

STOPPED_BY_USER = "Task stopped by user"
"""Source: ECS developer guide, stopped task error messages."""

SYNC_AFTER_S = 1.0
"""How long a starting task may put off that its record is made safe, and so acknowledged."""

MAX_OVER = 1000
"""How many tasks that are over are remembered: a message may have been under way meanwhile."""

TASK_REBOOTED = InternalError("the machine was restarted while the task ran").reason
CONTAINER_REBOOTED = ContainerRuntimeError(
    "the machine was restarted while the container ran"
).reason


@dataclass(slots=True, kw_only=True)
class _Entry:
    """A record, and the run of it; None if the task was refused before anything was made."""

    record: TaskRecord
    run: TaskRun | None
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    updating: asyncio.Lock = field(default_factory=asyncio.Lock)
    refused: set[str] = field(default_factory=set)
    """Names of members that messages would have changed and can't, as far as told."""


class Supervisor:
    """Owns every task of this agent, from its message until STOPPED was acknowledged."""

    def __init__(
        self,
        *,
        site: Site,
        store: TaskStore,
        boot_id: str,
        send: Callable[[StateChange], None],
        note_start: Callable[[TaskRun, tuple[Phase, ...]], None] = lambda _, __: None,
    ) -> None:
        """`send` queues a change for the control plane and never blocks.

        `note_start` is told how long the start of a task took, and its parts, when it is over.
        """
        self._site = site
        self._store = store
        self._boot_id = boot_id
        self._send = send
        self._note_start = note_start
        self._entries: dict[str, _Entry] = {}
        self._over: deque[str] = deque(maxlen=MAX_OVER)
        self.unreadable: dict[str, str] = {}
        """Tasks that were left running, by id, and why their records can't be read. Nobody watches
        them. A message about one takes it over."""
        self._run: Callable[[TaskRun], None] | None = None
        self._drivers: Drivers | None = None

    async def adopt(self) -> None:
        """Take over the tasks that a predecessor left. Call it once, before anything else."""
        stored = await self._store.read_all()
        for task_id, why in stored.unreadable.items():
            await self._keep_or_put_aside(task_id, why)
        for task_id, record in stored.records.items():
            log.info(
                "task %s is adopted; it was %s",
                task_id,
                record.facts.status,
                extra={"task": task_id},
            )
            if record.boot_id != self._boot_id:
                _note_reboot(record)
            self._entries[task_id] = self._plan(record)

    async def _keep_or_put_aside(self, task_id: str, why: str) -> None:
        """A task has a network namespace from its first step to its last, unless a reboot came."""
        if await asyncio.to_thread(ismount, self._site.netns(task_id)):
            self.unreadable[task_id] = why
            return
        aside = await self._store.put_aside(task_id)
        log.error(
            "nothing runs of task %s, and its record can't be read; it was put aside as %s: %s",
            task_id,
            aside.name,
            why,
            extra={"task": task_id},
        )

    async def serve(self, drivers: Drivers) -> None:
        """Run the tasks, until cancelled; cancelled, it leaves them running for a successor."""
        async with asyncio.TaskGroup() as jobs:

            def run(one: TaskRun) -> None:
                jobs.create_task(run_task(one, drivers, self._report, self._save), name=one.plan.id)

            self._run, self._drivers = run, drivers
            for entry in self._entries.values():
                await self._begin(entry)
            await asyncio.get_running_loop().create_future()

    async def apply(self, message: TaskMessage) -> None:
        """Make it so that the task has the status it should have.

        When this returns, a successor of this process knows of it; after `sync`, one that comes
        after a power cut does too.

        Raises:
            OSError: a new task could not be written down; nothing was begun.
        """
        task_id = parse_task_arn(message.arn).task_id
        entry = self._entries.get(task_id)
        if entry is None and task_id in self._over:
            log.info("task %s: the message came too late", task_id, extra={"task": task_id})
        elif entry is None:
            record = TaskRecord(
                message=message, boot_id=self._boot_id, metadata_key=secrets.token_hex()
            )
            if message.desired_status == "STOPPED":
                record.facts.status = TaskStatus.STOPPING
                record.stop_reason = record.facts.reason = STOPPED_BY_USER
                record.facts.stop_code = StopCode.USER_INITIATED
            is_new = task_id not in self.unreadable
            entry = self._entries[task_id] = self._plan(record, is_new=is_new)
            try:
                async with entry.writing:
                    await self._store.write(task_id, record)
            except OSError:
                del self._entries[task_id]
                raise
            self.unreadable.pop(task_id, None)
            await self._begin(entry)
        elif message.desired_status == "STOPPED":
            await self.stop(task_id, STOPPED_BY_USER)
        else:
            await self._update(task_id, entry, message)

    async def _update(self, task_id: str, entry: _Entry, message: TaskMessage) -> None:
        """Take what may change while a task runs: the security groups of its ENIs.

        Credentials are taken before. What else has changed is told once, and left as it is.

        Raises:
            ResourceInitializationError: the kernel refused; the groups are those of before.
        """
        async with entry.updating:
            await self._update_alone(task_id, entry, message)

    async def _update_alone(self, task_id: str, entry: _Entry, message: TaskMessage) -> None:
        run = entry.run
        if run is None or run.facts.status.is_after(TaskStatus.RUNNING):
            return
        _refuse(task_id, entry, message)
        enis = change_groups(run.plan.enis, message.elastic_network_interfaces)
        if enis == run.plan.enis:
            return
        stored, before = entry.record.message, run.plan.enis
        interfaces = change_messages(
            stored.elastic_network_interfaces, message.elastic_network_interfaces
        )
        entry.record.message = stored.model_copy(update={"elastic_network_interfaces": interfaces})
        run.plan = replace(run.plan, enis=enis)
        try:
            await self._write(task_id, entry)
            await self._update_enis(run, before)
        except BaseException as error:  # the message comes again, and finds what it has to change
            entry.record.message, run.plan = stored, replace(run.plan, enis=before)
            if isinstance(error, TaskError):
                await self._write(task_id, entry)
            raise

    async def _update_enis(self, run: TaskRun, before: tuple[EniPlan, ...]) -> None:
        if self._drivers is None:
            return  # what adopts the task attaches its ENIs with their new groups
        for old, new in zip(before, run.plan.enis, strict=True):
            if new != old:
                await self._drivers.enis[new.kind].update(new, run.plan.netns)
                log.info(
                    "%s is in security groups %s",
                    new.id,
                    ", ".join(new.security_groups or ()),
                    extra={"task": run.plan.id},
                )

    async def sync(self, task_arn: str) -> None:
        """Return when the record of a task outlives a power cut.

        Lets the task start first, for a moment: every fsync holds up those of containerd.
        """
        task_id = parse_task_arn(task_arn).task_id
        run = self.find(task_id)
        with suppress(TimeoutError):
            async with asyncio.timeout(SYNC_AFTER_S):
                while run is not None and not run.facts.status.is_after(TaskStatus.PENDING):
                    await run.moved.wait()
        await self._store.sync(task_id)

    async def evict(self, task_id: str, reason: str) -> None:
        """Kill a task because of an error of this machine, be it ending already."""
        entry = self._entries.get(task_id)
        if entry is None or entry.run is None:
            return
        entry.record.facts.is_hurried = True
        entry.run.hurry.set()
        await self._write(task_id, entry)
        await self.stop(task_id, reason, StopCode.TASK_FAILED_TO_START)

    async def stop(
        self, task_id: str, reason: str, code: StopCode = StopCode.USER_INITIATED
    ) -> None:
        """Ask a task to end; the first reason counts. Unknown or ending tasks are left alone."""
        entry = self._entries.get(task_id)
        if entry is None or entry.run is None or entry.run.stop.done():
            return
        entry.record.stop_reason = reason
        entry.record.facts.stop_code = code
        await self._write(task_id, entry)
        if not entry.run.stop.done():
            entry.run.stop.set_result(reason)

    async def drain(self, reason: str) -> list[str]:
        """End every task; return the ARNs of those that were there when all have ended."""
        runs = self.runs()
        for run in runs:
            await self.stop(run.plan.id, reason)
        for run in runs:
            await run.ended.wait()
        return [run.plan.arn for run in runs]

    def find(self, task_id: str) -> TaskRun | None:
        """Return the run of a task that is here, be it only for its last report."""
        entry = self._entries.get(task_id)
        return entry.run if entry else None

    def runs(self) -> list[TaskRun]:
        """Return the tasks that were planned."""
        return [entry.run for entry in self._entries.values() if entry.run is not None]

    def has_tasks(self) -> bool:
        """Whether there may be a task of which not everything was taken back."""
        return bool(self.unreadable) or any(not run.ended.is_set() for run in self.runs())

    def knows(self, task_id: str) -> bool:
        """Whether this agent answers for the task, be it unable to read its record."""
        return task_id in self._entries or task_id in self.unreadable

    def running_arns(self) -> dict[str, str]:
        """Return the cluster ARN of every task that is not asked to end, by task ARN."""
        return {
            entry.record.message.arn: entry.record.message.task_cluster_arn
            for entry in self._entries.values()
            if entry.run is not None
            and not entry.run.stop.done()
            and not entry.record.facts.status.is_after(TaskStatus.RUNNING)
        }

    async def note_acknowledged(self, change: StateChange) -> None:
        """The control plane has taken a change; after STOPPED nothing of the task is kept."""
        task_id = parse_task_arn(change.task_arn).task_id
        if change.status is TaskStatus.STOPPED and task_id in self._entries:
            await self._store.remove(task_id)
            del self._entries[task_id]
            self._over.append(task_id)

    def _plan(self, record: TaskRecord, *, is_new: bool = False) -> _Entry:
        try:
            plan = plan_task(record.message, self._site, record.metadata_key)
        except TaskError as error:
            record.facts = TaskFacts(
                status=TaskStatus.STOPPED,
                reason=error.reason,
                stop_code=StopCode.TASK_FAILED_TO_START,
            )
            return _Entry(record=record, run=None)
        stop: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        if record.stop_reason is not None:
            stop.set_result(record.stop_reason)
        run = TaskRun(plan=plan, stop=stop, facts=record.facts, is_new=is_new)
        if record.facts.is_hurried:
            run.hurry.set()
        return _Entry(record=record, run=run)

    async def _begin(self, entry: _Entry) -> None:
        if self._run is None:
            return  # `serve` begins with what is there
        if entry.run is not None:
            self._run(entry.run)
            return
        message, facts = entry.record.message, entry.record.facts
        task_id = parse_task_arn(message.arn).task_id
        log.warning("task %s is refused: %s", message.arn, facts.reason, extra={"task": task_id})
        self._send(
            StateChange(
                task_arn=message.arn,
                cluster_arn=message.task_cluster_arn,
                status=TaskStatus.STOPPED,
                reason=facts.reason,
                stop_code=facts.stop_code,
            )
        )

    async def _report(self, run: TaskRun) -> None:
        change = run.change()
        await self._save(run)
        self._send(change)
        if phases := run.phases.take():
            self._note_start(run, phases)

    async def _save(self, run: TaskRun) -> None:
        await self._write(run.plan.id, self._entries[run.plan.id])

    async def _write(self, task_id: str, entry: _Entry) -> None:
        """Write down how a task is; if that fails, the task goes on all the same.

        A successor would know less, and ask the machine and the control plane.
        """
        try:
            async with entry.writing:
                await self._store.write(task_id, entry.record)
        except OSError as error:
            log.error(
                "task %s: its record is old, for the new one can't be written: %s",
                task_id,
                error.strerror,
                extra={"task": task_id},
            )


def _refuse(task_id: str, entry: _Entry, message: TaskMessage) -> None:
    """Say what a message about a known task would change and can't."""
    refused = find_refused(entry.record.message, message) - entry.refused
    if refused:
        log.warning(
            "task %s: not changed, for it runs already: %s",
            task_id,
            ", ".join(sorted(refused)),
            extra={"task": task_id},
        )
    entry.refused |= refused


def _note_reboot(record: TaskRecord) -> None:
    """Say of a task, and of its containers whose exit nobody saw, that a reboot has ended them.

    A machine that goes down ends shims before the agent, which then knows of a lost shim only.
    """
    facts = record.facts
    if facts.status is TaskStatus.STOPPED:
        return
    unseen = [container for container in facts.containers.values() if container.may_run]
    if not facts.status.is_after(TaskStatus.RUNNING):
        facts.status = TaskStatus.STOPPING
        facts.reason, facts.stop_code = TASK_REBOOTED, StopCode.TASK_FAILED_TO_START
        if record.stop_reason is not None:
            facts.reason, facts.stop_code = record.stop_reason, StopCode.USER_INITIATED
    elif any(container.reason == facts.reason for container in unseen):
        facts.reason, facts.stop_code = TASK_REBOOTED, StopCode.TASK_FAILED_TO_START
    for container in unseen:
        container.reason = CONTAINER_REBOOTED
