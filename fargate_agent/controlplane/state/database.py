"""URLs of databases, as SQLAlchemy writes them."""

from typing import Final

DRIVERS: Final = ("sqlite+aiosqlite", "postgresql+asyncpg")


def check_database(text: str) -> None:
    """Return if a database may be meant. Cheap: it is asked before anything is loaded.

    Raises:
        ValueError: it can't be; the text doesn't repeat it, because it may hold a password.
    """
    driver, _, rest = text.partition("://")
    if driver not in DRIVERS or not rest.rpartition("/")[2]:
        raise ValueError(
            f"must be {DRIVERS[0]}:///FILE or {DRIVERS[1]}://USER:PASSWORD@HOST:PORT/NAME"
        )
