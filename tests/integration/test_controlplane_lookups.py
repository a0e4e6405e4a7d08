"""What tasks are looked up by: it must cost the same however many are stored."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, select
from sqlalchemy.engine import make_url

from fargate_agent.controlplane.state.announcements import Announcements
from fargate_agent.controlplane.state.model import LIVE, Base, Task
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.state.store import open_store
from fargate_agent.controlplane.tasks.queries import find_tasks


@pytest.fixture
async def session(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Session]:
    """A view of a database of SQLite's, which says by which index it finds something."""
    path = tmp_path / "state.db"
    shutil.copy2(sqlite_template, path)
    url = make_url(f"sqlite:///{path}")
    async with open_store(url, Announcements()) as store, store.read() as view:
        yield view


async def test_tasks_are_found_by_their_ids_and_not_by_their_cluster(session: Session) -> None:
    asked: list[tuple[str, Any]] = []

    def note(
        _: Connection, _cursor: object, statement: str, values: object, *_more: object
    ) -> None:
        asked.append((statement, values))

    def begin_noting(connection: Connection) -> None:
        event.listen(connection, "before_cursor_execute", note)

    def end_noting(connection: Connection) -> None:
        event.remove(connection, "before_cursor_execute", note)

    await session.with_connection(begin_noting)
    await find_tasks(session, "default", ["0" * 32, "1" * 32])
    await session.with_connection(end_noting)

    ((statement, values),) = asked

    def explain(connection: Connection) -> list[Any]:
        return list(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values))

    steps = await session.with_connection(explain)
    assert all(step[-1].endswith(("(id=?)", "(task_id=?)")) for step in steps)


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_live_tasks_are_selected_in_the_words_of_their_index(dialect: str) -> None:
    (index,) = (i for i in Base.metadata.tables["tasks"].indexes if i.name == "tasks_live")

    query = str(select(Task.id).where(LIVE))

    assert query.endswith(f"WHERE tasks.{index.dialect_options[dialect]['where']}")
