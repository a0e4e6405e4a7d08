"""`fargate doctor`: what it says of each agent."""

from typing import Any

import pytest

from fargate_agent.cli.doctor.agents import render_agent

ID = "0123456789abcdef0123456789abcdef"
ARN = f"arn:aws:ecs:us-east-1:000000000000:container-instance/blue/{ID}"


def amount(name: str, value: int) -> dict[str, Any]:
    return {"name": name, "type": "INTEGER", "integerValue": value}


def serving(*names: str) -> dict[str, Any]:
    return {"name": "CLUSTERS", "type": "STRINGSET", "stringSetValue": list(names)}


def test_agent_says_whom_it_serves_and_what_is_free() -> None:
    agent = {
        "containerInstanceArn": ARN,
        "status": "ACTIVE",
        "agentConnected": True,
        "registeredResources": [amount("CPU", 4096), amount("MEMORY", 8192), serving("*")],
        "remainingResources": [amount("CPU", 3840), amount("MEMORY", 7680), serving("*")],
    }

    assert render_agent(agent) == (
        f"agent {ID} (connected); serves every cluster; 3840 of 4096 CPU units free, "
        "7680 of 8192 MiB of memory free"
    )


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        pytest.param([], "serves blue", id="an older one"),
        pytest.param([serving("blue", "red")], "serves blue, red", id="pinned"),
    ],
)
def test_agent_that_does_not_serve_every_cluster_names_those_it_does(
    resources: list[dict[str, Any]], said: str
) -> None:
    agent = {"containerInstanceArn": ARN, "status": "ACTIVE", "registeredResources": resources}

    assert render_agent(agent) == f"agent {ID} (not connected); {said}"


def test_agent_that_is_drained_says_so() -> None:
    agent = {"containerInstanceArn": ARN, "status": "DRAINING", "agentConnected": True}

    assert render_agent(agent) == (
        f"agent {ID} (connected, DRAINING: takes no new tasks); serves blue"
    )
