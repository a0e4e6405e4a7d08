"""What lines of the agent's log say of the task and the container that they are about."""

import asyncio
import logging

from fargate_agent import log as agent_log
from fargate_agent.task.life import current_container
from fargate_agent.task.runner import current_task

ID = "0123456789abcdef0123456789abcdef"


def fields(**more: str) -> dict[str, str]:
    """The journal's fields of a line that is written here and now."""
    record = logging.makeLogRecord({"msg": "it ended", **more})
    return agent_log._journal_fields(record)


async def test_line_has_the_task_and_the_container_of_its_coroutine() -> None:
    async def live(container: str) -> dict[str, str]:
        current_container.set(container)
        await asyncio.sleep(0)
        return fields()

    current_task.set(ID)
    async with asyncio.TaskGroup() as lives:
        web, client = (lives.create_task(live(name)) for name in ("web", "client"))

    assert web.result() == {"FARGATE_TASK": ID, "FARGATE_CONTAINER": "web"}
    assert client.result() == {"FARGATE_TASK": ID, "FARGATE_CONTAINER": "client"}


def test_line_may_name_what_its_coroutine_does_not() -> None:
    assert fields(task=ID, container="web") == {"FARGATE_TASK": ID, "FARGATE_CONTAINER": "web"}


def test_line_about_no_task_has_empty_fields() -> None:
    assert fields() == {"FARGATE_TASK": "", "FARGATE_CONTAINER": ""}
