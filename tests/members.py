"""The verdicts of docs/members.md, and the members that botocore's model of ECS has."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fargate_agent.controlplane.validate import service_model

PAGE: Final = Path(__file__).parents[1] / "docs" / "members.md"
OPERATIONS: Final = ("RegisterTaskDefinition", "RunTask", "CreateService")

_SAMPLES: Final[dict[str, Any]] = {
    "ephemeralStorage": {"sizeInGiB": 21},
    "environmentFiles": [{"type": "s3", "value": "arn:aws:s3:::bucket/key.env"}],
    "healthCheck": {"command": ["CMD", "true"]},
    "iops": 3000,
    "pidMode": "task",
    "proxyConfiguration": {
        "containerName": "app",
        "properties": [
            {"name": name, "value": "1"}
            for name in ("ProxyIngressPort", "ProxyEgressPort", "AppPorts", "IgnoredUID")
        ],
    },
    "systemControls": [{"namespace": "net.core.somaxconn", "value": "1"}],
    "throughput": 125,
    "volumeInitializationRate": 100,
    "volumeType": "gp3",
    "portMappings[].hostPort": 80,
    "portMappings[].containerPortRange": "80-90",
}
"""Of members whose values have to make sense, by the end of their path."""


@dataclass(frozen=True, slots=True)
class Row:
    """What the page says of one member."""

    operation: str
    path: str
    verdict: str
    how: str

    def __str__(self) -> str:
        return f"{self.operation}.{self.path}"


def read_rows() -> list[Row]:
    """Read the tables of the page; a heading may say below which member its table begins."""
    rows: list[Row] = []
    for section in PAGE.read_text().split("\n## ")[1:]:
        title, _, table = section.partition("\n")
        operation, _, prefix = title.partition(": ")
        for name, verdict, how in re.findall(r"^\| `(.+?)` \| (.+?) \| (.*) \|$", table, re.M):
            path = f"{prefix}.{name}" if prefix else name
            rows.append(Row(operation, path, verdict, how.strip("`")))
    return rows


def leaves(operation: str) -> Iterator[str]:
    """Give the path of every member of an operation's request that has none below it."""
    yield from _leaves(service_model().operation_model(operation).input_shape, "")


def find_shape(operation: str, path: str) -> Any:
    """Return the shape of a member.

    Raises:
        KeyError: there is no such member.
    """
    shape = service_model().operation_model(operation).input_shape
    for part in path.split("."):
        shape = shape.members[part.removesuffix("[]")]
        if part.endswith("[]"):
            shape = shape.member
    return shape


def sample(operation: str, path: str) -> Any:
    """Return a value of a member that asks for something."""
    for end, value in _SAMPLES.items():
        if f".{path}".endswith(f".{end}"):
            return value
    return _sample(find_shape(operation, path))


def put(request: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a request with one member set; of a list, in its first item."""
    name, _, rest = path.partition(".")
    if not rest:
        return {**request, name: value}
    key = name.removesuffix("[]")
    if key == name:
        return {**request, key: put(request.get(key, {}), rest, value)}
    first, *others = request.get(key, [{}])
    return {**request, key: [put(first, rest, value), *others]}


def _leaves(shape: Any, path: str) -> Iterator[str]:
    if shape.type_name == "list":
        inner = shape.member
        yield from _leaves(inner, f"{path}[]") if inner.type_name == "structure" else [path]
    elif shape.type_name == "structure" and shape.members:
        for name, member in shape.members.items():
            yield from _leaves(member, f"{path}.{name}".lstrip("."))
    else:
        yield path


def _sample(shape: Any) -> Any:
    match shape.type_name:
        case "structure":
            names = shape.required_members or shape.members
            return {name: _sample(shape.members[name]) for name in names}
        case "list":
            return [_sample(shape.member)]
        case "string":
            return (*shape.enum, "x")[0]
        case kind:
            plain = {"map": {"key": "value"}, "boolean": True}
            return plain.get(kind, max(1, shape.metadata.get("min", 1)))
