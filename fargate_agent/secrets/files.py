"""Secrets that a container has in another form than a variable each; pure.

Fargate has no such thing: see docs/beyond-fargate.md.
"""

from collections.abc import Mapping
from dataclasses import replace

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import ContainerPlan
from fargate_agent.secrets.pick import can_be_written, read_object, show_member


def add_files(container: ContainerPlan, values: Mapping[str, str]) -> ContainerPlan:
    """Return the container with what is in its files; `values` are by what refers to them.

    Raises:
        ResourceInitializationError: a value is no text.
    """
    contents: dict[str, bytes] = {}
    for file in container.files:
        if file.reference is None:
            continue
        if not can_be_written(values[file.reference]):
            raise ResourceInitializationError(
                f"unable to make a file of a secret: {file.reference} has half a character, which "
                f"no file can have (label fargate.secret-file of container '{container.name}')",
                container=container.name,
            )
        contents[file.destination] = values[file.reference].encode()
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
        secret = read_object(values[reference])
        if secret is None:
            raise _fail(container, reference, "is not a JSON object")
        for key, value in secret.items():
            text = show_member(value)
            if not key or "=" in key or "\0" in key + text or not can_be_written(key + text):
                raise _fail(container, reference, "has a member that can't be a variable")
            variables[f"{prefix}{key}"] = text
    return variables


def _fail(container: ContainerPlan, reference: str, fault: str) -> ResourceInitializationError:
    return ResourceInitializationError(
        f"unable to make variables of a secret: {reference} {fault} (label fargate.secret-keys of "
        f"container '{container.name}')",
        container=container.name,
    )
