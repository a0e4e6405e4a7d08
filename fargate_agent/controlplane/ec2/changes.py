"""What the calls that change something have in common: errors, ids, who may be deleted."""

import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.validate import Json

Change = Callable[[Plane, Session, Json], Awaitable[Json]]
"""Does what a request asks for, in a transaction that is undone if it raises."""

DONE: Final[Json] = {"Return": True}

Row = TypeVar("Row")

_DIGITS: Final = 17


def new_resource_id(kind: str) -> str:
    """Make the id of something of EC2: 17 hex digits behind its kind."""
    return f"{kind}-{secrets.token_hex(9)[:_DIGITS]}"


def check_id(text: str, kind: str, code: str) -> None:
    """Return if an id is one of a kind.

    Raises:
        ApiError: it is none; `code` is what EC2 calls that.
    """
    if re.fullmatch(rf"{kind}-[a-z0-9-]{{1,64}}", text) is None:
        raise ApiError(code, f'Invalid id: "{text[:64]}" (expecting "{kind}-...")')


def invalid_value(text: str) -> ApiError:
    """Say that a value can't be."""
    return ApiError("InvalidParameterValue", text)


def missing(name: str) -> ApiError:
    """Say that a parameter isn't there."""
    return ApiError("MissingParameter", f"The request must contain the parameter {name}")


def unsupported_here(what: str) -> ApiError:
    """Say that something of EC2 isn't done here."""
    return ApiError("UnsupportedOperation", f"{what} is not supported here.")


def has_dependencies(what: str, id_: str) -> ApiError:
    """Say that something can't be deleted because something else needs it."""
    return ApiError(
        "DependencyViolation", f"The {what} '{id_}' has dependencies and cannot be deleted."
    )


def of_settings(what: str, id_: str) -> ApiError:
    """Say that something can be deleted in the settings only."""
    return ApiError(
        "OperationNotPermitted",
        f"The {what} '{id_}' is one of the settings of the control plane and is changed there.",
    )


async def find(session: Session, table: type[Row], id_: str, code: str, what: str) -> Row:
    """Return the row of something.

    Raises:
        ApiError: it isn't there; `code` is what EC2 calls that.
    """
    row = await session.get(table, id_)
    if row is None:
        raise ApiError(code, f"The {what} '{id_[:128]}' does not exist")
    return row


def value_of(request: Json, member: str) -> Any:  # noqa: ANN401 - a boolean or a text
    """Return what a member of the kind `{Value: …}` says; None if it isn't there."""
    return request.get(member, {}).get("Value")
