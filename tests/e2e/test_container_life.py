"""The life of a container as its owner sees it: health, order, what isn't essential."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fargate_agent.cli.clients.agent import Agent, ContainerLife
from fargate_agent.cli.failure import NotKnownError
from tests.fixtures.ecs import QUICK
from tests.fixtures.events import reading
from tests.fixtures.machine import find_groups, wait_for
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.stack import DEADLINE_S, Stack, tool

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(180)]

METADATA = "wget -q -O - $ECS_CONTAINER_METADATA_URI_V4"


def check(command: str, **more: int) -> dict[str, Any]:
    """Return a health check by a shell command, as often as ECS lets it be."""
    return {"command": ["CMD-SHELL", command], "interval": 5, "timeout": 4, "retries": 1, **more}


def pids_of(stack: Stack, arn: str) -> dict[str, int]:
    """Return the first process of each container of a task, by the container's runtime id."""
    task_id = arn.rpartition("/")[2]
    rows = [line.split() for line in stack.ctr("tasks", "ls").splitlines()]
    return {row[0]: int(row[1]) for row in rows if row[0].startswith(task_id)}


def root_of(stack: Stack, task: dict[str, Any], name: str = "main") -> Path:
    """Return where this machine sees the root of a container."""
    (runtime_id,) = (c["runtimeId"] for c in task["containers"] if c["name"] == name)
    return Path(f"/proc/{pids_of(stack, task['taskArn'])[runtime_id]}/root")


def containers(task: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {container["name"]: container for container in task["containers"]}


async def until(
    stack: Stack, arn: str, holds: Callable[[dict[str, Any]], bool], within_s: float = DEADLINE_S
) -> dict[str, Any]:
    """Return a task when it is as wanted; fail if it stops before that."""
    async with asyncio.timeout(within_s):
        while not holds(task := await asyncio.to_thread(stack.describe, arn)):
            assert task["lastStatus"] != "STOPPED", task["stoppedReason"]
            await asyncio.sleep(0.05)
    return task


async def end(stack: Stack, *arns: str) -> None:
    """Stop tasks; nothing may be left of them."""
    for arn in arns:
        stack.stop(arn)
    for arn in arns:
        await stack.wait_for(arn, "STOPPED")
        assert stack.leftovers(arn) == []


def restart_agent(stack: Stack) -> None:
    stack.agent.start()
    wait_for(lambda: stack.agent.wrote("agent is ready"), "the next agent", DEADLINE_S)


UNKNOWN = ContainerLife(name="", restart_count=0, runs=[], health=None)


async def lives_of(agent: Agent, arn: str) -> dict[str, ContainerLife]:
    """Return what the agent tells of the containers of a task; nothing before it has the task."""
    try:
        return {life.name: life for life in await agent.containers(arn.rpartition("/")[2])}
    except NotKnownError:
        return {}


async def list_tasks(stack: Stack) -> list[dict[str, Any]]:
    """Return the tasks that the agent shows on its local socket."""
    connector = aiohttp.UnixConnector(str(stack.socket))
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.get("http://agent/v1/tasks") as answer,
    ):
        found: list[dict[str, Any]] = (await answer.json())["tasks"]
    return found


async def test_container_is_started_when_the_one_it_waits_for_is_healthy(
    stack: Stack, registry: FakeRegistry
) -> None:
    arn = stack.run(
        tool("db", "sleep 1; : >/ready; sleep 1000", healthCheck=check("[ -e /ready ]")),
        tool(
            "main",
            f"echo begins; {METADATA}/task; echo; sleep 1000",
            dependsOn=[{"containerName": "db", "condition": "HEALTHY"}],
        ),
    )
    async with asyncio.timeout(DEADLINE_S), Agent(stack.socket) as agent:
        while not (lives := await lives_of(agent, arn)).get("db", UNKNOWN).runs:
            await asyncio.sleep(0.05)
    lines = await stack.wait_for_log(arn, "TaskARN")
    task = await stack.wait_for(arn, "RUNNING")

    (shown,) = await list_tasks(stack)
    assert (shown["taskArn"], shown["health"]) == (arn, "HEALTHY")
    assert lives["main"].runs == []
    assert lives["db"].health is not None
    assert lives["db"].health["status"] == "UNKNOWN"
    seen = json.loads(next(line for line in lines if "TaskARN" in line).partition(": ")[2])
    db, main = sorted(seen["Containers"], key=lambda container: str(container["Name"]))
    assert db["Health"]["status"] == "HEALTHY"
    moments = [db["StartedAt"], db["Health"]["statusSince"], main["CreatedAt"]]
    assert sorted(moments, key=datetime.fromisoformat) == moments
    assert "Health" not in main
    assert (containers(task)["db"]["healthStatus"], task["healthStatus"]) == ("HEALTHY",) * 2
    await end(stack, arn)


@asynccontextmanager
async def service(stack: Stack, container: dict[str, Any]) -> AsyncIterator[str]:
    """Make the service `web` of one task of a container; it is deleted in the end."""
    stack.ecs.register_task_definition(
        family="web",
        networkMode="awsvpc",
        requiresCompatibilities=["FARGATE"],
        cpu="256",
        memory="512",
        containerDefinitions=[container],
    )
    stack.ecs.create_service(
        serviceName="web",
        taskDefinition="web",
        desiredCount=1,
        launchType="FARGATE",
        networkConfiguration={"awsvpcConfiguration": {"subnets": ["subnet-outside"]}},
    )
    try:
        yield "web"
    finally:
        stack.ecs.delete_service(service="web", force=True)
        await asyncio.to_thread(
            stack.ecs.get_waiter("services_inactive").wait, services=["web"], WaiterConfig=QUICK
        )


def tasks_of(stack: Stack, name: str) -> list[str]:
    found: list[str] = stack.ecs.list_tasks(serviceName=name)["taskArns"]
    return found


async def test_container_that_becomes_unhealthy_is_shown_and_its_service_replaces_it(
    stack: Stack, registry: FakeRegistry
) -> None:
    container = tool(
        "main",
        f"while :; do {METADATA}; echo; sleep 0.5; done",
        healthCheck=check("echo it is sick; [ ! -e /sick ]"),
    )
    async with service(stack, container) as name:
        async with asyncio.timeout(DEADLINE_S):
            while not (arns := await asyncio.to_thread(tasks_of, stack, name)):
                await asyncio.sleep(0.05)
        first = await until(stack, arns[0], lambda task: task["healthStatus"] == "HEALTHY")
        (root_of(stack, first) / "sick").touch()

        async with reading(stack.plane, subject=arns[0][-32:], follow="true") as reader:
            async with asyncio.timeout(DEADLINE_S):
                event = await reader.next()
                while event is not None and event["detail"]["healthStatus"] != "UNHEALTHY":
                    event = await reader.next()
        sick = await until(stack, arns[0], lambda task: task["healthStatus"] == "UNHEALTHY")
        lines = await stack.wait_for_log(arns[0], "UNHEALTHY")
        gone = await until(stack, arns[0], lambda task: task["lastStatus"] == "STOPPED")
        (second,) = await asyncio.to_thread(tasks_of, stack, name)
        well = await asyncio.to_thread(stack.describe, second)

    assert sick["containers"][0]["healthStatus"] == "UNHEALTHY"
    assert event is not None
    assert event["detail"]["containers"][0]["healthStatus"] == "UNHEALTHY"
    seen = json.loads(next(x for x in lines if "UNHEALTHY" in x).partition(": ")[2])
    health = seen["Health"]
    assert (health["exitCode"], health["output"].strip()) == (1, "it is sick")
    assert gone["stopCode"] == "ServiceSchedulerInitiated"
    assert gone["stoppedReason"] == "Task failed container health checks"
    assert (well["taskArn"] != arns[0], well["healthStatus"]) == (True, "HEALTHY")
    assert well["startedAt"] < gone["stoppingAt"]


BEFORE = {"containerName": "init", "condition": "SUCCESS"}
FAILING = {
    "create": ([tool("side", "true", user="nobodyhere", essential=False)], "CannotCreate"),
    "start": (
        [tool("side", "", entryPoint=["/nosuch"], essential=False)],
        "CannotStartContainerError",
    ),
    "dependency": (
        [
            tool("init", "exit 1", essential=False),
            tool("side", "true", essential=False, dependsOn=[BEFORE]),
        ],
        "",
    ),
}
"""What can't be started and isn't essential, and how its reason begins."""


async def test_container_that_is_not_essential_fails_alone(
    stack: Stack, registry: FakeRegistry
) -> None:
    script = "until [ -e /end ]; do sleep 0.1; done; echo main lives"
    arns = {case: stack.run(tool("main", script), *more) for case, (more, _) in FAILING.items()}

    for case, arn in arns.items():
        running = await stack.wait_for(arn, "RUNNING")
        (root_of(stack, running) / "end").touch()
        task = await stack.wait_for(arn, "STOPPED")
        main, side = containers(task)["main"], containers(task)["side"]
        assert (task["stopCode"], main["exitCode"]) == ("EssentialContainerExited", 0), case
        assert side["reason"].startswith(FAILING[case][1]), case
        assert "exitCode" not in side, case
        assert "startedAt" in task, case
        assert "main: main lives" in await stack.logs(arn), case
        assert stack.leftovers(arn) == [], case


async def test_next_agent_goes_on_with_the_checks_of_a_killed_one(
    stack: Stack, registry: FakeRegistry
) -> None:
    arn = stack.run(
        tool(
            "main",
            "exec sleep 1000",
            healthCheck=check("echo $$ >>/checks; [ -e /ready ] || sleep 1000", timeout=60),
        )
    )
    task = await stack.wait_for(arn, "RUNNING")
    root = root_of(stack, task)
    wait_for((root / "checks").exists, "a check to run", DEADLINE_S)

    stack.agent.end(signal.SIGKILL)
    (root / "ready").touch()
    left = processes(task)
    restart_agent(stack)
    # a shim that was about to start the check gives up after 30 s
    healthy = await until(stack, arn, lambda task: task["healthStatus"] == "HEALTHY", 90)

    assert len(left) > 1
    wait_for(lambda: len(processes(task)) == 1, "the checks to end", DEADLINE_S)
    assert healthy["containers"][0]["runtimeId"] == task["containers"][0]["runtimeId"]
    assert len((root / "checks").read_text().split()) >= 2
    await end(stack, arn)


def processes(task: dict[str, Any]) -> set[str]:
    """Return the processes in the control groups of the only container of a task."""
    task_id = task["taskArn"].rpartition("/")[2]
    groups = find_groups(f"/ecs/{task_id}/{task['containers'][0]['runtimeId']}")
    return {pid for group in groups for pid in (group / "cgroup.procs").read_text().split()}


async def test_next_agent_ends_containers_in_the_order_that_a_killed_one_began(
    stack: Stack, registry: FakeRegistry
) -> None:
    def polite(name: str, lasts_s: int, **more: Any) -> dict[str, Any]:
        script = f"trap 'echo ends; sleep {lasts_s}; echo ended; exit 0' TERM; echo ready"
        return tool(name, f"{script}; while :; do sleep 0.1; done", **{"stopTimeout": 30, **more})

    arn = stack.run(
        polite("db", 0, healthCheck=check("true")),
        polite("main", 4, dependsOn=[{"containerName": "db", "condition": "START"}]),
    )
    await stack.wait_for_log(arn, "main: ready")
    await stack.wait_for(arn, "RUNNING")

    stack.stop(arn)
    await stack.wait_for_log(arn, "main: ends")
    stack.agent.end(signal.SIGKILL)
    restart_agent(stack)
    stopped = await stack.wait_for(arn, "STOPPED")

    told = [line for line in await stack.logs(arn) if "end" in line]
    assert sorted(told, key=["main: ends", "main: ended", "db: ends", "db: ended"].index) == told
    assert [container["exitCode"] for container in stopped["containers"]] == [0, 0]
    assert stack.leftovers(arn) == []
