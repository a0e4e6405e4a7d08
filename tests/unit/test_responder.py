import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fargate_agent.acs.responder import Responder
from fargate_agent.credentials.roles import Roles
from fargate_agent.task.status import StateChange, TaskStatus
from fargate_agent.task.store import TaskStore
from fargate_agent.task.supervisor import Supervisor
from fargate_agent.wire.messages import (
    AckRequest,
    HeartbeatAckRequest,
    HeartbeatMessage,
    IAMRoleCredentialsAckRequest,
    IAMRoleCredentialsMessage,
    PayloadMessage,
    TaskIdentifier,
    TaskManifestMessage,
    TaskStopVerificationAck,
    TaskStopVerificationMessage,
)
from tests.fakes import Diary, FakeSecurityGroups, FakeVpcServices, fake_drivers
from tests.fixtures.aws import role_json
from tests.messages import (
    CLUSTER_ARN,
    TASK_ARN,
    TASK_ID,
    container_json,
    eni_json,
    site,
    task_arn,
    task_json,
)

INSTANCE_ARN = "arn:aws:ecs:us-east-1:000000000000:container-instance/default/1"
OTHER_ID = "1" * 32


class Desk:
    """A responder in front of a supervisor with fakes."""

    def __init__(self, root: Path) -> None:
        self.changes: list[StateChange] = []
        self.supervisor = Supervisor(
            site=site(root),
            store=TaskStore(root / "records"),
            boot_id="boot",
            send=self.changes.append,
        )
        self.roles = Roles()
        self.groups = FakeSecurityGroups()
        self.vpc = FakeVpcServices(Diary())
        self.responder = Responder(
            self.supervisor, self.changes.append, self.roles, self.groups, self.vpc
        )


@asynccontextmanager
async def serving(root: Path) -> AsyncIterator[Desk]:
    desk = Desk(root)
    job = asyncio.create_task(desk.supervisor.serve(fake_drivers().all))
    await asyncio.sleep(0)
    try:
        yield desk
    finally:
        job.cancel()
        await asyncio.wait([job])


def payload(*tasks: dict[str, Any]) -> PayloadMessage:
    return PayloadMessage(
        message_id="m1",
        cluster_arn=CLUSTER_ARN,
        container_instance_arn=INSTANCE_ARN,
        generated_at=1,
        tasks=tasks,
    )


def manifest(*arns: str, timeline: int = 1) -> TaskManifestMessage:
    return TaskManifestMessage(
        message_id=f"manifest-{timeline}",
        cluster_arn=CLUSTER_ARN,
        container_instance_arn=INSTANCE_ARN,
        generated_at=1,
        timeline=timeline,
        tasks=tuple(identifier(arn) for arn in arns),
    )


def identifier(arn: str) -> TaskIdentifier:
    return TaskIdentifier(task_arn=arn, task_cluster_arn=CLUSTER_ARN, desired_status="RUNNING")


async def test_payload_is_acknowledged_when_its_tasks_are_taken(tmp_path: Path) -> None:
    async with serving(tmp_path) as desk:
        (ack,) = await desk.responder.answer(payload(task_json()))

        assert isinstance(ack, AckRequest)
        assert ack.message_id == "m1"
        assert desk.supervisor.knows(TASK_ID)


async def test_bad_task_is_reported_and_the_good_one_taken_but_nothing_acknowledged(
    tmp_path: Path,
) -> None:
    bad = task_json(arn=task_arn(OTHER_ID), containers="none")

    async with serving(tmp_path) as desk:
        replies = await desk.responder.answer(payload(bad, task_json()))

        assert replies == []
        assert desk.supervisor.knows(TASK_ID)
        (change,) = [c for c in desk.changes if c.task_arn == task_arn(OTHER_ID)]
        assert change.status is TaskStatus.STOPPED
        assert change.reason is not None
        assert change.reason.startswith("UnrecogniedTaskError: Error loading task - containers: ")
        assert change.stop_code == "TaskFailedToStart"


async def test_task_with_an_unknown_kind_of_interface_is_taken_and_ended(tmp_path: Path) -> None:
    eni = eni_json(interfaceAssociationProtocol="wire")
    async with serving(tmp_path) as desk:
        answers = await desk.responder.answer(payload(task_json(elasticNetworkInterfaces=[eni])))
        async with asyncio.timeout(5):
            while not desk.changes:
                await asyncio.sleep(0)

    assert [type(answer) for answer in answers] == [AckRequest]
    assert desk.changes[-1].status is TaskStatus.STOPPED
    assert "an interface of kind 'wire' is not supported here" in (desk.changes[-1].reason or "")


async def test_task_with_a_path_for_an_id_is_not_taken(tmp_path: Path) -> None:
    hostile = task_json(arn="arn:aws:ecs:us-east-1:000000000000:task/default/../../../etc")

    async with serving(tmp_path) as desk:
        replies = await desk.responder.answer(payload(hostile))

        assert replies == []
        assert not list(tmp_path.rglob("*etc*"))


async def test_heartbeat_is_acknowledged(tmp_path: Path) -> None:
    desk = Desk(tmp_path)

    (reply,) = await desk.responder.answer(HeartbeatMessage(message_id="h"))

    assert reply == HeartbeatAckRequest(message_id="h")


async def test_manifest_asks_about_tasks_it_lacks_and_stops_only_what_is_verified(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as desk:
        await desk.responder.answer(payload(task_json(), task_json(arn=task_arn(OTHER_ID))))
        _, question = await desk.responder.answer(manifest())
        assert isinstance(question, TaskStopVerificationMessage)
        assert {c.task_arn for c in question.stop_candidates} == {TASK_ARN, task_arn(OTHER_ID)}

        ack = TaskStopVerificationAck(
            message_id="manifest-1", stop_tasks=(identifier(task_arn(OTHER_ID)),)
        )
        await desk.responder.answer(ack)

        assert set(desk.supervisor.running_arns()) == {TASK_ARN}


async def test_verification_for_another_manifest_stops_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as desk:
        await desk.responder.answer(payload(task_json()))
        await desk.responder.answer(manifest())

        await desk.responder.answer(
            TaskStopVerificationAck(message_id="else", stop_tasks=(identifier(TASK_ARN),))
        )

        assert set(desk.supervisor.running_arns()) == {TASK_ARN}


async def test_manifest_that_is_not_newer_is_ignored(tmp_path: Path) -> None:
    async with serving(tmp_path) as desk:
        await desk.responder.answer(manifest(timeline=2))

        assert await desk.responder.answer(manifest(timeline=2)) == []


async def test_task_that_only_the_manifest_has_is_reported_stopped(tmp_path: Path) -> None:
    async with serving(tmp_path) as desk:
        (ack,) = await desk.responder.answer(manifest(TASK_ARN))

        assert isinstance(ack, AckRequest)
        (change,) = desk.changes
        assert change.status is TaskStatus.STOPPED
        assert change.reason == (
            "InternalError: the agent has no record of the task; its state was lost"
        )


def credentials(
    role: dict[str, str], arn: str = TASK_ARN, role_type: str = "TaskApplication"
) -> IAMRoleCredentialsMessage:
    return IAMRoleCredentialsMessage.model_validate(
        {"messageId": "c1", "taskArn": arn, "roleType": role_type, "roleCredentials": role}
    )


async def test_credentials_of_a_payload_are_kept_and_each_acknowledged(tmp_path: Path) -> None:
    own, execution = role_json(key="OWN"), role_json(key="EXECUTION")
    task = task_json(roleCredentials=own, executionRoleCredentials=execution)
    async with serving(tmp_path) as desk:
        ack, *acks = await desk.responder.answer(payload(task))
        run = desk.supervisor.find(TASK_ID)
        assert run is not None
        found = [desk.roles.find(run.plan, role) for role in run.plan.roles]

    assert isinstance(ack, AckRequest)
    assert [keys and keys.access_key for keys in found] == ["EXECUTION", "OWN"]
    assert acks == [
        IAMRoleCredentialsAckRequest(
            message_id="m1", credentials_id=role["credentialsId"], expiration=shorten(role)
        )
        for role in (execution, own)
    ]
    records = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert own["credentialsId"].encode() in records
    for role in (own, execution):
        assert role["secretAccessKey"].encode() not in records
        assert role["sessionToken"].encode() not in records


def shorten(role: dict[str, str]) -> str:
    """Write a moment as SDKs read it."""
    return role["expiration"].partition(".")[0] + "Z"


async def test_new_credentials_take_the_place_of_old_ones_and_are_acknowledged(
    tmp_path: Path,
) -> None:
    old = role_json(key="OLD")
    new = {**role_json(key="NEW"), "credentialsId": old["credentialsId"]}
    async with serving(tmp_path) as desk:
        await desk.responder.answer(payload(task_json(roleCredentials=old)))

        (ack,) = await desk.responder.answer(credentials(new))

        run = desk.supervisor.find(TASK_ID)
        assert run is not None
        assert run.plan.task_role is not None
        keys = desk.roles.find(run.plan, run.plan.task_role)
    assert keys is not None
    assert keys.access_key == "NEW"
    assert ack == IAMRoleCredentialsAckRequest(
        message_id="c1", credentials_id=old["credentialsId"], expiration=shorten(new)
    )


async def test_credentials_of_nobody_are_neither_kept_nor_acknowledged(tmp_path: Path) -> None:
    own = role_json(key=None)
    same = {"credentialsId": own["credentialsId"]}
    async with serving(tmp_path) as desk:
        await desk.responder.answer(payload(task_json(roleCredentials=own)))
        answers = [
            await desk.responder.answer(message)
            for message in (
                credentials({**role_json(), **same}, arn=task_arn(OTHER_ID)),
                credentials(role_json()),
                credentials({**role_json(), **same}, role_type="TaskExecution"),
                credentials({**role_json(key=None), **same}),
            )
        ]

    assert answers == [[], [], [], []]
    assert desk.roles._keys == {}


async def test_credentials_of_a_task_that_is_not_taken_are_not_kept(tmp_path: Path) -> None:
    refused = task_json(roleCredentials=role_json(), containers=[])
    async with serving(tmp_path) as desk:
        await desk.responder.answer(payload(refused))

    assert desk.roles._keys == {}


async def test_agent_knows_when_it_lacks_credentials_of_a_task(tmp_path: Path) -> None:
    own = role_json(key=None)
    lasting = {**role_json(), "credentialsId": own["credentialsId"]}
    ended = {**role_json(lasts_s=-1), "credentialsId": own["credentialsId"]}
    said = []
    async with serving(tmp_path) as desk:
        said.append(desk.responder.lacks_credentials())
        await desk.responder.answer(payload(task_json(roleCredentials=own)))
        for role in (None, lasting, ended):
            if role is not None:
                await desk.responder.answer(credentials(role))
            said.append(desk.responder.lacks_credentials())

    assert said == [False, True, False, True]


async def test_task_with_half_a_character_is_refused_and_the_next_one_is_taken(
    tmp_path: Path,
) -> None:
    odd = task_json(container_json(environment={"A": "\ud800"}))
    async with serving(tmp_path) as desk:
        await desk.responder.answer(payload(odd, task_json(arn=task_arn(OTHER_ID))))

        assert [change.task_arn for change in desk.changes][:1] == [TASK_ARN]
        assert "UnrecogniedTaskError" in (desk.changes[0].reason or "")
        assert desk.supervisor.knows(OTHER_ID)
