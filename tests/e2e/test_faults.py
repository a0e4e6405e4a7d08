"""Bad input and faults: the task is STOPPED with ECS's words, and nothing is left."""

import re
import socket
from collections.abc import Callable
from typing import Any

import pytest

from fargate_agent.network.namespaces import socket_in_netns
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.images import build_image, build_index, random_layer
from tests.fixtures.network import run_ip
from tests.fixtures.registry import FakeRegistry, Fault
from tests.fixtures.stack import OUTSIDE, REGISTRY, Stack, build_tool, make_stack, tool

pytestmark = [pytest.mark.e2e, pytest.mark.root]

TRIES = 5


def refuse(status: int) -> Callable[[FakeRegistry], None]:
    def tell(registry: FakeRegistry) -> None:
        registry.faults["manifests"].extend([Fault(status=status)] * 3 * TRIES)

    return tell


def corrupt(registry: FakeRegistry) -> None:
    for digest in build_tool().layers:
        registry.faults[digest].extend([Fault(corrupt=True)] * TRIES)


def cut(registry: FakeRegistry) -> None:
    for digest in build_tool().layers:
        nothing_more = [Fault(cut_after=0)] * 5 * TRIES  # what gets further uses up no try
        registry.faults[digest].extend([Fault(cut_after=1000), *nothing_more])


def other_platform(registry: FakeRegistry) -> None:
    arm = build_image(platform={"os": "linux", "architecture": "arm64"})
    registry.add("tool", "1", build_index([arm]))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param(refuse(401), "authorization failed", id="401"),
        pytest.param(refuse(404), "not found", id="404"),
        pytest.param(refuse(500), "500", id="500"),
        pytest.param(corrupt, "digest", id="wrong digest"),
        pytest.param(cut, "failed to copy", id="half a layer then a reset"),
        pytest.param(
            other_platform,
            "does not contain descriptor matching platform 'linux/amd64'",
            id="another platform",
        ),
    ],
)
@pytest.mark.timeout(120)  # the agent tries again with pauses
async def test_task_that_cannot_be_pulled_is_stopped_with_the_reason(
    stack: Stack, registry: FakeRegistry, fault: Callable[[FakeRegistry], None], words: str
) -> None:
    fault(registry)
    arn = stack.run(tool("main", "exit 0"))

    task = await stack.wait_for(arn, "STOPPED")

    assert task["stopCode"] == "TaskFailedToStart"
    assert task["stoppedReason"].startswith("CannotPullContainerError: ")
    assert words in task["stoppedReason"]
    assert task["containers"][0]["reason"] == task["stoppedReason"]
    assert "exitCode" not in task["containers"][0]
    assert stack.leftovers(arn) == []


@pytest.mark.parametrize(
    ("container", "reason"),
    [
        pytest.param(
            {"command": ["/bin/nothing"]},
            r"Cannot(Start|Create)ContainerError: .*/bin/nothing.*no such file or directory",
            id="no such program",
        ),
        pytest.param(
            {"entryPoint": ["nothing"], "command": []},
            r"Cannot(Start|Create)ContainerError: .*nothing.*executable file not found in \$PATH",
            id="not in PATH",
        ),
        pytest.param(
            {"user": "nobody-here"},
            "CannotCreateContainerError: unable to find user nobody-here",
            id="unknown user",
        ),
    ],
)
async def test_container_that_cannot_start_stops_the_task_with_the_reason(
    stack: Stack, registry: FakeRegistry, container: dict[str, Any], reason: str
) -> None:
    arn = stack.run({**tool("main", "exit 0"), **container})

    task = await stack.wait_for(arn, "STOPPED")

    assert task["stopCode"] == "TaskFailedToStart"
    assert re.match(reason, task["stoppedReason"]), task["stoppedReason"]
    assert stack.leftovers(arn) == []


async def test_address_that_another_machine_has_stops_the_task(
    stack: Stack, registry: FakeRegistry
) -> None:
    first = stack.run(tool("main", "exit 0"))
    task = await stack.wait_for(first, "STOPPED")
    details = {d["name"]: d["value"] for d in task["attachments"][0]["details"]}
    taken = details["privateIPv4Address"]
    last = int(taken.rpartition(".")[2])
    for number in range(last, last + 4):  # whichever is given next
        run_ip("-n", stack.outside.name, "address", "add", f"{OUTSIDE}.{number}/24", "dev", "eth0")

    arn = stack.run(tool("main", "exit 0"))
    task = await stack.wait_for(arn, "STOPPED")

    assert task["stoppedReason"].startswith("ResourceInitializationError: ENI eni-")
    assert "already in use" in task["stoppedReason"]
    assert stack.leftovers(arn) == []


async def test_port_that_another_container_of_the_task_has_is_that_container_s_own_error(
    stack: Stack, registry: FakeRegistry
) -> None:
    arn = stack.run(
        tool("web", "exec httpd -f -p 8080 -h /www", essential=False),
        tool(
            "second",
            "until wget -q -O /dev/null http://127.0.0.1:8080/; do sleep 0.1; done;"
            "exec httpd -f -p 8080 -h /www",
        ),
    )

    task = await stack.wait_for(arn, "STOPPED")

    assert {c["name"]: c["exitCode"] for c in task["containers"]}["second"] == 1
    assert any("ddress already in use" in line for line in await stack.logs(arn))
    assert stack.leftovers(arn) == []


async def test_container_that_needs_too_much_memory_is_killed_and_says_so(
    stack: Stack, registry: FakeRegistry
) -> None:
    greedy = "x=0123456789abcdef; while :; do x=$x$x; done"
    arn = stack.run(tool("main", greedy, memory=8))

    task = await stack.wait_for(arn, "STOPPED")

    (container,) = task["containers"]
    assert container["exitCode"] == 137
    assert container["reason"] == "OutOfMemoryError: container killed due to memory usage"
    assert stack.leftovers(arn) == []


@pytest.mark.timeout(120)  # a second stack starts
async def test_logger_that_never_gets_ready_ends_the_task_and_not_the_agent(
    tmp_path_factory: pytest.TempPathFactory,
    private_containerd: PrivateContainerd,
    outside: Any,
    registry: FakeRegistry,
) -> None:
    root = tmp_path_factory.mktemp("stack")
    loggers = root / "loggers"
    loggers.mkdir()
    (loggers / "json-file").write_text("#!/bin/sh\nexec sleep 1000\n")
    (loggers / "json-file").chmod(0o755)
    settings = {
        "FARGATE_AGENT_SHIM_LOGGERS_DIR": str(loggers),
        "FARGATE_AGENT_CONTAINER_CREATE_TIMEOUT_S": "3",
    }

    async with make_stack(root, private_containerd, outside, **settings) as stack:
        arn = stack.run(tool("main", "exit 0"))
        task = await stack.wait_for(arn, "STOPPED")

        assert task["stoppedReason"].startswith(
            "ContainerRuntimeTimeoutError: Could not transition to created; timed out after"
        )
        assert stack.leftovers(arn) == []


def test_registry_address_is_free_for_the_tests(outside: Any) -> None:
    """The tests above depend on it."""
    with socket_in_netns(outside[0], socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((REGISTRY.partition(":")[0], 5000))


async def test_layer_is_fetched_once_when_two_tasks_want_it(
    stack: Stack, registry: FakeRegistry
) -> None:
    image = build_image([random_layer(2_000_000)])
    registry.add("big", "1", image)
    container = {"name": "main", "image": f"{REGISTRY}/big:1", "command": ["/none"]}

    for _ in range(2):
        arn = stack.run(container)
        await stack.wait_for(arn, "STOPPED")

    (layer,) = image.layers
    assert registry.sent[layer] == len(image.blobs[layer])
