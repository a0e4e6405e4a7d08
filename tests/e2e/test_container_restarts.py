"""Restart policies as the owner of a task sees them.

A container is restarted only if it ran for a minute, so all that can be seen of it is seen at once.
"""

import asyncio
import json
import signal
from typing import Any

import pytest

from tests.e2e.test_container_life import METADATA, end, restart_agent, root_of, until
from tests.fixtures.events import reading
from tests.fixtures.machine import wait_for
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.requests import post, signed
from tests.fixtures.stack import DEADLINE_S, Stack, tool

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(240)]

PERIOD_S = 60
"""The shortest attempt period that ECS takes."""
SECOND_RUN = (
    f'{{ echo second; until case "$({METADATA})" in *RestartCount\\":1*) ;; *) false ;; esac;'
    f" do sleep 0.2; done; {METADATA}; echo; exec sleep 1000; }}"
)
"""Writes the metadata when the restart is counted, which is a moment after it."""


def restarts(stack: Stack, arn: str) -> int | None:
    """Return how often the first container of a task was restarted, as DescribeTasks says."""
    body = json.dumps({"tasks": [arn]}).encode()
    _, answer = post(stack.plane, body, signed(stack.plane, "DescribeTasks", body))
    count: int | None = answer["tasks"][0]["containers"][0].get("restartCount")
    return count


async def test_container_is_restarted_in_place_and_the_next_agent_goes_on_with_that(
    stack: Stack, registry: FakeRegistry
) -> None:
    def job(runs: str, **policy: Any) -> str:
        script = f"[ -e /ran ] && {SECOND_RUN}; : >/ran; echo first; {runs}; exit 4"
        policy = {"enabled": True, "restartAttemptPeriod": PERIOD_S, **policy}
        return stack.run(tool("main", script, restartPolicy=policy))

    soon, restarted = job("sleep 1"), job(f"sleep {PERIOD_S + 1}")
    ignored = job(f"sleep {PERIOD_S + 1}", ignoredExitCodes=[4])
    unseen = job(f"sleep {PERIOD_S + 1}; until [ -e /go ]; do sleep 0.1; done")
    before = {arn: await stack.wait_for(arn, "RUNNING") for arn in (restarted, ignored, unseen)}
    ended_soon = await until(stack, soon, lambda task: task["lastStatus"] == "STOPPED")
    lines = await written(stack, restarted, "RestartCount", PERIOD_S + DEADLINE_S)
    ended = await until(stack, ignored, lambda task: task["lastStatus"] == "STOPPED")
    async with asyncio.timeout(DEADLINE_S):
        while await asyncio.to_thread(restarts, stack, restarted) != 1:
            await asyncio.sleep(0.05)

    # it ends while there is no agent; the next one restarts it
    go = root_of(stack, before[unseen]) / "go"
    stack.agent.end(signal.SIGKILL)
    go.touch()
    runtime_id = before[unseen]["containers"][0]["runtimeId"]
    wait_for(
        lambda: any(
            runtime_id in row and "STOPPED" in row for row in stack.ctr("tasks", "ls").splitlines()
        ),
        "the exit",
        DEADLINE_S,
    )
    restart_agent(stack)
    late_lines = await written(stack, unseen, "RestartCount")

    assert_restarted(before[restarted], stack.describe(restarted), lines)
    assert_restarted(before[unseen], stack.describe(unseen), late_lines)
    async with reading(stack.plane, subject=restarted[-32:]) as reader:
        events = await reader.rest()
    assert {e["detail"]["containers"][0]["lastStatus"] for e in events} <= {"PENDING", "RUNNING"}
    for task in (ended_soon, ended):
        assert task["containers"][0]["exitCode"] == 4
        assert task["stopCode"] == "EssentialContainerExited"
    assert await stack.logs(soon) == ["main: first"]
    await end(stack, restarted, unseen)


def assert_restarted(before: dict[str, Any], after: dict[str, Any], lines: list[str]) -> None:
    """Compare a task in its first and its second run, and what both have written."""
    assert lines[:2] == ["main: first", "main: second"]
    metadata = json.loads(lines[-1].partition(": ")[2])
    assert metadata["RestartCount"] == 1
    assert "ExitCode" not in metadata
    assert after["lastStatus"] == "RUNNING"
    assert "exitCode" not in after["containers"][0]
    assert after["containers"][0]["runtimeId"] == before["containers"][0]["runtimeId"]


async def written(stack: Stack, arn: str, text: str, within_s: float = DEADLINE_S) -> list[str]:
    """Return what a task has written when a text is in it."""
    async with asyncio.timeout(within_s):
        lines = await stack.logs(arn)
        while not any(text in line for line in lines):
            await asyncio.sleep(0.1)
            lines = await stack.logs(arn)
    return lines
