"""What the control plane answers when it says no: the exceptions of the ECS API.

Kinds and texts are AWS's where they are known, because clients compare them.
"""

from collections.abc import Sequence
from typing import Any


class ApiError(Exception):
    """A request is refused; `kind` is the name that AWS clients know the error by."""

    def __init__(self, kind: str, message: str, *, status: int = 400, **members: Any) -> None:  # noqa: ANN401 - members of an AWS error shape
        """Record what the client will read; `members` are those that the kind has beside it."""
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status
        self.members = members


def invalid_parameter(message: str) -> ApiError:
    """Return the error for a parameter that can't be used."""
    return ApiError("InvalidParameterException", message)


def client_error(message: str) -> ApiError:
    """Return the error for a request that makes no sense as things stand."""
    return ApiError("ClientException", message)


def unsupported(message: str) -> ApiError:
    """Return the error for what ECS can do and this control plane can't."""
    return ApiError("UnsupportedFeatureException", message)


def unsupported_members(names: Sequence[str]) -> ApiError:
    """Return the error for members of a request that aren't done here; it names all of them."""
    verb = "is" if len(names) == 1 else "are"
    return unsupported(f"{', '.join(names)} {verb} not supported.")


def cluster_not_found() -> ApiError:
    """Return the error for a cluster that doesn't exist."""
    return ApiError("ClusterNotFoundException", "Cluster not found.")


class StartError(Exception):
    """The control plane can't start; the text is one line that names the file or the key."""


class NotNowError(StartError):
    """It can't start now; that may go away by itself, so another try makes sense."""
