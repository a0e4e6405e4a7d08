"""What a task is given by reference is fetched once, whoever asks, and not kept."""

import asyncio
import gc
import weakref
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from fargate_agent.credentials.roles import Roles
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import ContainerPlan, TaskPlan, plan_task
from fargate_agent.secrets.store import TaskSecrets
from tests.messages import container_json, site, task_arn, task_message

FILE = "arn:aws:s3:::b/1.env"
SITE = site(Path("/nowhere"))


class NoRoles:
    def forget(self, task: TaskPlan) -> None:
        return


@dataclass
class Source:
    """Gives values when it may, and remembers what it was asked for."""

    made: set[str] = field(default_factory=set)
    asked: list[set[str]] = field(default_factory=list)
    asked_files: list[set[str]] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    fails: bool = False
    cancelled: int = 0

    async def fetch(self, task: TaskPlan, references: Collection[str]) -> Mapping[str, str]:
        self.asked.append(set(references))
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.fails:
            raise ResourceInitializationError("no")
        return {one: f"value of {one}" for one in references}

    async def fetch_files(
        self, task: TaskPlan, arns: Collection[str]
    ) -> Mapping[str, Mapping[str, str]]:
        self.asked_files.append(set(arns))
        return {arn: {"FROM_FILE": arn} for arn in arns}

    async def exists(self, container: ContainerPlan) -> bool:
        return container.name in self.made

    def store(self) -> TaskSecrets:
        return TaskSecrets(self.fetch, cast(Roles, NoRoles()), self.exists, self.fetch_files)


def secret(name: str, value_from: str) -> dict[str, str]:
    return {"name": name, "valueFrom": value_from}


def plan(*containers: dict[str, Any]) -> TaskPlan:
    return plan_task(task_message(*containers), site(Path("/nowhere")))


TWO = (
    container_json("a", secrets=[secret("X", "/x"), secret("Y", "/y")]),
    container_json("b", secrets=[secret("X", "/x")], environmentFiles=[{"value": FILE}]),
    container_json("plain"),
)


async def test_values_of_all_containers_are_fetched_at_once_and_once() -> None:
    source, task = Source(), plan(*TWO)
    source.go.set()
    async with source.store() as store:
        await store.ensure(task)
        await store.settled(task)
        a, b, plain = [await store.complete(task, one) for one in task.containers]

    assert source.asked == [{"/x", "/y"}]
    assert source.asked_files == [{FILE}]
    assert (a.environment["X"], a.environment["Y"]) == ("value of /x", "value of /y")
    assert (b.environment["X"], b.environment["FROM_FILE"]) == ("value of /x", FILE)
    assert plain is task.containers[2]
    assert "value of" not in str(task)


async def test_start_of_a_task_does_not_wait_for_values_of_containers() -> None:
    source, task = Source(), plan(*TWO)
    async with source.store() as store:
        async with asyncio.timeout(5):
            await store.ensure(task)
        waiting = asyncio.create_task(store.complete(task, task.containers[0]))
        await asyncio.sleep(0)
        assert not waiting.done()
        source.go.set()
        assert (await waiting).environment["X"] == "value of /x"


async def test_only_what_containers_that_are_to_be_made_refer_to_is_fetched() -> None:
    source, task = Source(made={"a"}), plan(*TWO)
    source.go.set()
    async with source.store() as store:
        await store.ensure(task)
        await store.complete(task, task.containers[1])

    assert source.asked == [{"/x"}]


async def test_nothing_is_fetched_for_a_task_whose_containers_are_there() -> None:
    source, task = Source(made={"a", "b", "plain"}), plan(*TWO)
    async with source.store() as store:
        await store.ensure(task)
        await store.settled(task)

    assert source.asked == []


async def test_values_are_not_kept_once_every_container_has_them() -> None:
    source, task = Source(), plan(*TWO)
    source.go.set()
    async with source.store() as store:
        await store.ensure(task)
        for container in task.containers:
            await store.complete(task, container)
        assert store._fetched == {}
        again = await store.complete(task, task.containers[0])

    assert again.environment["Y"] == "value of /y"
    assert source.asked == [{"/x", "/y"}, {"/x", "/y"}]


async def test_failure_reaches_each_who_waits() -> None:
    source, task = Source(fails=True), plan(*TWO)
    source.go.set()
    async with source.store() as store:
        await store.ensure(task)
        errors = []
        for container in task.containers[:2]:
            with pytest.raises(ResourceInitializationError, match="no") as error:
                await store.complete(task, container)
            errors.append(error.value)
        with pytest.raises(ResourceInitializationError, match="no"):
            await store.settled(task)

    assert errors[0] is not errors[1]
    assert len(source.asked) == 1


@pytest.mark.parametrize("how", ["release", "close"])
async def test_end_of_a_task_or_of_the_agent_ends_what_is_being_fetched(how: str) -> None:
    source, task = Source(), plan(*TWO)
    store = source.store()
    async with store:
        await store.ensure(task)
        await asyncio.sleep(0)
        if how == "release":
            await store.release(task)
            assert source.cancelled == 1

    assert source.cancelled == 1
    assert source.asked_files == [{FILE}]


async def test_task_is_released_whatever_its_fetch_died_of() -> None:
    async def fetch(_task: TaskPlan, _references: Collection[str]) -> Mapping[str, str]:
        raise RecursionError

    task = plan(*TWO)
    store = TaskSecrets(fetch, cast(Roles, NoRoles()), Source().exists)
    async with store:
        await store.ensure(task)
        with pytest.raises(RecursionError):
            await store.settled(task)
        await store.release(task)
    assert store._fetched == {}


async def test_container_that_is_given_up_takes_no_value_from_the_others() -> None:
    source, task = Source(), plan(*TWO)
    async with source.store() as store:
        await store.ensure(task)
        given_up = asyncio.create_task(store.complete(task, task.containers[0]))
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        source.go.set()
        other = await store.complete(task, task.containers[1])

    assert other.environment["X"] == "value of /x"


async def test_secrets_are_files_and_their_members_variables_where_that_is_wanted() -> None:
    values = {"/db": "hush", "/all": '{"X": "of all", "E": "of all", "FROM_FILE": "of all"}'}

    async def fetch(_task: TaskPlan, references: Collection[str]) -> Mapping[str, str]:
        return {one: values.get(one, f"value of {one}") for one in references}

    source = Source()
    task = plan(
        container_json(
            secrets=[
                {**secret("DB", "/db"), "type": "MOUNT_POINT", "containerPath": "/run/db"},
                {**secret("ALL", "/all"), "type": "ALL_KEYS"},
                secret("X", "/x"),
            ],
            environment={"E": "environment"},
            environmentFiles=[{"value": FILE}],
        )
    )
    store = TaskSecrets(fetch, cast(Roles, NoRoles()), source.exists, source.fetch_files)
    async with store:
        container = await store.complete(task, task.containers[0])

    assert container.file_contents == {"/run/db": b"hush"}
    own = {name: container.environment.get(name) for name in ("X", "E", "FROM_FILE", "DB", "ALL")}
    assert own == {
        "X": "value of /x",
        "E": "environment",
        "FROM_FILE": "of all",
        "DB": None,
        "ALL": None,
    }


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        pytest.param("MOUNT_POINT", "has half a character, which no file can have", id="file"),
        pytest.param("ALL_KEYS", "has a member that can't be a variable", id="keys"),
    ],
)
async def test_secret_that_cannot_be_written_is_refused_without_showing_it(
    kind: str, text: str
) -> None:
    async def fetch(_task: TaskPlan, references: Collection[str]) -> Mapping[str, str]:
        return dict.fromkeys(
            references, '{"A": "hush\\ud800"}' if kind == "ALL_KEYS" else "hush\ud800"
        )

    given = {**secret("DB", "/db"), "type": kind}
    task = plan(container_json(secrets=[given | {"containerPath": "/run/db"}]))
    async with TaskSecrets(fetch, cast(Roles, NoRoles()), Source().exists) as store:
        with pytest.raises(ResourceInitializationError, match=text) as caught:
            await store.complete(task, task.containers[0])

    assert "hush" not in caught.value.reason


class Value(str):
    """A value of which can be seen whether anybody still has it."""

    __slots__ = ("__weakref__",)


@pytest.mark.parametrize("end", ["made", "stopped early", "failed"])
async def test_nothing_of_hundreds_of_tasks_is_kept_after_they_have_stopped(end: str) -> None:
    source = Source(fails=end == "failed")
    left: list[weakref.ref[Value]] = []
    logged = container_json(
        "c",
        logConfiguration={
            "logDriver": "splunk",
            "options": {"splunk-url": "https://splunk.test"},
            "secretOptions": [secret("splunk-token", "/token")],
        },
    )
    if end != "stopped early":
        source.go.set()

    async def fetch(task: TaskPlan, references: Collection[str]) -> Mapping[str, str]:
        values = {one: Value(one) for one in references}
        left.extend(weakref.ref(value) for value in values.values())
        await source.fetch(task, references)
        return values

    async def run(number: int) -> None:
        message = task_message(*TWO, logged, arn=task_arn(f"{number:032x}"))
        task = plan_task(message, SITE)
        start = asyncio.create_task(store.ensure(task))
        while len(source.asked) <= number:
            await asyncio.sleep(0)
        if end == "stopped early":
            start.cancel()
        await asyncio.wait([start])
        assert (end == "made") == (not start.cancelled() and start.exception() is None)
        for container in task.containers if end == "made" else ():
            await store.complete(task, container)
        await store.release(task)

    store = TaskSecrets(fetch, cast(Roles, NoRoles()), source.exists, source.fetch_files)
    async with store:
        for number in range(300):
            await run(number)
        gc.collect()
        assert len(left) == 300 * 3
        assert not [value for value in left[:-3] if value()]  # the loop may hold the last one's
        assert (store._fetched, store._options) == ({}, {})
