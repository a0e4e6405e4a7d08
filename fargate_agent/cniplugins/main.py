"""Finds a plugin by its name and runs it."""

import sys
from importlib import import_module
from typing import Final

from fargate_agent.cniplugins.program import run

PLUGINS: Final = (
    "aws-appmesh",
    "ecs-bridge",
    "ecs-eni",
    "ecs-ipam",
    "ecs-serviceconnect",
    "vpc-branch-eni",
    "vpc-eni",
)
"""Each is the constant PLUGIN of the module of its name."""


def main(name: str) -> None:
    """Run the plugin of that name, and end the process."""
    if name not in PLUGINS:
        sys.exit(f"{name}: call this by the name of a plugin: {', '.join(PLUGINS)}")
    run(import_module(f"fargate_agent.cniplugins.{name.replace('-', '_')}").PLUGIN)
