"""What loggers tell of a container: its variables reach the destination, and no command line."""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.drivers import LogDriver, LoggerUser
from fargate_agent.logdriver.catalog import make_log_drivers
from fargate_agent.logdriver.logger import LoggerDriver
from fargate_agent.network.namespaces import inside
from fargate_agent.runtime.loggers import make_directories
from fargate_agent.settings import AgentSettings
from tests.fixtures.loggers import LOGGER
from tests.fixtures.machine import read_command_lines, wait_for
from tests.fixtures.runtime import Bench
from tests.fixtures.sinks import datagram_sink, stream_sink
from tests.integration.test_runtime_loggers import NOBODY

pytestmark = pytest.mark.root

DEADLINE_S = 15.0


def open_parents(directory: Path) -> None:
    """Let others than root reach the journal's socket of a test, as they reach the real one."""
    for parent in (directory, *directory.parents):
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)


Place = tuple[LogDriver, dict[str, str], Callable[[], bytes]]
"""A driver, its options, and what has arrived."""


@contextmanager
def gelf(bench: Bench, drivers: dict[str, LogDriver]) -> Iterator[Place]:
    with ExitStack() as stack:
        with inside(bench.netns):
            sink = stack.enter_context(stream_sink())
        options = {"gelf-address": f"tcp://127.0.0.1:{sink.port}"}
        yield drivers["gelf"], options, lambda: b"".join(sink.connections)


@contextmanager
def journald(bench: Bench, drivers: dict[str, LogDriver]) -> Iterator[Place]:
    place = bench.directory / "journal"
    with datagram_sink(place) as sink:
        place.chmod(0o777)
        driver = drivers["journald"]
        assert isinstance(driver, LoggerDriver)
        told = replace(driver, defaults={"journald-socket": str(place)})
        yield told, {}, lambda: b"".join(sink.messages)


@contextmanager
def json_file(bench: Bench, drivers: dict[str, LogDriver]) -> Iterator[Place]:
    yield (
        drivers["json-file"],
        {},
        lambda: b"".join(path.read_bytes() for path in bench.directory.glob("logs/*/*.log")),
    )


@pytest.mark.parametrize(
    "user", [pytest.param(None, id="root"), pytest.param(NOBODY, id="without-rights")]
)
@pytest.mark.parametrize(
    "options",
    [pytest.param({"env-regex": "^SHOWN"}, id="regex"), pytest.param({"env": "SHOWN"}, id="name")],
)
@pytest.mark.parametrize("destination", [gelf, journald, json_file])
async def test_chosen_variables_go_along_and_no_value_stands_on_a_command_line(
    bench: Bench, destination: Any, options: dict[str, str], user: LoggerUser | None
) -> None:
    shown, hidden = uuid.uuid4().hex, uuid.uuid4().hex
    settings = AgentSettings.model_validate({"shim_loggers_dir": LOGGER.parent})
    open_parents(bench.directory)
    with destination(bench, dict(make_log_drivers(settings, user))) as place:
        driver, address, read = place
        name = destination.__name__.replace("_", "-")
        task = bench.plan(
            {
                "command": ["sh", "-c", "echo hello; exec sleep 60"],
                "environment": {"SHOWN": shown, "PASSWORD": hidden},
                "logConfiguration": {"logDriver": name, "options": {**address, **options}},
                "stopTimeout": 0,
            }
        )
        (container,) = task.containers
        await bench.prepare(task)
        make_directories(task, user)

        uri = driver.uri(task, container)
        await bench.runtime.create(task, container, bench.image(), uri)
        await bench.runtime.start(task, container)
        wait_for(lambda: shown.encode() in read(), "the first line", DEADLINE_S)
        command_lines = read_command_lines()

        assert container.id.encode() in command_lines
        assert shown.encode() not in command_lines
        assert hidden.encode() not in command_lines + read()
        await bench.runtime.stop(container)
        await bench.release(task)
