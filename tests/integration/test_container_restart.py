"""Real containers that are restarted, or that fail alone."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.containerd.errors import ContainerdError, UnavailableError
from fargate_agent.containerd.processes import Processes
from fargate_agent.task.status import ContainerStatus
from tests.fixtures.lives import plan_agent, succeed
from tests.fixtures.runtime import Bench

pytestmark = pytest.mark.root

COUNT = "echo x >>/count; n=$(wc -l </count); echo run $n; "
DEADLINE_S = 60
WAIT = "while :; do sleep 0.1; done"


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def policy(*ignored: int) -> dict[str, object]:
    return {"enabled": True, "ignoredExitCodes": ignored, "restartAttemptPeriod": 0}


async def test_container_is_restarted_in_its_place_until_its_exit_code_is_ignored(
    bench: Bench,
) -> None:
    agent = plan_agent(
        bench, {"command": sh(COUNT + "exit $((n + 4))"), "restartPolicy": policy(7)}
    )

    await agent.work()

    assert (agent.first.exit_code, agent.first.restart_count) == (7, 2)
    assert [run.exit_code for run in agent.first.runs] == [5, 6, 7]
    assert agent.run.facts.reason == "Essential container in task exited"
    output = bench.output_file(agent.run.plan.containers[0]).read_text()
    assert output == "run 1\nrun 2\nrun 3\n"


async def test_killed_agent_is_followed_by_one_that_restarts_the_container(bench: Bench) -> None:
    """Whatever the first has written down by then, each of these is one run."""
    command = sh(COUNT + "test $n = 4 && exit 7; sleep 0.2; exit 1")
    agent = plan_agent(bench, {"command": command, "restartPolicy": policy(7)})
    async with agent.at_work():
        await agent.wait_until(lambda: agent.first.has_ended)

    successor = succeed(agent)
    await successor.work()

    assert (successor.first.exit_code, successor.first.restart_count) == (7, 3)
    output = bench.output_file(agent.run.plan.containers[0]).read_text()
    assert output == "run 1\nrun 2\nrun 3\nrun 4\n"


@pytest.mark.parametrize("is_done", [True, False])
@pytest.mark.parametrize("call", ["create", "start"])
async def test_containerd_that_goes_away_ends_no_container_that_is_just_restarted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, call: str, is_done: bool
) -> None:
    agent = plan_agent(
        bench, {"command": sh(COUNT + "test $n = 2 && exit 7; exit 1"), "restartPolicy": policy(7)}
    )
    do, lost = getattr(Processes, call), list[str]()

    async def lose_answer(processes: Processes, *some: Any, **more: Any) -> Any:
        is_restart = agent.first.has_ended or len(agent.first.runs) > 1
        if is_restart and not lost:
            lost.append(call)
            if is_done:
                await do(processes, *some, **more)
            raise UnavailableError("socket closed")
        return await do(processes, *some, **more)

    monkeypatch.setattr(Processes, call, lose_answer)
    await agent.work()

    assert lost == [call]
    assert (agent.first.exit_code, agent.first.restart_count) == (7, 1)
    output = bench.output_file(agent.run.plan.containers[0]).read_text()
    assert output == "run 1\nrun 2\n"


async def test_shim_that_is_still_ending_spoils_no_restart(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen where the machine was busy: the new process was handed to the shim of the old one."""
    agent = plan_agent(
        bench, {"command": sh(COUNT + "test $n = 2 && exit 7; exit 1"), "restartPolicy": policy(7)}
    )
    create, spoiled = Processes.create, list[str]()

    async def spoil(processes: Processes, *some: Any, **more: Any) -> int:
        if agent.first.has_ended and not spoiled:
            spoiled.append("failed to create shim task: ttrpc: closed: unknown")
            raise ContainerdError(spoiled[0])
        return await create(processes, *some, **more)

    monkeypatch.setattr(Processes, "create", spoil)
    await agent.work()

    assert spoiled
    assert (agent.first.exit_code, agent.first.restart_count) == (7, 1)


async def test_stop_ends_a_container_that_is_restarted(bench: Bench) -> None:
    agent = plan_agent(
        bench, {"command": sh(COUNT + "sleep 0.1; exit 1"), "restartPolicy": policy()}
    )

    async def stop_at_the_third_run() -> None:
        await agent.wait_until(lambda: agent.first.restart_count == 2)
        agent.run.stop.set_result("enough")

    async with asyncio.TaskGroup() as group:
        group.create_task(stop_at_the_third_run())
        group.create_task(agent.work())

    assert agent.run.facts.reason == "enough"
    assert agent.first.status is ContainerStatus.STOPPED
    assert agent.first.exit_code is not None
    async with asyncio.timeout(DEADLINE_S):
        while await bench.traces(agent.run.plan):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("side", "reason"),
    [
        pytest.param(
            {"command": ["true"], "user": "nobodyhere"}, "CannotCreateContainerError: ", id="create"
        ),
        pytest.param({"command": ["/nosuch"]}, "CannotStartContainerError: ", id="start"),
        pytest.param(
            {
                "command": ["true"],
                "dependsOn": [{"containerName": "init", "condition": "SUCCESS"}],
            },
            "TaskDependencyError: dependency graph: failed to resolve container ordering "
            "dependency [init] for target [side] as dependency did not exit successfully.",
            id="dependency",
        ),
    ],
)
async def test_container_that_is_not_essential_fails_alone(
    bench: Bench, side: dict[str, object], reason: str
) -> None:
    agent = plan_agent(
        bench,
        {"name": "main", "command": sh("until test -e /go; do sleep 0.1; done; exit 3")},
        {"name": "init", "command": sh("exit 1"), "essential": False},
        {"name": "side", "essential": False, **side},
    )

    containers = agent.run.facts.containers

    async def end_main_when_the_other_has_failed() -> None:
        await agent.wait_until(
            lambda: agent.run.facts.status == "RUNNING" and containers["side"].reason
        )
        main = next(one for one in agent.run.plan.containers if one.name == "main")
        (pid, *_) = sorted(await bench.containerd.processes.pids(main.id))
        Path(f"/proc/{pid}/root/go").touch()

    async with asyncio.TaskGroup() as group:
        group.create_task(end_main_when_the_other_has_failed())
        group.create_task(agent.work())

    assert agent.run.facts.reason == "Essential container in task exited"
    assert containers["main"].exit_code == 3
    assert (containers["side"].status, containers["side"].exit_code) == ("STOPPED", None)
    assert (containers["side"].reason or "").startswith(reason)


async def test_containers_stop_after_those_that_depend_on_them(bench: Bench) -> None:
    """Each writes to a volume when it is told to stop; an application is slow to end."""
    trap = "trap 'echo {0} is told; sleep {1}; echo {0} ends; exit 0' TERM"
    told = [
        {
            "name": name,
            "command": sh(f"exec >>/log/all; {trap.format(name, slow)}; touch /log/{name}; {WAIT}"),
            "mountPoints": [{"sourceVolume": "log", "containerPath": "/log"}],
            "dependsOn": needs,
        }
        for name, slow, needs in [
            ("app", 1.5, [{"containerName": "db", "condition": "START"}]),
            ("db", 0.5, [{"containerName": "disk", "condition": "START"}]),
            ("disk", 0, []),
        ]
    ]
    agent = plan_agent(bench, *told, volumes=[{"name": "log"}])
    log = agent.run.plan.volumes[0].source / "all"
    lines: list[str] = []

    async def stop() -> None:
        await agent.wait_until(lambda: agent.run.facts.status == "RUNNING")
        async with asyncio.timeout(DEADLINE_S):
            while len(list(log.parent.iterdir())) < 4:
                await asyncio.sleep(0.05)
        agent.run.stop.set_result("enough")
        await agent.wait_until(lambda: agent.run.facts.containers["disk"].stop_began_s)
        lines.extend(log.read_text().splitlines())

    async with asyncio.TaskGroup() as group:
        group.create_task(stop())
        group.create_task(agent.work())

    assert lines[:4] == ["app is told", "app ends", "db is told", "db ends"]
    assert {one.exit_code for one in agent.run.facts.containers.values()} == {0}
