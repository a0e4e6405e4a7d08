"""Task definitions and overrides as a person writes them: a file of JSON, or `NAME=VALUE`.

Grammar of an override:

    @FILE                            the `overrides` object of RunTask, as JSON in a file
    {…}                              the same, written out
    FIELD=TEXT                       of the task: cpu, memory, taskRoleArn, executionRoleArn
    CONTAINER.command=["a", "b"]     a JSON list of strings
    CONTAINER.environment.KEY=TEXT   one variable
    CONTAINER.FIELD=NUMBER           cpu, memory, memoryReservation

Later ones win over earlier ones.
"""

import json
import shlex
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

from fargate_agent.cli.clients.shapes import Definition
from fargate_agent.cli.failure import CliError

COMPUTED_FIELDS: Final = frozenset(
    {
        "compatibilities",
        "deleteRequestedAt",
        "deregisteredAt",
        "registeredAt",
        "registeredBy",
        "requiresAttributes",
        "revision",
        "status",
        "taskDefinitionArn",
    }
)
"""What DescribeTaskDefinition adds and RegisterTaskDefinition refuses.

Source: botocore, ECS model, `TaskDefinition` without `RegisterTaskDefinitionRequest`.
"""
_TASK_FIELDS: Final = frozenset({"cpu", "memory", "taskRoleArn", "executionRoleArn"})
_CONTAINER_NUMBERS: Final = frozenset({"cpu", "memory", "memoryReservation"})


def read_definition(file: str) -> Definition:
    """Read a task definition; `-` is standard input.

    The answer of `describe-task-definition` is taken too: what the server computed is left out.

    Raises:
        CliError: the file can't be read, or holds no JSON object.
    """
    document = _read_object(file)
    inner = document.get("taskDefinition")
    if isinstance(inner, dict):
        document = {**inner, **({"tags": document["tags"]} if document.get("tags") else {})}
    return {name: value for name, value in document.items() if name not in COMPUTED_FIELDS}


def parse_overrides(texts: Iterable[str]) -> dict[str, Any]:
    """Merge overrides into the `overrides` object of RunTask.

    Raises:
        CliError: one doesn't follow the grammar.
    """
    merged: dict[str, Any] = {}
    for text in texts:
        if text.startswith("@"):
            _merge(merged, _read_object(text[1:]))
        elif text.startswith("{"):
            _merge(merged, _parse_object(text, f"--override {text}"))
        else:
            _merge(merged, _parse_assignment(text))
    return merged


def parse_volumes(texts: Iterable[str]) -> list[dict[str, Any]]:
    """Return the `volumeConfigurations` of RunTask.

    Raises:
        CliError: one is neither a file nor a JSON object.
    """
    return [
        _read_object(text[1:]) if text.startswith("@") else _parse_object(text, f"--volume {text}")
        for text in texts
    ]


def _parse_assignment(text: str) -> dict[str, Any]:
    name, equals, value = text.partition("=")
    where = f"--override {text}"
    match (equals, *name.split(".", 2)):
        case ("=", field) if field in _TASK_FIELDS:
            return {field: value}
        case ("=", container, "command") if container:
            change: dict[str, Any] = {"command": _parse_command(name, value)}
        case ("=", container, "environment", key) if container and key:
            change = {"environment": [{"name": key, "value": value}]}
        case ("=", container, field) if container and field in _CONTAINER_NUMBERS:
            change = {field: _parse_number(value, where)}
        case _:
            raise CliError(
                f"{where}: not @FILE, a JSON object, FIELD=VALUE, CONTAINER.command=[…],"
                " CONTAINER.environment.KEY=VALUE or CONTAINER.FIELD=NUMBER"
            )
    return {"containerOverrides": [{"name": container, **change}]}


def _merge(merged: dict[str, Any], more: dict[str, Any]) -> None:
    """Lay `more` over `merged`: containers by name, their environment by name of the variable."""
    for name, value in more.items():
        if name in ("containerOverrides", "environment") and isinstance(value, list):
            _merge_by_name(merged.setdefault(name, []), value)
        else:
            merged[name] = value


def _merge_by_name(known: list[Any], more: list[Any]) -> None:
    by_name = {entry["name"]: entry for entry in known if _has_name(entry)}
    for entry in more:
        if _has_name(entry) and entry["name"] in by_name:
            _merge(by_name[entry["name"]], entry)
        else:
            known.append(entry)


def _has_name(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("name"), str)


def _parse_command(name: str, text: str) -> list[str]:
    with suppress(ValueError, RecursionError):
        value = json.loads(text)
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            return value
    example = json.dumps(_split(text) or ["sh", "-c", "env"], ensure_ascii=False)
    raise CliError(
        f"--override {name}={text}: the command must be a JSON list of strings, such as"
        f" --override '{name}={example}'"
    )


def _split(text: str) -> list[str]:
    """The words of a command as a shell takes them; none if it is JSON, or a quote is missing."""
    if text[:1] in '[{"':
        return []
    with suppress(ValueError):
        return shlex.split(text)
    return []


def _parse_number(text: str, where: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise CliError(f"{where}: {text!r} is not a whole number")
    return int(text)


def _read_object(file: str) -> dict[str, Any]:
    where = "standard input" if file == "-" else file
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise CliError(f"{where}: {error.strerror}") from error
    try:
        return _parse_object(raw.decode("utf-8-sig"), where)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise CliError(f"{where}: line {line}: not UTF-8") from error


def _parse_object(text: str, where: str) -> dict[str, Any]:
    value = _parse_json(text, where)
    if not isinstance(value, dict):
        raise CliError(f"{where}: not a JSON object")
    return value


def _parse_json(text: str, where: str) -> Any:  # noqa: ANN401 - JSON is anything
    def refuse(constant: str) -> NoReturn:
        raise CliError(f"{where}: {constant} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise CliError(
            f"{where}: not JSON: line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    except RecursionError as error:
        raise CliError(f"{where}: nested too deeply") from error
