"""URLs of databases, as SQLAlchemy writes them."""

import inspect
from typing import Final

DRIVERS: Final = ("sqlite", "postgresql+asyncpg")
_OLD_DRIVER: Final = "sqlite+aiosqlite"
"""Stands in settings files of before; means SQLite."""
MAX_PORT: Final = 65535

SQLALCHEMY_OPTION: Final = "prepared_statement_cache_size"
"""Its own one of a URL; the others are those of asyncpg."""

_WRITTEN: Final = f"{DRIVERS[0]}:///FILE or {DRIVERS[1]}://USER:PASSWORD@HOST:PORT/NAME"


def check_database(text: str) -> None:
    """Return if a database may be meant.

    Raises:
        ValueError: it can't be; the text doesn't repeat it, because it may hold a password.
    """
    text = rename_driver(text)
    driver, _, rest = text.partition("://")
    if driver not in DRIVERS or not rest.rpartition("/")[2]:
        raise ValueError(f"must be {_WRITTEN}")
    _check_arguments(text)


def rename_driver(text: str) -> str:
    """Return a URL by the names that drivers have now."""
    driver, separator, rest = text.partition("://")
    return f"{DRIVERS[0] if driver == _OLD_DRIVER else driver}{separator}{rest}"


def _check_arguments(text: str) -> None:
    """Return if SQLAlchemy finds in it what a connection is made of."""
    # many modules, which settings without a database don't need
    import asyncpg
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
        _, options = url.get_dialect()().create_connect_args(url)
        (url.host or "").encode("idna")
    except (ArgumentError, ValueError):
        raise ValueError(f"must be {_WRITTEN}") from None
    if url.port is not None and not 0 < url.port <= MAX_PORT:
        raise ValueError(f"the port must be between 1 and {MAX_PORT}")
    if url.get_backend_name() == "postgresql":
        known = {*inspect.signature(asyncpg.connect).parameters, SQLALCHEMY_OPTION}
        if not options.keys() <= known:
            raise ValueError("has an option that asyncpg doesn't know; TLS is asked for by ssl=…")
