"""The networks in cni/ are such that the plugins take them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from fargate_agent.cniplugins.aws_appmesh import read_mesh
from fargate_agent.cniplugins.branch_config import read_branch
from fargate_agent.cniplugins.ecs_bridge import read_bridge
from fargate_agent.cniplugins.fields import Fields
from fargate_agent.cniplugins.service_connect_config import read_service_connect
from fargate_agent.cniplugins.vpc_eni import read_vpc_eni

DIRECTORY: Final = Path(__file__).resolve().parents[2] / "cni"
READERS: Final[dict[str, Callable[[Fields], object]]] = {
    "aws-appmesh": read_mesh,
    "ecs-bridge": read_bridge,
    "ecs-serviceconnect": read_service_connect,
    "vpc-branch-eni": lambda config: read_branch(config, {}),
    "vpc-eni": read_vpc_eni,
}


@pytest.mark.parametrize("file", sorted(one.name for one in DIRECTORY.glob("*.conflist")))
def test_samples_are_taken(file: str) -> None:
    sample = json.loads((DIRECTORY / file).read_text())
    assert [READERS[one["type"]](Fields(one)) for one in sample["plugins"]]
