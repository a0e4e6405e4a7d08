"""What programs inside the containers of a task say."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pytest

from tests.fixtures.stack import Stack
from tests.third_party.images import python

DEADLINE_S: Final = 80.0


@dataclass(frozen=True, kw_only=True)
class Told:
    """What they printed, and the task as the API described it while they ran."""

    task: dict[str, Any]
    lines: dict[str, list[str]]
    """By container."""

    @property
    def hostname(self) -> str:
        """Of all containers of the task."""
        details = self.task["attachments"][0]["details"]
        return str(next(one["value"] for one in details if one["name"] == "privateDnsName"))

    def read(self, container: str) -> Any:
        """Return what a container printed, which is one document of JSON."""
        try:
            return json.loads("".join(self.lines[container]))
        except ValueError:
            raise AssertionError("\n".join(self.lines[container])) from None


async def run_all(stack: Stack, programs: Sequence[dict[str, Any]], **definition: Any) -> Told:
    """Run the containers in one task until each has ended."""
    keeper = {**python("keeper", "keeper.py"), "essential": True}
    arn = stack.run(keeper, *programs, cpu="1024", memory="2048", **definition)
    task = await stack.wait_for(arn, "RUNNING")
    end_s = time.monotonic() + DEADLINE_S
    while running := await asyncio.to_thread(_find_running, stack, arn):
        if time.monotonic() > end_s:
            pytest.fail(f"{running} still run: {await stack.logs(arn)}")
        await asyncio.sleep(0.1)
    lines: dict[str, list[str]] = {container["name"]: [] for container in programs}
    for line in await stack.logs(arn):
        name, _, text = line.partition(": ")
        lines[name].append(text)
    stack.stop(arn)
    await stack.wait_for(arn, "STOPPED")
    return Told(task=task, lines=lines)


def _find_running(stack: Stack, arn: str) -> set[str]:
    containers = stack.describe(arn)["containers"]
    return {one["name"] for one in containers if one["lastStatus"] != "STOPPED"} - {"keeper"}
