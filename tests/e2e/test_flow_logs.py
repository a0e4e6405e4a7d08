"""Flow logs of a task, from the setting to the records, over a new beginning of the agent."""

import json
from pathlib import Path

import pytest

from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.machine import wait_for
from tests.fixtures.network import run_ip
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.stack import DEADLINE_S, OUTSIDE, make_stack, tool

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(120)]


async def test_what_a_task_has_sent_is_logged(
    tmp_path: Path,
    private_containerd: PrivateContainerd,
    outside: tuple[Path, str],
    registry: FakeRegistry,
) -> None:
    run_ip("address", "add", f"{OUTSIDE}.2/24", "dev", outside[1])
    file = tmp_path / "flows.log"
    said = json.dumps({"file": str(file), "interval_s": 60})
    async with make_stack(
        tmp_path, private_containerd, outside, FARGATE_AGENT_FLOW_LOGS=said
    ) as stack:
        task = stack.run(tool("app", "echo begun; sleep 60"), subnet="subnet-default")
        await stack.wait_for_log(task, "begun")
        eni = next(
            detail["value"]
            for detail in stack.describe(task)["attachments"][0]["details"]
            if detail["name"] == "networkInterfaceId"
        )
        stack.agent.end()
        first = read(file)
        stack.agent.start()
        wait_for(lambda: stack.agent.wrote("connected to"), "the agent to connect", DEADLINE_S)
        stack.stop(task)
        await stack.wait_for(task, "STOPPED")
        stack.agent.end()

    pulled = [line for line in first if line[4:7:2] == [f"{OUTSIDE}.1", "5000"]]
    assert {line[2] for line in first} == {eni}
    assert {(line[0], line[1], line[12]) for line in pulled} == {("2", "000000000000", "ACCEPT")}
    assert sum(int(line[9]) for line in first if line[3] == f"{OUTSIDE}.1") > 100_000
    assert len(read(file)) > len(first)
    assert "SKIPDATA" not in file.read_text()


def read(file: Path) -> list[list[str]]:
    return [line.split(" ") for line in file.read_text().splitlines()]
