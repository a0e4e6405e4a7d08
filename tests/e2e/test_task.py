"""A task from RunTask to STOPPED, through every layer, seen from outside and from inside."""

import json
import re
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.network import serve_caller
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.stack import OUTSIDE, Stack, make_stack, tool

pytestmark = [pytest.mark.e2e, pytest.mark.root]


async def test_two_containers_are_pulled_run_and_removed(
    stack: Stack, registry: FakeRegistry
) -> None:
    arn = stack.run(
        tool("web", "exec httpd -f -p 80 -h /www"),
        tool(
            "client",
            "until wget -q -O - http://127.0.0.1/; do sleep 0.1; done;"
            "wget -q -O - $ECS_CONTAINER_METADATA_URI_V4/task; echo; ip -o addr show dev eth1;"
            "cat /proc/self/cgroup; sleep 1000",
            dependsOn=[{"containerName": "web", "condition": "START"}],
        ),
    )
    lines = await stack.wait_for_log(arn, "/ecs/")
    running = await stack.wait_for(arn, "RUNNING")
    address = next(
        detail["value"]
        for detail in running["attachments"][0]["details"]
        if detail["name"] == "privateIPv4Address"
    )
    metadata = json.loads(next(line for line in lines if '"TaskARN"' in line).partition(": ")[2])
    task_id = arn.rpartition("/")[2]

    assert "client: hello from the web" in lines
    assert metadata["TaskARN"] == arn
    assert {c["Name"] for c in metadata["Containers"]} == {"web", "client"}
    assert metadata["Containers"][0]["Networks"][0]["IPv4Addresses"] == [address]
    assert any(f"inet {address}/24" in line for line in lines)
    group = rf"/(ecs/{task_id}/{task_id}-\d{{10}}|ecs-{task_id}-\d{{10}}\.scope)$"
    assert any(re.search(group, line) for line in lines)
    assert running["attachments"][0]["status"] == "ATTACHED"
    assert {c["lastStatus"] for c in running["containers"]} == {"RUNNING"}

    stack.stop(arn, "seen enough")
    stopped = await stack.wait_for(arn, "STOPPED")

    assert stopped["stopCode"] == "UserInitiated"
    assert stopped["stoppedReason"] == "seen enough"
    assert stack.leftovers(arn) == []


async def test_exit_code_and_reason_are_reported_when_the_essential_container_ends(
    stack: Stack, registry: FakeRegistry
) -> None:
    before = {"containerName": "side", "condition": "START"}
    arn = stack.run(
        tool("main", "echo done; exit 7", dependsOn=[before]), tool("side", "sleep 1000")
    )

    stopped = await stack.wait_for(arn, "STOPPED")

    exits = {c["name"]: c.get("exitCode") for c in stopped["containers"]}
    assert exits == {"main": 7, "side": 137}  # a shell as first process ignores SIGTERM
    assert stopped["stopCode"] == "EssentialContainerExited"
    assert stopped["stoppedReason"] == "Essential container in task exited"
    assert await stack.logs(arn) == ["main: done"]
    assert stack.leftovers(arn) == []


async def test_veth_task_reaches_an_open_port_of_the_host_and_no_instance_metadata(
    tmp_path: Path,
    private_containerd: PrivateContainerd,
    outside: tuple[Path, str],
    registry: FakeRegistry,
) -> None:
    async with serve_caller(None, IPv4Address("0.0.0.0")) as port:
        settings = {"FARGATE_AGENT_HOST_PORTS": str(port)}
        async with make_stack(tmp_path, private_containerd, outside, **settings) as stack:
            first = stack.run(
                tool("main", "exit 0")
            )  # brings the image, by the NIC that leads there
            await stack.wait_for(first, "STOPPED")

            arn = stack.run(
                tool(
                    "main",
                    "nc -w 1 169.254.169.254 80 </dev/null 2>&1; echo imds $?;"
                    f"nc -w 5 10.213.0.1 {port} </dev/null; echo; exit 0",
                ),
                subnet="subnet-default",
            )
            task = await stack.wait_for(arn, "STOPPED")
            lines = await stack.logs(arn)

            assert "main: imds 1" in lines
            details = {one["name"]: one["value"] for one in task["attachments"][0]["details"]}
            assert f"main: {details['privateIPv4Address']}" in lines  # the host said who asked
            assert stack.leftovers(arn) == []


async def test_registry_is_asked_through_the_interface_of_the_task(
    stack: Stack, registry: FakeRegistry
) -> None:
    arn = stack.run(tool("main", "exit 0"))

    task = await stack.wait_for(arn, "STOPPED")

    assert "pullStartedAt" in task
    assert registry.count("/manifests/1") >= 1
    assert f"{OUTSIDE}.1:5000" in {host for host, _ in registry.headers}
    assert Path("/proc/self/ns/net").stat().st_ino != stack.outside.stat().st_ino


async def test_two_tasks_do_not_see_each_other_s_metadata(
    stack: Stack, registry: FakeRegistry
) -> None:
    one = stack.run(tool("main", "echo uri $ECS_CONTAINER_METADATA_URI_V4; sleep 1000"))
    (line,) = await stack.wait_for_log(one, "uri http")
    other_uri = line.rpartition(" ")[2]

    two = stack.run(
        tool(
            "main",
            f"wget -O - {other_uri} 2>&1; wget -q -O - $ECS_CONTAINER_METADATA_URI_V4; echo;"
            "echo over; sleep 1000",
        )
    )
    lines = await stack.wait_for_log(two, "over")

    assert any("404" in line for line in lines)
    assert not any(other_uri.rpartition("/")[2] in line and "DockerId" in line for line in lines)
    assert any('"Name":"main"' in line for line in lines)
    for arn in (one, two):
        stack.stop(arn)
    for arn in (one, two):
        await stack.wait_for(arn, "STOPPED")
        assert stack.leftovers(arn) == []
