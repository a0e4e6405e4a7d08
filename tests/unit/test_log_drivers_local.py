"""The driver awslogs on a machine without AWS: the local copy stands for the log group."""

from pathlib import Path
from typing import Any

import pytest

from fargate_agent.drivers import LogDriver
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.logdriver.catalog import make_log_drivers
from fargate_agent.plan import TaskPlan, plan_task
from fargate_agent.runtime.logger_replacement import parse_log_uri
from fargate_agent.settings import AgentSettings
from tests.messages import TASK_ID, container_json, site, task_message

AWSLOGS = {"awslogs-group": "g", "awslogs-region": "eu-west-1", "awslogs-stream-prefix": "p"}


def make_driver(**settings: Any) -> LogDriver:
    made = AgentSettings.model_validate({"shim_loggers_dir": "/opt/loggers", **settings})
    return make_log_drivers(made, None)["awslogs"]


def plan(options: dict[str, str] = AWSLOGS) -> TaskPlan:
    log = {"logDriver": "awslogs", "options": options}
    return plan_task(task_message(container_json(logConfiguration=log)), site(Path("/srv")))


def argv(driver: LogDriver, task: TaskPlan) -> list[str]:
    uri = driver.uri(task, task.containers[0])
    assert uri is not None
    return parse_log_uri(uri)


@pytest.mark.parametrize("log_copy", [True, False])
def test_copy_is_kept_whatever_the_settings_say_of_copies(log_copy: bool) -> None:
    driver, real = make_driver(aws="local", log_copy=log_copy), make_driver(aws="real")

    program, *flags = argv(driver, plan())

    assert program == "/opt/loggers/json-file"
    assert flags[flags.index("--log-path") + 1] == f"/srv/logs/{TASK_ID}/web.log"
    assert not driver.needs_network
    attributes = [list(one.read_attributes("awslogs", Path("/"))) for one in (driver, real)]
    assert attributes[0] == attributes[1] != []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        pytest.param({"awslogs-region": "eu-west-1"}, "awslogs-group is required", id="missing"),
        pytest.param({**AWSLOGS, "x": "y"}, "unknown log opt 'x'", id="unknown"),
    ],
)
def test_what_is_refused_with_aws_is_refused_without(options: dict[str, str], text: str) -> None:
    task = plan(options)

    with pytest.raises(ResourceInitializationError, match=text):
        make_driver(aws="local").uri(task, task.containers[0])


def test_output_is_sent_where_the_settings_name_a_place_for_it() -> None:
    driver = make_driver(aws="local", awslogs_endpoint="http://logs.test")

    program, *flags = argv(driver, plan())

    assert program == "/opt/loggers/logger"
    assert flags[flags.index("--awslogs-endpoint") + 1] == "http://logs.test"
