"""Paths in containers, as a task definition names them for mounts."""

import posixpath


def normalize_path(path: str) -> str:
    """Return a path in a container as an absolute one that leads nowhere else.

    Example:
        >>> normalize_path("data//../var/lib/")
        '/var/lib'
    """
    return posixpath.normpath(f"/{path.lstrip('/')}")


def find_path_fault(path: str) -> str | None:
    """Return why nothing can be mounted at a path, in words that follow it; None if it can.

    Example:
        >>> find_path_fault("data")
        'is not absolute'
    """
    if not path.startswith("/"):
        return "is not absolute"
    if ".." in path.split("/"):
        return "has a part '..'"
    if "\0" in path:
        return "has a NUL"
    if normalize_path(path) == "/":
        return "is the root directory"
    return None
