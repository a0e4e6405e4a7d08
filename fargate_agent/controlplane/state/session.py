"""One transaction as its user sees it: an ORM session, each call of which is done elsewhere.

SQLite's calls block, so a thread does them; those of PostgreSQL wait for the network. Rows are
complete when a call returns, and stay readable when the transaction has ended.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Protocol, TypeVar, TypeVarTuple, overload

from sqlalchemy import Connection, CursorResult, Executable, Result, ScalarResult, UpdateBase, orm
from sqlalchemy.sql.selectable import TypedReturnsRows

Row = TypeVar("Row")
Columns = TypeVarTuple("Columns")
Entity = TypeVar("Entity")
Run = Callable[..., Awaitable[Any]]
"""Calls a function with its arguments where it may block, and returns what it returns."""

_COMPLETE: Final = {"prebuffer_rows": True}
"""Rows are read where the statement is done. Source: SQLAlchemy, AsyncSession.execute."""


class Session:
    """A transaction on a connection of its own; used by one job at a time."""

    def __init__(
        self, session: orm.Session, run: Run, release: Callable[[], Awaitable[None]]
    ) -> None:
        """`run` does the calls of the session; `release` gives the connection back."""
        self._session = session
        self._run = run
        self._release = release
        self.info = session.info

    def add(self, row: object) -> None:
        """Have a row written by the next statement, or at the end."""
        self._session.add(row)

    def add_all(self, rows: Iterable[object]) -> None:
        """Have rows written as `add` does."""
        self._session.add_all(rows)

    def expunge_all(self) -> None:
        """Forget all rows; what was changed of them and isn't flushed is lost."""
        self._session.expunge_all()

    @overload
    async def execute(
        self, statement: UpdateBase, parameters: object = None
    ) -> CursorResult[*tuple[Any, ...]]: ...

    @overload
    async def execute(
        self, statement: TypedReturnsRows[*Columns], parameters: object = None
    ) -> Result[*Columns]: ...

    async def execute(self, statement: Executable, parameters: object = None) -> Any:
        """Do a statement; its rows are complete."""
        return await self._run(
            self._session.execute, statement, parameters, execution_options=_COMPLETE
        )

    async def scalars(self, statement: TypedReturnsRows[Row]) -> ScalarResult[Row]:
        """Return the only column of what a statement selects."""
        return (await self.execute(statement)).scalars()

    async def scalar(self, statement: TypedReturnsRows[Row]) -> Row | None:
        """Return the first row's only column; None if there is no row."""
        found: Row | None = await self._run(self._session.scalar, statement)
        return found

    async def get(self, entity: type[Entity], key: object) -> Entity | None:
        """Return the row with a primary key; None if there is none."""
        found: Entity | None = await self._run(self._session.get, entity, key)
        return found

    async def get_one(self, entity: type[Entity], key: object) -> Entity:
        """Return the row with a primary key, which is there.

        Raises:
            NoResultFound: it isn't.
        """
        found: Entity = await self._run(self._session.get_one, entity, key)
        return found

    async def merge(self, row: Entity) -> Entity:
        """Have a row as this one is, whether it was there or not."""
        merged: Entity = await self._run(self._session.merge, row)
        return merged

    async def delete(self, row: object) -> None:
        """Have a row deleted by the next statement, or at the end."""
        await self._run(self._session.delete, row)

    async def flush(self) -> None:
        """Write what was added or changed, as far as this transaction sees it."""
        await self._run(self._session.flush)

    async def commit(self) -> None:
        """Write everything; it is on disk when this returns."""
        await self._run(self._session.commit)

    async def close(self) -> None:
        """Undo what isn't committed, and give the connection back."""
        try:
            await self._run(self._session.close)
        finally:
            await self._release()

    async def with_connection(self, work: Callable[[Connection], Row]) -> Row:
        """Return what `work` returns, to which the connection is given."""

        def do() -> Row:
            return work(self._session.connection())

        done: Row = await self._run(do)
        return done


class Connections(Protocol):
    """Where transactions get their connections from."""

    async def connect(self) -> Session:
        """Return a session, which begins with its first statement.

        Raises:
            SQLAlchemyError: the database can't be reached.
            OSError: the same.
        """
        ...

    async def begin(self, work: Callable[[Connection], None]) -> None:
        """Do work in one transaction, before anybody else."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...
