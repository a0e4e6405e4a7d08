"""A task with a router, run with fakes: what comes first, and what last."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from fargate_agent.drivers import ExitStatus, Image
from fargate_agent.plan import ContainerPlan, TaskPlan, plan_task
from fargate_agent.task.runner import TaskRun, run_task
from tests.fakes import MOMENT, Diary, FakeLogs, FakeRuntime, fake_drivers
from tests.messages import container_json, site, task_message

SECRETS = [{"name": "apikey", "valueFrom": "key"}]
LOG = {"logDriver": "awsfirelens", "options": {"Name": "x"}, "secretOptions": SECRETS}
ROUTER = container_json("router", firelensConfiguration={"type": "fluentbit"}, essential=False)
WEB = container_json("web", logConfiguration=LOG)


@dataclass
class RememberingRuntime(FakeRuntime):
    environments: dict[str, Mapping[str, str]] = field(default_factory=dict)

    async def create(
        self,
        task: TaskPlan,
        container: ContainerPlan,
        image: Image,
        log_uri: str | None,
        begun: Callable[[], None] = lambda: None,
    ) -> None:
        await super().create(task, container, image, log_uri, begun)
        self.environments[container.name] = container.environment


async def run(exits: Mapping[str, ExitStatus], diary: Diary) -> tuple[TaskRun, RememberingRuntime]:
    runtime = RememberingRuntime(diary, exits)
    logs = {"json-file": FakeLogs(diary), "awsfirelens": FakeLogs(diary)}
    made = TaskRun(
        plan=plan_task(task_message(WEB, ROUTER), site(Path("/nowhere"))),
        stop=asyncio.get_running_loop().create_future(),
    )

    async def report(_run: TaskRun) -> None:
        return

    async with asyncio.timeout(5):
        drivers = replace(fake_drivers(diary).all, runtime=runtime, logs=logs)
        await run_task(made, drivers, report)
    return made, runtime


async def test_router_starts_before_and_stops_after_those_that_log_through_it() -> None:
    diary = Diary()

    await run({"web": ExitStatus(code=0, at=MOMENT)}, diary)

    containers = [call for call in diary.calls if call.split()[0] in {"start", "stop"}]
    assert containers == ["start router", "start web", "stop web", "stop router"]


async def test_only_the_router_is_created_with_the_secrets_of_output_options() -> None:
    diary = Diary()

    made, runtime = await run({"web": ExitStatus(code=0, at=MOMENT)}, diary)

    assert runtime.environments["router"]["apikey_0"] == "value of key"
    assert "value of key" not in str(runtime.environments["web"])
    assert "value of key" not in str(made.plan)
    assert diary.calls.index("listen") < diary.calls.index("fetch key")


async def test_task_ends_when_a_secret_of_its_router_is_not_to_be_had() -> None:
    diary = Diary(fail_at="fetch key")

    made, _ = await run({}, diary)

    assert made.facts.reason == "ResourceInitializationError: refused: fetch key"
    assert not any(call.startswith(("create", "start")) for call in diary.calls)
