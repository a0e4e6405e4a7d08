"""One agent's websocket: tasks go out until they are acknowledged.

What has to be sent follows from the database alone, so nothing is lost with a connection or with
this process.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from operator import itemgetter
from typing import Final

from aiohttp import WSMsgType
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from fargate_agent.controlplane.agents.group_delivery import GroupDelivery
from fargate_agent.controlplane.agents.name_delivery import NameDelivery
from fargate_agent.controlplane.agents.opened import Opened
from fargate_agent.controlplane.agents.role_delivery import RoleDelivery
from fargate_agent.controlplane.agents.sent import (
    TAKEN,
    Sent,
    is_unsettled,
    key_of,
    note_sent,
    select_live,
    select_unsettled,
    sent_key,
)
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.names import new_uuid
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.roles.kept import TaskRoles
from fargate_agent.controlplane.state.model import ContainerInstance, Eni, Task
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.tasks import lifecycle
from fargate_agent.controlplane.tasks.changes import change_task, changing
from fargate_agent.controlplane.telemetry.intake import MetricsIntake
from fargate_agent.controlplane.validate import Json
from fargate_agent.parallel import first_of
from fargate_agent.wire.arns import parse_task_arn
from fargate_agent.wire.messages import (
    AckRequest,
    DesiredStatus,
    ErrorMessage,
    Frame,
    HeartbeatMessage,
    IAMRoleCredentialsAckRequest,
    NackRequest,
    PayloadMessage,
    TaskIdentifier,
    TaskManifestMessage,
    TaskStopVerificationAck,
    TaskStopVerificationMessage,
    parse_frame,
    render_frame,
)
from fargate_agent.wire.telemetry import PublishMetricsRequest

log = logging.getLogger(__name__)

SEND_TIMEOUT_S: Final = 30
"""How long an agent may leave a frame unread before its connection is given up."""
MAX_SENT: Final = 50
"""Tasks that are handed over at once."""


class AgentSession:
    """One connection."""

    def __init__(
        self,
        opened: Opened,
        plane: Plane,
        roles: TaskRoles,
        connection: str,
        wake: asyncio.Event,
    ) -> None:
        instance = opened.instance
        self._socket = opened.socket
        self._lacks_credentials = opened.lacks_credentials
        self._instance_id = instance.id
        self._connection = connection
        self._cluster_arn = plane.arns.cluster(instance.cluster)
        self._instance_arn = plane.arns.container_instance(instance.cluster, instance.id)
        self._plane = plane
        self._store = plane.store
        self._arns = plane.arns
        self._settings = plane.settings
        self._unacked: dict[str, Sent] = {}
        """By task and what is wanted of it."""
        self._stops_acked: set[str] = set()
        """Tasks whose end this agent, on this connection, has taken over."""
        self._acks: set[asyncio.Task[None]] = set()
        """That are being written down."""
        self._late: set[asyncio.Task[None]] = set()
        """Tasks that go out when their credentials are there."""
        self._metrics = MetricsIntake(plane, instance.id, self._send)
        self._wake = wake
        self._check = opened.check
        self.over = asyncio.Event()
        told = plane, instance.id, (self._cluster_arn, self._instance_arn), self._send
        self._groups, self._names = GroupDelivery(*told), NameDelivery(*told)
        self._roles = RoleDelivery(
            plane, roles, send=self._send, wake=wake.set, give_up=self.over.set
        )

    async def run(self) -> None:
        """Return when the agent has hung up or may say no more, or another connection is there."""
        try:
            await self._send_manifest()
            await first_of(
                self._read(),
                self._deliver(),
                self._groups.serve(),
                self._names.serve(),
                self._beat(),
                self._wait_over(),
            )
        finally:
            for late in self._late:
                late.cancel()
            await self._roles.close()

    def forget(self, task_ids: Collection[str]) -> None:
        """Keep no credentials of these tasks."""
        self._roles.forget(task_ids)

    async def check_key(self) -> None:
        """Let the connection be over if the agent's key isn't good for it any more."""
        try:
            await self._check()
        except ApiError as error:
            log.warning("agent %s: cut off: %s", self._instance_id, error)
            self.over.set()

    async def _wait_over(self) -> None:
        await self.over.wait()

    async def _send(self, frame: Frame) -> None:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await self._socket.send_str(render_frame(frame))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._settings.heartbeat_s)
            await self._send(HeartbeatMessage(message_id=new_uuid()))

    async def _send_manifest(self) -> None:
        """Tell the agent what it answers for: whatever it has acknowledged, and nothing else.

        It reports as lost what stands there and it doesn't have.
        """
        timeline, tasks = await self._store.insist(self._take_manifest)
        await self._send(
            TaskManifestMessage(
                message_id=new_uuid(),
                cluster_arn=self._cluster_arn,
                container_instance_arn=self._instance_arn,
                generated_at=time.time_ns() // 1_000_000,
                timeline=timeline,
                tasks=tuple(self._identify(task) for task in tasks),
            )
        )
        for task in tasks:
            self._roles.go_on(task, anew=self._lacks_credentials)

    async def _take_manifest(self) -> tuple[int, Sequence[Task]]:
        """Return the next moment of the timeline, and what the agent answers for then."""
        async with self._store.write() as session:
            instance = await session.get_one(ContainerInstance, self._instance_id)
            instance.timeline = max(instance.timeline + 1, time.time_ns() // 1_000_000)
            live = select_live(self._instance_id).where(Task.delivery.in_(TAKEN))
            tasks = (await session.scalars(live)).all()
        return instance.timeline, tasks

    def _identify(self, task: Task) -> TaskIdentifier:
        desired: DesiredStatus = "STOPPED" if task.desired_status == "STOPPED" else "RUNNING"
        return TaskIdentifier(
            task_arn=self._arns.task(task.cluster, task.id),
            task_cluster_arn=self._arns.cluster(task.cluster),
            desired_status=desired,
        )

    async def _deliver(self) -> None:
        """Send what is due, again and again; what to end goes before what to start.

        Returns when the instance is retired, or has another connection, or its key isn't good.
        """
        while True:
            self._wake.clear()
            await self.check_key()
            due = None if self.over.is_set() else await self._take_due()
            if due is None:
                return
            for task, is_new in sorted(due, key=lambda one: one[0].desired_status, reverse=True):
                if task.desired_status == "STOPPED" or self._roles.is_ready(task.id):
                    await self._send_task(task, is_new=is_new)
                else:
                    self._send_later(task, is_new=is_new)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.resend_s):
                    await self._wake.wait()

    async def _take_due(self) -> list[tuple[Task, bool]] | None:
        """Return what is to be sent, and of each task whether no agent has heard of it.

        None: the connection is the instance's no longer.
        """
        async with self._store.read() as session:
            instance = await session.get_one(ContainerInstance, self._instance_id)
            ids = await self._find_due(session)
        if instance.connection != self._connection or instance.status == "INACTIVE":
            return None
        if not ids:
            return []
        if len(ids) > MAX_SENT:
            self._wake.set()  # for the rest
        async with self._store.write() as session:
            instance = await session.get_one(ContainerInstance, self._instance_id)
            # by id alone: with more to go by, PostgreSQL may read all that the instance ever had
            chosen = select(Task).where(Task.id.in_(ids[:MAX_SENT])).order_by(Task.created_at)
            tasks = (task for task in await session.scalars(chosen) if is_unsettled(task))
            due = [
                (task, task.delivery == "WAITING")
                for task in tasks
                if self._is_due(task.id, task.desired_status, task.eni.security_groups)
            ]
            for task, _ in due:
                if task.desired_status == "RUNNING":
                    self._roles.begin(task)  # while this is written
                with changing(self._plane, session, task, instance):
                    lifecycle.note_sent(task)
        return due

    async def _find_due(self, session: Session) -> list[str]:
        """Return ids, those of tasks that are to end first.

        This is asked at every change, so the tasks themselves aren't read.
        """
        columns = (Task.id, Task.desired_status, Eni.security_groups)
        unsettled = select_unsettled(self._instance_id).with_only_columns(*columns)
        due = [row for row in await session.execute(unsettled) if self._is_due(*row)]
        due.sort(key=itemgetter(1), reverse=True)
        return [task_id for task_id, *_ in due]

    def _is_due(self, task_id: str, desired_status: str, groups: Sequence[str]) -> bool:
        sent = self._unacked.get(sent_key(task_id, desired_status))
        if sent is not None:
            is_old = time.monotonic() - sent.at >= self._settings.resend_s
            return is_old or sent.groups != tuple(groups)
        return task_id not in self._stops_acked

    def _send_later(self, task: Task, *, is_new: bool) -> None:
        """Send a task when its credentials are there, and hold up no other for it."""

        async def send() -> None:
            await self._roles.wait_ready(task.id)
            is_ended = sent_key(task.id, "STOPPED") in self._unacked
            if is_ended or task.id in self._stops_acked or self._roles.is_refused(task.id):
                return  # and mustn't begin after its end
            try:
                await self._send_task(task, is_new=is_new)
            except (ConnectionError, TimeoutError):
                self.over.set()

        self._unacked[sent_key(task.id, task.desired_status)] = note_sent(task)
        late = asyncio.create_task(send())
        self._late.add(late)
        late.add_done_callback(self._late.discard)

    async def _send_task(self, task: Task, *, is_new: bool) -> None:
        self._unacked[sent_key(task.id, task.desired_status)] = note_sent(task)
        if task.desired_status != "RUNNING":
            await self._send_payload(task, task.message)
            return
        message = self._roles.complete(task, is_new=is_new)
        async with self._groups.turn:
            groups = [
                group.model_dump(mode="json", by_alias=True)
                for group in await self._groups.render(task)
            ]
            await self._send_payload(task, {**message, "securityGroups": groups})

    async def _send_payload(self, task: Task, message: Json) -> None:
        await self._send(
            PayloadMessage(
                message_id=note_sent(task).message_id,
                cluster_arn=self._cluster_arn,
                container_instance_arn=self._instance_arn,
                generated_at=time.time_ns() // 1_000_000,
                tasks=({**message, "desiredStatus": task.desired_status},),
            )
        )

    async def _read(self) -> None:
        """Handle frames until the connection ends, and what it has acknowledged is written."""
        try:
            async for message in self._socket:
                if message.type is not WSMsgType.TEXT:
                    continue
                try:
                    frame = parse_frame(message.data)
                except (ValueError, RecursionError) as error:
                    log.warning("agent %s: unreadable frame: %s", self._instance_id, error)
                    await self._send(ErrorMessage(message="The frame could not be read."))
                    continue
                await self._handle(frame)
        finally:
            if self._acks:
                await asyncio.wait(self._acks)
            await self._metrics.finish()

    async def _handle(self, frame: Frame | None) -> None:
        match frame:
            case AckRequest():
                self._groups.note_ack(frame.message_id)
                self._names.note_ack(frame.message_id)
                self._begin_ack(frame.message_id)
            case IAMRoleCredentialsAckRequest():
                self._roles.note_ack(frame)
            case TaskStopVerificationMessage():
                await self._verify_stops(frame)
            case PublishMetricsRequest():
                self._metrics.take(frame)
            case NackRequest():
                log.warning(
                    "agent %s: refuses %s: %s", self._instance_id, frame.message_id, frame.reason
                )
            case _:
                log.debug("agent %s: %s", self._instance_id, type(frame).__name__)

    def _begin_ack(self, acked: str) -> None:
        """Don't wait: acks that come together are one transaction."""
        sent = self._unacked.get(key_of(acked))
        if sent is None or sent.message_id != acked or sent.is_acked:
            return
        sent.is_acked = True
        if sent.desired_status == "RUNNING":
            self._roles.note_taken(sent.task_id)
            self._groups.note_taken(sent.task_id)
        ack = asyncio.create_task(self._note_ack(sent))
        self._acks.add(ack)
        ack.add_done_callback(self._acks.discard)

    async def _note_ack(self, sent: Sent) -> None:
        """Write down that the agent has taken a message; if that fails it is sent again."""

        def change(task: Task, _: ContainerInstance) -> None:
            if sent.desired_status == "STOPPED":
                lifecycle.note_stop_acked(task, round(time.time(), 3))
            elif sent.is_of(task):  # else it goes out again, as it is now
                lifecycle.note_start_acked(task)

        try:
            await change_task(self._plane, sent.task_id, change)
            if sent.desired_status == "STOPPED":
                self._stops_acked.add(sent.task_id)
            else:
                self._plane.figures.deliveries.observe(time.monotonic() - sent.at)
        except ApiError:
            log.debug("task %s: forgotten before it was acknowledged", sent.task_id)
        except SQLAlchemyError as error:
            sent.is_acked = False
            log.error("task %s: acknowledged, which was not written: %s", sent.task_id, error)
            return
        except Exception:
            sent.is_acked = False
            log.exception("task %s: acknowledged, which was not written", sent.task_id)
            return
        self._forget_sent(sent)
        self._wake.set()  # the task may have changed since

    def _forget_sent(self, sent: Sent) -> None:
        key = key_of(sent.message_id)
        if self._unacked.get(key) is sent:  # else it was sent again meanwhile
            del self._unacked[key]

    async def _verify_stops(self, question: TaskStopVerificationMessage) -> None:
        async with self._store.read() as session:
            live = {
                self._arns.task(task.cluster, task.id)
                for task in await session.scalars(select_live(self._instance_id))
                if task.desired_status == "RUNNING"
            }
        stop = tuple(
            candidate for candidate in question.stop_candidates if candidate.task_arn not in live
        )
        for candidate in stop:
            log.info("task %s: not wanted here", parse_task_arn(candidate.task_arn).task_id)
        await self._send(
            TaskStopVerificationAck(
                message_id=question.message_id,
                generated_at=time.time_ns() // 1_000_000,
                stop_tasks=stop,
            )
        )
