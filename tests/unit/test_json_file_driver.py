import json
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.logdriver.jsonfile import JsonFileDriver
from fargate_agent.plan import TaskPlan, plan_task
from tests.messages import TASK_ID, container_json, site, task_message

DRIVER = JsonFileDriver(program=Path("/opt/far gate/json-file"), max_size="10m", max_file=2)


def plan_with_options(**options: str) -> TaskPlan:
    log = {"logDriver": "json-file", "options": options}
    message = task_message(container_json("web", logConfiguration=log))
    return plan_task(message, site(Path("/srv/a&b")))


def test_uri_names_the_program_and_one_flag_per_pair() -> None:
    task = plan_with_options()

    uri = urlsplit(DRIVER.uri(task, task.containers[0]))

    assert (uri.scheme, uri.netloc, uri.path) == ("binary", "", "/opt/far%20gate/json-file")
    assert dict(parse_qsl(uri.query)) == {
        "--log-path": f"/srv/a&b/logs/{TASK_ID}/web.log",
        "--fault-path": str(task.containers[0].log_fault_path),
        "--container-id": task.containers[0].id,
        "--container-name": "web",
        "--container-image-name": task.containers[0].image,
        "--max-size": "10m",
        "--max-file": "2",
    }


def test_options_of_the_task_definition_win() -> None:
    task = plan_with_options(**{"max-size": "1.5 KB", "max-file": "7"})

    flags = dict(parse_qsl(urlsplit(DRIVER.uri(task, task.containers[0])).query))

    assert (flags["--max-size"], flags["--max-file"]) == ("1.5 KB", "7")


def test_logger_is_told_of_the_container_what_the_options_choose_and_no_more() -> None:
    options = {"tag": "{{.Name}}", "env": "STAGE", "labels": "team", "compress": "true"}
    log = {"logDriver": "json-file", "options": options}
    message = task_message(
        container_json(
            "web",
            logConfiguration=log,
            environment={"STAGE": "not-told", "OTHER": "not-told"},
            dockerLabels={"team": "blue", "other": "not-told"},
        )
    )
    task = plan_task(message, site(Path("/srv")))

    uri = DRIVER.uri(task, task.containers[0])

    flags = dict(parse_qsl(urlsplit(uri).query))
    assert "not-told" not in uri
    assert flags["--json-file-tag"] == "{{.Name}}"
    assert flags["--json-file-env"] == "STAGE"
    assert flags["--json-file-labels"] == "team"
    assert flags["--compress"] == "true"
    assert json.loads(flags["--container-env-names"]) == ["STAGE"]
    assert json.loads(flags["--container-labels"]) == {"team": "blue"}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        pytest.param(
            {"what": "x"}, "unknown log opt 'what' for json-file log driver", id="unknown-option"
        ),
        pytest.param(
            {"compress": "very"},
            'strconv.ParseBool: parsing "very": invalid syntax',
            id="compress-is-no-boolean",
        ),
        pytest.param({"max-size": "ten"}, "invalid size: 'ten'", id="size-is-no-number"),
        pytest.param({"max-size": "0k"}, "invalid size: '0k'", id="size-is-zero"),
        pytest.param({"max-size": "-1"}, "invalid size: '-1'", id="size-is-negative"),
        pytest.param(
            {"max-file": "0"}, "max-file must be a number from 1 to 9999, not '0'", id="no-file"
        ),
    ],
)
def test_wrong_option_is_refused_before_anything_starts(
    options: dict[str, str], reason: str
) -> None:
    task = plan_with_options(**options)

    with pytest.raises(ResourceInitializationError) as refused:
        DRIVER.uri(task, task.containers[0])

    assert refused.value.detail == f"failed to initialize logging driver: {reason}"
    assert refused.value.container == "web"
