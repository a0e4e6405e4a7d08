import json
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.cli.failure import CliError
from fargate_agent.cli.tasks.definition import parse_overrides, parse_volumes, read_definition


def test_definition_is_taken_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "task.json"
    file.write_text('{"family": "web", "unheardOf": 1}')

    assert read_definition(str(file)) == {"family": "web", "unheardOf": 1}


def test_definition_loses_what_the_server_computed(tmp_path: Path) -> None:
    described = {
        "taskDefinition": {
            "family": "web",
            "cpu": "256",
            "taskDefinitionArn": "arn:aws:ecs:us-east-1:000000000000:task-definition/web:3",
            "revision": 3,
            "status": "ACTIVE",
            "requiresAttributes": [{"name": "ecs.capability.task-eni"}],
            "compatibilities": ["EC2", "FARGATE"],
            "registeredAt": 1.0,
            "registeredBy": "arn:aws:iam::000000000000:root",
        },
        "tags": [{"key": "team", "value": "a"}],
    }
    file = tmp_path / "task.json"
    file.write_text(json.dumps(described))

    assert read_definition(str(file)) == {
        "family": "web",
        "cpu": "256",
        "tags": [{"key": "team", "value": "a"}],
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b'{"a": 1,\n  oops}', "not JSON: line 2, column 3", id="not JSON"),
        pytest.param(b"services:\n  a: b\n", "not JSON: line 1, column 1", id="YAML"),
        pytest.param(b"", "not JSON: line 1, column 1", id="empty"),
        pytest.param(b"[1]", "not a JSON object", id="a list"),
        pytest.param(b'{"a": NaN}', "NaN is not JSON", id="not a number"),
        pytest.param(b'{\n"a": "\xff"}', "line 2: not UTF-8", id="not text"),
        pytest.param(b"[" * 100_000, "nested too deeply", id="deep"),
    ],
)
def test_definition_is_refused_with_the_place(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "task.json"
    file.write_bytes(content)

    with pytest.raises(CliError) as caught:
        read_definition(str(file))

    assert str(caught.value).startswith(f"{file}: ")
    assert said in str(caught.value)


def test_definition_is_refused_if_it_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="none.json: No such file or directory"):
        read_definition(str(tmp_path / "none.json"))


@pytest.mark.parametrize(
    ("texts", "merged"),
    [
        pytest.param(["cpu=512"], {"cpu": "512"}, id="of the task"),
        pytest.param(
            ['app.command=["sh", "-c", "a=b"]'],
            {"containerOverrides": [{"name": "app", "command": ["sh", "-c", "a=b"]}]},
            id="command",
        ),
        pytest.param(
            ["app.environment.A.B=x=y", "app.environment.C="],
            {
                "containerOverrides": [
                    {
                        "name": "app",
                        "environment": [
                            {"name": "A.B", "value": "x=y"},
                            {"name": "C", "value": ""},
                        ],
                    }
                ]
            },
            id="two variables",
        ),
        pytest.param(
            ["app.environment.A=1", "app.environment.A=2", "app.memory=64"],
            {
                "containerOverrides": [
                    {"name": "app", "environment": [{"name": "A", "value": "2"}], "memory": 64}
                ]
            },
            id="the later wins",
        ),
        pytest.param(
            ['{"containerOverrides": [{"name": "app", "cpu": 1}]}', "app.cpu=2", "memory=1024"],
            {"containerOverrides": [{"name": "app", "cpu": 2}], "memory": "1024"},
            id="JSON first",
        ),
        pytest.param(
            ["app.cpu=1", "web.cpu=2"],
            {"containerOverrides": [{"name": "app", "cpu": 1}, {"name": "web", "cpu": 2}]},
            id="two containers",
        ),
        pytest.param([], {}, id="none"),
    ],
)
def test_overrides_are_merged(texts: list[str], merged: dict[str, Any]) -> None:
    assert parse_overrides(texts) == merged


def test_volumes_are_configured_by_objects_and_files(tmp_path: Path) -> None:
    file = tmp_path / "volume.json"
    file.write_text('{"name": "data"}')

    assert parse_volumes([f"@{file}", '{"name": "x"}']) == [{"name": "data"}, {"name": "x"}]
    with pytest.raises(CliError, match=r"^--volume \[\]: not a JSON object$"):
        parse_volumes(["[]"])


def test_overrides_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "overrides.json"
    file.write_text('{"memory": "1024"}')

    assert parse_overrides(["memory=512", f"@{file}"]) == {"memory": "1024"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("cpu", "not @FILE", id="no value"),
        pytest.param("family=x", "not @FILE", id="no field of the task"),
        pytest.param("app.image=x", "not @FILE", id="no field of a container"),
        pytest.param(".cpu=1", "not @FILE", id="no container"),
        pytest.param("app.environment=x", "not @FILE", id="no variable"),
        pytest.param(
            "app.command=sh -c 'ls -l'", '\'app.command=["sh", "-c", "ls -l"]\'', id="no JSON"
        ),
        pytest.param("app.command=it's", '["sh", "-c", "env"]', id="no words"),
        pytest.param("app.command=", '["sh", "-c", "env"]', id="no command"),
        pytest.param("app.command=[a]", '["sh", "-c", "env"]', id="command is broken JSON"),
        pytest.param('app.command={"a": 1}', "a JSON list of strings", id="command is no list"),
        pytest.param("app.command=[1]", "a JSON list of strings", id="command of numbers"),
        pytest.param("app.cpu=-1", "'-1' is not a whole number", id="negative"),
        pytest.param("app.cpu=1.5", "'1.5' is not a whole number", id="fraction"),
        pytest.param("{", "line 1, column 2", id="broken JSON"),
        pytest.param("@/nowhere/at/all", "No such file", id="no file"),
    ],
)
def test_overrides_are_refused_with_the_place(text: str, said: str) -> None:
    with pytest.raises(CliError) as caught:
        parse_overrides([text])

    assert text.removeprefix("@") in str(caught.value)
    assert said in str(caught.value)
