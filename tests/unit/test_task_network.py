"""When the network of a task is joined: soon, but not in the way of its containers."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fargate_agent.drivers import ExitStatus, FindLogin, Image, PullProgress, no_login
from fargate_agent.plan import TaskPlan, plan_task
from fargate_agent.task.network import HEAD_START_S, TaskNetwork
from fargate_agent.task.runner import TaskRun, run_task
from tests.fakes import MOMENT, FakeImages, FakeSecrets, fake_drivers
from tests.fixtures.clock import jumping, now_s
from tests.messages import container_json, site, task_message


class ImagesThatAreFound(FakeImages):
    """Here, but containerd takes a while to say so."""

    after_s: float = HEAD_START_S / 2

    async def ensure(
        self,
        reference: str,
        task: TaskPlan,
        progress: Callable[[PullProgress], None],
        network: asyncio.Event,
        find_login: FindLogin = no_login,
    ) -> Image:
        await asyncio.sleep(self.after_s)
        there = asyncio.Event()
        there.set()
        return await super().ensure(reference, task, progress, there, find_login)


async def run(images: type[FakeImages], *secrets: dict[str, str]) -> list[str]:
    """Run a task of one container to its end; return what was done."""
    web = container_json("web", secrets=list(secrets))
    plan = plan_task(task_message(web), site(Path("/nowhere")))
    drivers = fake_drivers(exits={"web": ExitStatus(code=0, at=MOMENT)})
    drivers.all = replace(
        drivers.all, images=images(drivers.diary), secrets=FakeSecrets(drivers.diary)
    )

    async def report(_: TaskRun) -> None:
        pass

    stop: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    await run_task(TaskRun(plan=plan, stop=stop), drivers.all, report)
    return drivers.diary.calls


def order(calls: list[str], *some: str) -> list[str]:
    return [call for call in calls if call in some]


@jumping
async def test_secrets_are_asked_for_before_anything_waits_for_them() -> None:
    calls = await run(ImagesThatAreFound, {"name": "A", "valueFrom": "/a"})

    some = ("attach eth1", "listen", "hold secrets", "fetch /a", "create web")
    assert order(calls, *some) == list(some)
    pulled = next(index for index, call in enumerate(calls) if call.startswith("pull"))
    assert calls.index("hold secrets") < pulled


@jumping
async def test_container_whose_image_is_here_is_made_first() -> None:
    calls = await run(ImagesThatAreFound)

    both = ("create web", "attach eth1")
    assert order(calls, *both) == ["create web", "attach eth1"]


@jumping
async def test_image_that_is_long_in_coming_holds_nothing_up() -> None:
    class Slow(ImagesThatAreFound):
        after_s = HEAD_START_S * 2

    calls = await run(Slow)

    assert order(calls, "create web", "attach eth1") == ["attach eth1", "create web"]


@jumping
async def test_pull_has_the_network_at_once() -> None:
    began_s = now_s()

    calls = await run(FakeImages)

    assert now_s() - began_s < HEAD_START_S
    assert order(calls, "attach eth1", "pull web:1") == ["attach eth1", "pull web:1"]


@jumping
async def test_network_is_joined_when_somebody_waits_for_it() -> None:
    network = TaskNetwork()
    began_s = now_s()
    waiting = asyncio.create_task(network.wait())

    await network.wait_until_wanted()
    waited_s = now_s() - began_s
    network.set()

    assert await waiting
    assert waited_s == pytest.approx(0)
