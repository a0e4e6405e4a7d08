"""Programs that others wrote find in a task what they find on Fargate.

They run inside containers of one task, all at once, and each prints what it found.
"""

import asyncio
import re
from datetime import datetime
from typing import Any, Final

import pytest

from tests.fixtures.aws import REGION
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.stack import bind_outside, make_outside, make_stack
from tests.third_party.images import JAVASCRIPT, add_images, javascript, python
from tests.third_party.told import Told, run_all

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(120)]  # all in the first one

ACCOUNT: Final = "000000000000"
"""Of a control plane that was given none."""
PROGRAMS: Final = [
    python("opentelemetry-python", "opentelemetry_ecs.py"),
    python("xray-python", "xray.py"),
    python("exporter", "exporter.py", PATIENCE_S="30"),
    javascript("opentelemetry-javascript", "opentelemetry_ecs.mjs"),
    javascript("xray-javascript", "xray.mjs"),
    javascript("embedded-metrics", "embedded_metrics.mjs"),
]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, private_containerd: PrivateContainerd) -> Told:
    """What the programs said, and the task that they ran in."""
    root = tmp_path_factory.mktemp("third-party")

    async def run() -> Told:
        with make_outside() as outside:
            registry = FakeRegistry()
            add_images(registry)
            async with (
                registry.serve(bind_outside(outside[0], 5000)),
                make_stack(root, private_containerd, outside) as stack,
            ):
                return await run_all(stack, PROGRAMS)

    return asyncio.run(run())


def container_of(told: Told, name: str) -> dict[str, Any]:
    """Return what the API says of a container."""
    return next(dict(one) for one in told.task["containers"] if one["name"] == name)


def expected_of_opentelemetry(told: Told, name: str) -> dict[str, str]:
    """Return the attributes that detectors of every language have in common."""
    family, _, revision = told.task["taskDefinitionArn"].rpartition("/")[2].partition(":")
    return {
        "cloud.provider": "aws",
        "cloud.platform": "aws_ecs",
        "container.name": told.hostname,
        "aws.ecs.container.arn": container_of(told, name)["containerArn"],
        "aws.ecs.cluster.arn": told.task["clusterArn"],
        "aws.ecs.launchtype": "fargate",
        "aws.ecs.task.arn": told.task["taskArn"],
        "aws.ecs.task.family": family,
        "aws.ecs.task.revision": revision,
    }


def test_opentelemetry_of_python_knows_the_task(told: Told) -> None:
    name = "opentelemetry-python"

    found = told.read(name)

    # The last 64 characters of a line of /proc/self/cgroup, which are more than Fargate's ids have.
    assert found.pop("container.id").endswith(f"/{container_of(told, name)['runtimeId']}")
    assert found == expected_of_opentelemetry(told, name)


def test_opentelemetry_of_javascript_knows_the_task(told: Told) -> None:
    name = "opentelemetry-javascript"
    container = container_of(told, name)

    found = told.read(name)

    assert found == {
        **expected_of_opentelemetry(told, name),
        "container.id": container["runtimeId"],
        "cloud.account.id": ACCOUNT,
        "cloud.region": REGION,
        "cloud.resource_id": container["containerArn"],
        "cloud.availability_zone": told.task["availabilityZone"],
    }


def test_xray_of_python_writes_the_container_into_segments(told: Told) -> None:
    found = told.read("xray-python")

    assert found["origin"] == "AWS::ECS::Container"
    assert found["aws"]["ecs"] == {"container": told.hostname}


def test_xray_of_javascript_writes_the_container_into_segments(told: Told) -> None:
    found = told.read("xray-javascript")

    assert found == {
        "origin": "AWS::ECS::Container",
        "aws": {"ecs": {"container": told.hostname}},
    }


def test_embedded_metrics_carry_what_version_3_says(told: Told) -> None:
    container = container_of(told, "embedded-metrics")

    found = told.read("embedded-metrics")

    image = JAVASCRIPT.rpartition("/")[2]
    assert found["_aws"]["LogGroupName"] == image
    assert found["_aws"]["CloudWatchMetrics"][0]["Metrics"][0]["Name"] == "latency"
    assert {name: found[name] for name in ("containerId", "image", "cluster", "taskArn")} == {
        "containerId": told.hostname,
        "image": container["image"],
        "cluster": told.task["clusterArn"],
        "taskArn": told.task["taskArn"],
    }
    assert (found["ServiceName"], found["ServiceType"]) == (image, "AWS::ECS::Container")
    assert all(datetime.fromisoformat(found[name]) for name in ("createdAt", "startedAt"))


def test_exporter_tells_prometheus_what_version_3_says(told: Told) -> None:
    text = told.read("exporter")

    found = {
        (name, container): float(value)
        for name, container, value in re.findall(
            r'^(ecs_task_\w+)\{container_name="(\w+)"\} (\S+)$', text, re.MULTILINE
        )
    }
    assert "ecs_task_exporter_status 1.0" in text
    assert found["ecs_task_cpu_limit", "_task_"] == 1024
    assert found["ecs_task_mem_limit", "_task_"] == 2048
    assert 0 < found["ecs_task_mem_usage", "exporter"] < 2048 * 2**20
    assert 0 < found["ecs_task_cpu_usage_ratio", "_task_"] <= 2  # of one processor
    assert found["ecs_task_network_tx_bytes_total", "exporter"] > 0
