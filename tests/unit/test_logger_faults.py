"""What a logger says when it can't work, read by the agent."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import ContainerPlan, plan_task
from fargate_agent.runtime.loggers import check_logger
from tests.messages import container_json, site, task_message


@pytest.fixture
def container(tmp_path: Path) -> ContainerPlan:
    task = plan_task(task_message(container_json("web")), site(tmp_path))
    task.containers[0].log_fault_path.parent.mkdir(parents=True)
    return task.containers[0]


def test_text_of_a_logger_is_the_reason(container: ContainerPlan) -> None:
    container.log_fault_path.write_text("no such host\n")

    with pytest.raises(ResourceInitializationError) as refused:
        check_logger(container)

    assert refused.value.detail == ("failed to validate logger args: no such host : exit status 1")


def test_the_reason_shows_no_paths_of_the_host(container: ContainerPlan) -> None:
    netns = "/run/netns/fargate-0123456789abcdef"
    container.log_fault_path.write_text(f"{container.log_path} is a link, can't enter {netns}")

    with pytest.raises(ResourceInitializationError) as refused:
        check_logger(container)

    assert refused.value.detail == (
        "failed to validate logger args: the task's logs/web.log is a link, "
        "can't enter the task's network namespace : exit status 1"
    )


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: None, id="nothing"),
        pytest.param(lambda path: path.symlink_to("/etc/passwd"), id="link"),
        pytest.param(Path.mkdir, id="directory"),
    ],
)
def test_what_is_no_file_is_no_reason(
    container: ContainerPlan, make: Callable[[Path], None]
) -> None:
    make(container.log_fault_path)

    check_logger(container)


def test_nobody_waits_for_a_pipe_in_place_of_a_file(container: ContainerPlan) -> None:
    os.mkfifo(container.log_fault_path)

    with pytest.raises(ResourceInitializationError):
        check_logger(container)
