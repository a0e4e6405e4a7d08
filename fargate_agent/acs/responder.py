"""What the agent does about each message of the control plane.

Source of the rules: amazon-ecs-agent, ecs-agent/acs/session, one file per responder.
"""

import json
import logging
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from fargate_agent.credentials.answers import render_expiration
from fargate_agent.credentials.roles import Roles
from fargate_agent.drivers import SecurityGroups, VpcServices
from fargate_agent.errors import TaskError
from fargate_agent.plan import read_keys
from fargate_agent.plan.names import plan_zones
from fargate_agent.plan.security_groups import plan_groups
from fargate_agent.task.status import StateChange, StopCode, TaskStatus
from fargate_agent.task.supervisor import Supervisor
from fargate_agent.wire.arns import parse_task_arn
from fargate_agent.wire.faults import render_faults
from fargate_agent.wire.messages import (
    AckRequest,
    ErrorMessage,
    Frame,
    HeartbeatAckRequest,
    HeartbeatMessage,
    IAMRoleCredentialsAckRequest,
    IAMRoleCredentialsMessage,
    PayloadMessage,
    RoleCredentialsMessage,
    SecurityGroupsMessage,
    TaskIdentifier,
    TaskManifestMessage,
    TaskMessage,
    TaskStopVerificationAck,
    TaskStopVerificationMessage,
    VpcNamesMessage,
)
from fargate_agent.wire.security_groups import SecurityGroupMessage
from fargate_agent.wire.telemetry import AckPublishMetric

log = logging.getLogger(__name__)

STATE_LOST = "InternalError: the agent has no record of the task; its state was lost"
NOT_IN_MANIFEST = "the control plane no longer has the task"


class Responder:
    """Answers messages. It outlives connections: what a manifest asked is remembered."""

    def __init__(
        self,
        supervisor: Supervisor,
        send: Callable[[StateChange], None],
        roles: Roles,
        groups: SecurityGroups,
        vpc: VpcServices,
    ) -> None:
        """`send` queues a change for the control plane; `roles` keeps credentials.

        `groups` enforces security groups; `vpc` answers about names.
        """
        self._supervisor = supervisor
        self._send = send
        self._roles = roles
        self._groups = groups
        self._vpc = vpc
        self._timeline = 0
        self._manifest_id: str | None = None

    async def answer(self, frame: Frame) -> list[Frame]:
        """Do what a message asks and return the replies, in order."""
        match frame:
            case PayloadMessage():
                return await self._take_payload(frame)
            case SecurityGroupsMessage():
                return await self._take_groups(frame)
            case VpcNamesMessage():
                return await self._take_names(frame)
            case TaskStopVerificationAck():
                await self._stop_verified(frame)
                return []
            case _:
                return self._answer_at_once(frame)

    def _answer_at_once(self, frame: Frame) -> list[Frame]:
        match frame:
            case TaskManifestMessage():
                return self._compare_manifest(frame)
            case IAMRoleCredentialsMessage():
                return self._take_credentials(frame)
            case _:
                return _answer_simply(frame)

    def lacks_credentials(self) -> bool:
        """Whether a task is here whose roles' credentials aren't, be it that they have expired.

        The control plane then sends those of all tasks again.
        """
        return any(
            not run.ended.is_set()
            and any(self._roles.find(run.plan, role) is None for role in run.plan.roles)
            for run in self._supervisor.runs()
        )

    async def _take_payload(self, payload: PayloadMessage) -> list[Frame]:
        """Apply every task; acknowledge only if each could be read, so that it is sent again."""
        readable: list[TaskMessage] = []
        for raw in payload.tasks:
            try:
                # As JSON, for only that refuses half a character, which no record can have.
                readable.append(TaskMessage.model_validate_json(json.dumps(raw)))
            except ValidationError as error:
                self._refuse(raw, error)
        taken = True
        for task in sorted(readable, key=lambda task: task.desired_status != "STOPPED"):
            taken = await self._apply(task) and taken
        if not taken or len(readable) < len(payload.tasks):
            return []
        for task in readable:
            await self._supervisor.sync(task.arn)
        acks = [
            _ack_credentials(payload, role) for task in readable for role in _find_credentials(task)
        ]
        return [_ack(payload), *acks]

    async def _apply(self, task: TaskMessage) -> bool:
        """Return whether the agent answers for the task from now on.

        Credentials and security groups are there before the task begins.
        """
        task_id = parse_task_arn(task.arn).task_id
        if not await self._learn(task.security_groups):
            return False
        for role in _find_credentials(task):
            self._deliver(task_id, role)
        try:
            await self._supervisor.apply(task)
        except OSError as error:
            log.error(
                "a task is not taken, for its record can't be written: %s: %s", task.arn, error
            )
            self._roles.forget_id(task_id)
            return False
        except TaskError as error:
            log.error("task %s is not changed: %s", task.arn, error, extra={"task": task_id})
            return False
        run = self._supervisor.find(task_id)
        if run is None or run.ended.is_set():
            self._roles.forget_id(task_id)
        return True

    async def _take_groups(self, message: SecurityGroupsMessage) -> list[Frame]:
        """Have security groups enforced; acknowledge it when they are."""
        taken = await self._learn(message.groups, is_whole=message.is_whole)
        return [_ack(message)] if taken else []

    async def _take_names(self, message: VpcNamesMessage) -> list[Frame]:
        """Answer with these names from now on; acknowledge it."""
        try:
            await self._vpc.learn(plan_zones(message.vpcs))
        except OSError as error:
            log.error("private zones are known, but can't be written down: %s", error.strerror)
        return [_ack(message)]

    async def _learn(
        self, groups: tuple[SecurityGroupMessage, ...], *, is_whole: bool = False
    ) -> bool:
        """Return whether security groups are enforced as they are given."""
        try:
            await self._groups.learn(plan_groups(groups), is_whole=is_whole)
        except TaskError as error:
            log.error("security groups are not changed: %s", error)
            return False
        except OSError as error:
            log.error("security groups hold, but can't be written down: %s", error.strerror)
        return True

    def _take_credentials(self, message: IAMRoleCredentialsMessage) -> list[Frame]:
        """Keep new credentials; acknowledge them only if there is somebody who may use them.

        Source: amazon-ecs-agent, ecs-agent/acs/session/refresh_credentials_responder.go.
        """
        task_id, role = parse_task_arn(message.task_arn).task_id, message.role_credentials
        run = self._supervisor.find(task_id)
        if run is None:
            log.warning("credentials of a task that isn't here are ignored: %s", message.task_arn)
            return []
        plan = run.plan
        expected = plan.task_role if message.role_type == "TaskApplication" else plan.execution_role
        if expected is None or expected.credentials_id != role.credentials_id:
            log.error("credentials are not those of a role of the task: %s", role.role_arn,
                      extra={"task": task_id})  # fmt: skip
            return []
        if not run.ended.is_set() and not self._deliver(task_id, role):
            log.error("credentials of role %s aren't whole", role.role_arn, extra={"task": task_id})
            return []
        return [_ack_credentials(message, role)]

    def _deliver(self, task_id: str, role: RoleCredentialsMessage) -> bool:
        """Keep the credentials that came with a role, if they did; return whether they did."""
        keys = read_keys(role)
        if keys is not None:
            self._roles.deliver(task_id, role.credentials_id, keys)
        return keys is not None

    def _refuse(self, raw: dict[str, Any], error: ValidationError) -> None:
        faults = render_faults(error)
        arn = str(raw.get("arn"))
        log.error("a task message can't be read: %s: %s", arn, faults)
        try:
            known = self._supervisor.knows(parse_task_arn(arn).task_id)
        except ValueError:
            return  # nobody to report about
        if known:
            return
        # Source: amazon-ecs-agent, agent/acs/session/payload_responder.go; so misspelt there.
        reason = f"UnrecogniedTaskError: Error loading task - {faults}"
        self._report_stopped(arn, str(raw.get("taskClusterArn")), reason)

    def _compare_manifest(self, manifest: TaskManifestMessage) -> list[Frame]:
        """Ask about tasks that only the agent has; report those that only the manifest has."""
        if manifest.timeline <= self._timeline:
            return []
        self._timeline, self._manifest_id = manifest.timeline, manifest.message_id
        wanted = {task.task_arn for task in manifest.tasks if task.desired_status == "RUNNING"}
        for task in manifest.tasks:
            if not self._supervisor.knows(parse_task_arn(task.task_arn).task_id):
                self._report_stopped(task.task_arn, task.task_cluster_arn, STATE_LOST)
        candidates = tuple(
            TaskIdentifier(task_arn=arn, task_cluster_arn=cluster_arn, desired_status="STOPPED")
            for arn, cluster_arn in self._supervisor.running_arns().items()
            if arn not in wanted
        )
        replies: list[Frame] = [_ack(manifest)]
        if candidates:
            replies.append(
                TaskStopVerificationMessage(
                    message_id=manifest.message_id, stop_candidates=candidates
                )
            )
        return replies

    async def _stop_verified(self, ack: TaskStopVerificationAck) -> None:
        if ack.message_id != self._manifest_id:
            log.warning("a stop verification for another manifest is ignored")
            return
        self._manifest_id = None
        for task in ack.stop_tasks:
            await self._supervisor.stop(parse_task_arn(task.task_arn).task_id, NOT_IN_MANIFEST)

    def _report_stopped(self, task_arn: str, cluster_arn: str, reason: str) -> None:
        self._send(
            StateChange(
                task_arn=task_arn,
                cluster_arn=cluster_arn,
                status=TaskStatus.STOPPED,
                reason=reason,
                stop_code=StopCode.TASK_FAILED_TO_START,
            )
        )


def _answer_simply(frame: Frame) -> list[Frame]:
    """Answer a message that asks for nothing to be done."""
    match frame:
        case HeartbeatMessage():
            return [HeartbeatAckRequest(message_id=frame.message_id)]
        case AckPublishMetric():
            log.debug("telemetry is taken: %s", frame.message)
        case ErrorMessage():
            log.error("the control plane says: %s", frame.message)
        case _:
            log.info("a %s needs no answer", type(frame).__name__)
    return []


def _ack(
    frame: PayloadMessage | SecurityGroupsMessage | VpcNamesMessage | TaskManifestMessage,
) -> AckRequest:
    return AckRequest(
        message_id=frame.message_id,
        cluster=frame.cluster_arn,
        container_instance=frame.container_instance_arn,
    )


def _find_credentials(task: TaskMessage) -> list[RoleCredentialsMessage]:
    """Return the roles of a message whose credentials came with it."""
    roles = (task.execution_role_credentials, task.role_credentials)
    return [role for role in roles if role is not None and read_keys(role) is not None]


def _ack_credentials(
    frame: PayloadMessage | IAMRoleCredentialsMessage, role: RoleCredentialsMessage
) -> IAMRoleCredentialsAckRequest:
    return IAMRoleCredentialsAckRequest(
        message_id=frame.message_id,
        credentials_id=role.credentials_id,
        expiration="" if role.expiration is None else render_expiration(role.expiration),
    )
