"""The name servers that the metadata name: a container may have written anything there."""

import os
import tracemalloc
from pathlib import Path

import pytest

from fargate_agent.plan import TaskPlan, plan_task
from fargate_agent.runtime.spec import ETC_DIRECTORY
from fargate_agent.tmds.nameservers import read_nameservers
from tests.messages import site, task_message


@pytest.fixture
def task(tmp_path: Path) -> TaskPlan:
    return plan_task(task_message(), site(tmp_path))


def write(task: TaskPlan, content: bytes) -> Path:
    file = task.storage / ETC_DIRECTORY / "resolv.conf"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    return file


def test_servers_are_those_of_the_file_of_the_task(task: TaskPlan) -> None:
    write(task, b"nameserver 10.0.0.2\nnameserver 10.0.0.3\nsearch internal\n")

    assert read_nameservers(task) == ("10.0.0.2", "10.0.0.3")


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(b"\xff\xfe\n", id="no text"),
        pytest.param(b"".join(b"nameserver 10.0.1.%d\n" % n for n in range(250)), id="many"),
    ],
)
def test_nonsense_of_a_container_changes_little(task: TaskPlan, more: bytes) -> None:
    write(task, b"nameserver 10.0.0.2\n" * 3 + more)

    assert read_nameservers(task) == ("10.0.0.2",) * 3


def test_file_that_has_grown_is_not_read_to_its_end(task: TaskPlan) -> None:
    file = write(task, b"nameserver 10.0.0.2\n")
    os.truncate(file, 1 << 27)  # takes no space, but would take memory

    tracemalloc.start()
    try:
        assert read_nameservers(task) == ("10.0.0.2",)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes < 1 << 22
