"""An option is one row of `wire/log_options.py`, which all who know options have it from."""

import re
from itertools import chain
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import pytest

import json_file
import logger
from docs import log_options as pages
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.rules.definition import check_definition
from fargate_agent.controlplane.rules.draft import Draft
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.wire.log_options import COMMON_OPTIONS, DRIVER_OPTIONS, LogOption
from reading import known_flags
from tests.unit.test_log_drivers import REQUIRED, make_drivers, plan_log
from tests.unit.test_rules_texts import ACCOUNT, ROLE, definition, sidecar

VALUES: Final = {
    "mode": "blocking",
    "max-buffer-size": "2m",
    "max-size": "2m",
    "max-file": "3",
    "compress": "true",
    "log-driver-buffer-limit": "20000000",
}
"""Of options whose values have to make sense before a logger reads them."""
NEEDED: Final = {**REQUIRED, "awsfirelens": {"Name": "stdout"}}
ROUTED: Final = "awsfirelens"
"""Its options are those of a router, so any are taken; see test_firelens.py."""

ROWS: Final = [
    pytest.param(driver, option, id=f"{driver}-{option.name}")
    for driver, known in DRIVER_OPTIONS.items()
    for option in (*COMMON_OPTIONS, *known.options)
]
OWN_ROWS: Final = [row for row in ROWS if row.values[0] != ROUTED]


def with_option(driver: str, name: str) -> dict[str, str]:
    return {**NEEDED.get(driver, {}), name: VALUES.get(name, "/x")}


def register(driver: str, options: dict[str, str], **changes: Any) -> None:
    router = {"firelensConfiguration": {"type": "fluentbit"}} if driver == ROUTED else {}
    log = {"logConfiguration": {"logDriver": driver, "options": options}}
    check_definition(
        Draft(definition(executionRoleArn=ROLE, **sidecar(log, **router), **changes), ACCOUNT)
    )


def run(driver: str, options: dict[str, str]) -> dict[str, str]:
    """Return the flags that the agent gives a logger."""
    task = plan_log(driver, options)
    uri = make_drivers(log_host_paths="/x")[driver].uri(task, task.containers[0])
    return {name.removeprefix("--"): value for name, value in parse_qsl(urlsplit(uri or "").query)}


def check_flags(driver: str, flags: dict[str, str]) -> None:
    """Do what the logger does before anything else."""
    if driver == "json-file":
        json_file.check_names(flags)
    else:
        logger.check_names(flags, driver)


@pytest.mark.parametrize(("driver", "option"), ROWS)
def test_option_is_registered(driver: str, option: LogOption) -> None:
    register(driver, with_option(driver, option.name), requiresCompatibilities=None)


@pytest.mark.parametrize(("driver", "option"), ROWS)
def test_option_is_registered_for_fargate_if_fargate_has_it(driver: str, option: LogOption) -> None:
    options = with_option(driver, option.name)

    if option.on_fargate and DRIVER_OPTIONS[driver].on_fargate:
        register(driver, options)
    else:
        with pytest.raises(ApiError):
            register(driver, options)


@pytest.mark.parametrize(("driver", "option"), OWN_ROWS)
def test_option_arrives_as_a_flag_that_the_logger_knows(driver: str, option: LogOption) -> None:
    options = with_option(driver, option.name)

    flags = run(driver, options)

    check_flags(driver, flags)
    arrives = option.flag_name is not None and not option.secret
    if driver == "json-file" and option in COMMON_OPTIONS:
        arrives = False  # nothing keeps it waiting
    found = {name for name, value in flags.items() if value == options[option.name]}
    assert (option.flag_name in found) == arrives


@pytest.mark.parametrize(("driver", "option"), ROWS)
def test_option_stands_in_the_document(driver: str, option: LogOption) -> None:
    heading = "Options of every driver" if option in COMMON_OPTIONS else driver
    section = re.search(
        rf"^## {heading}\n(.*?)^## ", pages.PAGE.read_text(), re.DOTALL | re.MULTILINE
    )

    assert section is not None
    assert re.search(rf"^\| (?:.*, )?`{option.name}`", section[1], re.MULTILINE)


@pytest.mark.parametrize("driver", DRIVER_OPTIONS)
def test_option_that_is_in_no_row_is_refused(driver: str) -> None:
    if driver == "awslogs":  # of which ECS names all options
        with pytest.raises(ApiError, match="disallows options: x"):
            register(driver, with_option(driver, "x"), requiresCompatibilities=None)
    if driver == ROUTED:
        return
    with pytest.raises(ResourceInitializationError, match="unknown log opt 'x'"):
        run(driver, with_option(driver, "x"))
    with pytest.raises(ValueError, match="unknown flag: --x"):
        check_flags(driver, {"x": "y"})


def test_every_flag_that_loggers_know_is_named_where_it_is_read() -> None:
    loggers = Path(known_flags.__file__).parents[1]
    modules = [
        path for path in loggers.rglob("*") if path.suffix == ".py" or path.parent == loggers
    ]
    text = "".join(
        path.read_text(encoding="utf-8")
        for path in modules
        if path.is_file() and path.name != "known_flags.py"
    )

    known = {
        *known_flags.LOGGER,
        *known_flags.JSON_FILE,
        *chain(*known_flags.DESTINATIONS.values()),
    }
    unread = {
        flag
        for flag in known
        if f'"{flag}"' not in text
        # those of a kind are read in a loop, without their prefix
        and f'"{flag.removeprefix("splunk-").removeprefix("json-file-")}"' not in text
    }
    assert unread == set()
