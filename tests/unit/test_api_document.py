"""docs/api.md says of each operation of ECS whether it is here, and the dispatch table agrees."""

import re
from pathlib import Path

import pytest

from fargate_agent.controlplane.agents.fleet import refuse
from fargate_agent.controlplane.api import OPERATIONS
from fargate_agent.controlplane.cloudmap.operations import OPERATIONS as CLOUD_MAP
from fargate_agent.controlplane.tasks.running import start_task
from fargate_agent.controlplane.validate import service_model

ALWAYS_REFUSED = {refuse, start_task}
"""In the dispatch table, so that who has no permission is told that first."""


@pytest.fixture(scope="module")
def document() -> str:
    return (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def test_tables_have_the_operations_that_are_served(document: str) -> None:
    of_ecs = document.partition("## Cloud Map\n")[0]
    rows = re.findall(r"^\| ([A-Za-z]+) \| (?:supported|partly) \|", of_ecs, re.MULTILINE)

    served = {name for name, operation in OPERATIONS.items() if operation not in ALWAYS_REFUSED}
    assert sorted(rows) == sorted(served)


def test_section_of_cloud_map_names_what_is_served(document: str) -> None:
    section = document.partition("## Cloud Map\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([A-Za-z, ]+) \| (?:supported|partly) \|", section, re.MULTILINE)

    listed = [name for row in rows for name in row.split(", ")]
    assert sorted(listed) == sorted(CLOUD_MAP)


def test_what_is_partly_there_says_what_is_missing(document: str) -> None:
    assert re.findall(r"^\| ([A-Za-z]+) \| partly \| +\|", document, re.MULTILINE) == []


def test_all_other_operations_of_ecs_are_listed_as_refused(document: str) -> None:
    refused = document.partition("### Refused\n")[2].partition("\n## ")[0]
    items = [item.partition(": ")[2] for item in refused.split("\n- ")[1:]]
    listed = [
        name for item in items for name in re.findall(r"[A-Z][A-Za-z]+", item.split("\n\n")[0])
    ]

    served = {name for name, operation in OPERATIONS.items() if operation not in ALWAYS_REFUSED}
    assert sorted(listed) == sorted(set(service_model().operation_names) - served)
