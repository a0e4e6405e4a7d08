"""What tasks are looked up by: it must cost the same however many are stored."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, select
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession

from fargate_agent.controlplane.state.announcements import Announcements
from fargate_agent.controlplane.state.model import LIVE, Base, Task
from fargate_agent.controlplane.state.store import open_store
from fargate_agent.controlplane.tasks.queries import find_tasks


@pytest.fixture
async def session(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[AsyncSession]:
    """A view of a database of SQLite's, which says by which index it finds something."""
    path = tmp_path / "state.db"
    shutil.copy2(sqlite_template, path)
    url = make_url(f"sqlite+aiosqlite:///{path}")
    async with open_store(url, Announcements()) as store, store.read() as view:
        yield view


async def test_tasks_are_found_by_their_ids_and_not_by_their_cluster(session: AsyncSession) -> None:
    connection = await session.connection()
    asked: list[tuple[str, Any]] = []

    def note(
        _: Connection, _cursor: object, statement: str, values: object, *_more: object
    ) -> None:
        asked.append((statement, values))

    event.listen(connection.sync_connection, "before_cursor_execute", note)
    await find_tasks(session, "default", ["0" * 32, "1" * 32])
    event.remove(connection.sync_connection, "before_cursor_execute", note)

    ((statement, values),) = asked
    steps = (await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)).all()
    assert all(step[-1].endswith(("(id=?)", "(task_id=?)")) for step in steps)


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_live_tasks_are_selected_in_the_words_of_their_index(dialect: str) -> None:
    (index,) = (i for i in Base.metadata.tables["tasks"].indexes if i.name == "tasks_live")

    query = str(select(Task.id).where(LIVE))

    assert query.endswith(f"WHERE tasks.{index.dialect_options[dialect]['where']}")
