"""Credentials of roles are minted once, and again when they are due."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from fargate_agent.aws.errors import RoleError
from fargate_agent.controlplane.roles.kept import KeptRole, TaskRoles
from fargate_agent.controlplane.roles.minting import Minted, make_up_keys
from fargate_agent.parallel import together

START = datetime(2026, 1, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)
ROLE = "arn:aws:iam::123456789012:role/app"


class Minter:
    """Makes keys for an hour, by a clock that tests move."""

    def __init__(self) -> None:
        self.now = START
        self.tasks: list[str] = []
        self.go = asyncio.Event()
        self.go.set()
        self.most_at_once = self.under_way = 0
        self.failure: RoleError | None = None

    @property
    def calls(self) -> int:
        return len(self.tasks)

    async def mint(self, role_arn: str, task_id: str) -> Minted:
        self.tasks.append(task_id)
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        await asyncio.sleep(0)
        await self.go.wait()
        self.under_way -= 1
        if self.failure is not None:
            raise self.failure
        keys = make_up_keys(self.now + HOUR)
        return Minted(keys=keys, refresh_at=keys.expires_at - timedelta(minutes=20))


@pytest.fixture
def minter() -> Minter:
    return Minter()


@pytest.fixture
def roles(minter: Minter) -> TaskRoles:
    return TaskRoles(minter, lambda: minter.now)


def find(roles: TaskRoles, number: int = 1) -> KeptRole:
    return roles.find(f"id-{number}", f"task-{number}", ROLE)


async def test_many_who_ask_at_once_share_one_call(roles: TaskRoles, minter: Minter) -> None:
    got: list[Minted] = []

    async def ask() -> None:
        got.append(await roles.refresh(find(roles)))

    await together(ask() for _ in range(50))

    assert (minter.calls, len(got)) == (1, 50)
    assert len({one.keys.access_key for one in got}) == 1


async def test_many_roles_are_not_asked_for_all_at_once(roles: TaskRoles, minter: Minter) -> None:
    async def ask(number: int) -> None:
        await roles.refresh(find(roles, number))

    await together(ask(number) for number in range(100))

    assert (minter.calls, minter.most_at_once) == (100, 8)


async def test_new_ones_are_minted_when_they_are_due(roles: TaskRoles, minter: Minter) -> None:
    role = find(roles)
    first = await roles.refresh(role)
    role.taken = first.keys

    minter.now += timedelta(minutes=39)
    same = await roles.refresh(role)
    minter.now += timedelta(minutes=1)
    second = await roles.refresh(role)

    assert first is same
    assert second.keys.expires_at == START + timedelta(minutes=100)
    assert not role.has_taken
    assert role.next_at == second.refresh_at


async def test_old_ones_do_until_their_end_and_a_failure_stands_for_a_while(
    roles: TaskRoles, minter: Minter
) -> None:
    role = find(roles)
    first = await roles.refresh(role)
    minter.failure = RoleError("STS is away", may_pass=True)

    minter.now += timedelta(minutes=45)
    for _ in range(10):
        assert await roles.refresh(role) is first
    assert minter.calls == 2
    assert minter.now < role.next_at <= minter.now + timedelta(seconds=1)
    minter.now += timedelta(minutes=15)
    with pytest.raises(RoleError, match="STS is away") as caught:
        await roles.refresh(role)
    pause = role.next_at - minter.now
    minter.failure = None
    minter.now = role.next_at

    assert caught.value.may_pass
    assert pause >= timedelta(seconds=1)  # longer than after the first one
    assert (await roles.refresh(role)).keys.expires_at == minter.now + HOUR


async def test_pauses_between_tries_have_an_end(roles: TaskRoles, minter: Minter) -> None:
    role = find(roles)
    minter.failure = RoleError("STS is away", may_pass=True)

    pause = HOUR
    for _ in range(20):
        with pytest.raises(RoleError):
            await roles.refresh(role)
        pause = role.next_at - minter.now
        minter.now = role.next_at

    assert pause <= timedelta(seconds=72)


async def test_nothing_is_kept_of_a_task_that_is_forgotten(roles: TaskRoles) -> None:
    for number in (1, 2):
        await roles.refresh(find(roles, number))

    roles.forget({"task-1"})

    assert (roles.has("id-1"), roles.has("id-2")) == (False, True)
    assert roles.task_ids == {"task-2"}
    assert find(roles).minted is None


async def test_secrets_are_not_shown(roles: TaskRoles) -> None:
    role = find(roles)
    minted = await roles.refresh(role)
    role.taken = minted.keys

    assert minted.keys.secret_key not in repr(role)
    assert str(minted.keys.token) not in repr(role)


async def test_task_that_is_to_start_does_not_wait_for_those_that_have_started(
    roles: TaskRoles, minter: Minter
) -> None:
    minter.go.clear()
    async with asyncio.TaskGroup() as jobs:
        for number in range(2, 50):
            jobs.create_task(roles.refresh(find(roles, number)))
        while minter.under_way < 8:
            await asyncio.sleep(0)
        first = jobs.create_task(roles.refresh(find(roles), is_first=True))
        while "task-1" not in minter.tasks:
            assert not first.done()
            await asyncio.sleep(0)
        minter.go.set()

    assert minter.tasks.index("task-1") == 8
