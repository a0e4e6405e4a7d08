"""Secrets that a container has in another form than a variable each; pure.

Fargate has no such thing: see docs/beyond-fargate.md.
"""

import json
from collections.abc import Mapping
from dataclasses import replace

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import ContainerPlan


def add_files(container: ContainerPlan, values: Mapping[str, str]) -> ContainerPlan:
    """Return the container with what is in its files; `values` are by what refers to them."""
    contents = {
        file.destination: values[file.reference].encode(errors="surrogateescape")
        for file in container.files
        if file.reference is not None
    }
    return replace(container, file_contents=contents) if contents else container


def object_variables(container: ContainerPlan, values: Mapping[str, str]) -> dict[str, str]:
    """Return a variable for each member of the secrets that are wanted so.

    A member that is no string is a variable with its JSON. Of two with one name, the later secret's
    counts.

    Raises:
        ResourceInitializationError: a secret is no JSON object, or a member can't be a variable.
            The text shows nothing of it.
    """
    variables: dict[str, str] = {}
    for prefix, reference in container.secret_objects:
        for key, value in _read_object(container, values[reference], reference).items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            if not key or "=" in key or "\0" in key or "\0" in text:
                raise _fail(container, reference, "has a member that can't be a variable")
            variables[f"{prefix}{key}"] = text
    return variables


def _read_object(container: ContainerPlan, text: str, reference: str) -> dict[str, object]:
    try:
        secret = json.loads(text)
    except (ValueError, RecursionError):
        secret = None
    if not isinstance(secret, dict):
        raise _fail(container, reference, "is not a JSON object")
    return secret


def _fail(container: ContainerPlan, reference: str, fault: str) -> ResourceInitializationError:
    return ResourceInitializationError(
        f"unable to make variables of a secret: {reference} {fault} (label fargate.secret-keys of "
        f"container '{container.name}')",
        container=container.name,
    )
