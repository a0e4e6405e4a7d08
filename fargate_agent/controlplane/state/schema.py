"""The tables of the database, brought up to date by Alembic's migrations."""

import logging
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

from fargate_agent.controlplane.errors import StartError

NEWEST: Final = "0007"
"""The migration that `model` stands for."""
_FIRST: Final = "0001"

_MIGRATIONS: Final = Path(__file__).with_name("migrations")


def ensure_schema(connection: Connection) -> None:
    """Make or change the tables, inside the caller's transaction.

    Raises:
        StartError: the database was made by a later version of this program.
    """
    version = _read_version(connection)
    if version != NEWEST:
        _upgrade(connection, version)


def _read_version(connection: Connection) -> str | None:
    tables = inspect(connection).get_table_names()
    if "alembic_version" in tables:
        found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return found
    return _FIRST if "tasks" in tables else None  # the first version kept its number elsewhere


def _upgrade(connection: Connection, version: str | None) -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # only here: a start that has nothing to migrate doesn't pay for it
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    try:
        ScriptDirectory.from_config(config).get_revision(version or NEWEST)
    except CommandError:
        raise StartError(
            f"schema version {version}, this program knows only up to {NEWEST}"
        ) from None
    if version == _FIRST:
        command.stamp(config, _FIRST)
    command.upgrade(config, "head")
