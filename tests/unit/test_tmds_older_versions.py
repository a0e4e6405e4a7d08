"""Versions 2 and 3 of what tasks are told about themselves."""

import json
from typing import Any

from fargate_agent.plan import TaskPlan
from fargate_agent.task.status import TaskFacts
from fargate_agent.tmds.metadata import Tags, describe_container_v2, describe_task_v2
from tests.messages import CLUSTER_ARN, TASK_ARN
from tests.unit.test_tmds_metadata import View, container_golden, dump, plan, running


def v2_golden(task: TaskPlan) -> dict[str, Any]:
    golden = container_golden(task)
    left_out = {"LogDriver", "ContainerARN", "Networks", "Snapshotter"}
    networks = [{"NetworkMode": "awsvpc", "IPv4Addresses": ["10.213.0.5"]}]
    kept = {name: value for name, value in golden.items() if name not in left_out}
    return {**kept, "Networks": networks}


def test_versions_2_and_3_describe_what_they_did_in_their_order() -> None:
    task = plan(zone="us-east-1a", group="service:shop")

    container = describe_container_v2(running(task), task.containers[0]).to_json()
    whole = describe_task_v2(running(task), Tags({"team": "blue"})).to_json()

    assert container.decode() == dump(v2_golden(task))
    assert whole.decode() == dump(
        {
            "Cluster": CLUSTER_ARN,
            "TaskARN": TASK_ARN,
            "Family": "demo",
            "Revision": "7",
            "DesiredStatus": "RUNNING",
            "KnownStatus": "RUNNING",
            "Containers": [v2_golden(task)],
            "Limits": {"CPU": 0.25, "Memory": 512},
            "PullStartedAt": "2026-01-05T10:00:02.31Z",
            "PullStoppedAt": "2026-01-05T10:00:06Z",
            "AvailabilityZone": "us-east-1a",
            "TaskTags": {"team": "blue"},
        }
    )


def test_versions_2_and_3_list_containers_that_were_created() -> None:
    assert "Containers" not in json.loads(describe_task_v2(View(plan(), TaskFacts())).to_json())
