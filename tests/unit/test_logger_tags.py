"""Tags and attributes of log lines."""

import json
from pathlib import Path

import pytest

from network.connection import Connector
from reading.deadline import Deadline
from sending.destination import Setup
from sending.reports import Reports
from sending.tags import load_env, read_attributes, render_tag

FLAGS = {
    "container-id": "0123456789abcdef0123456789abcdef",
    "container-name": "/web",
    "container-image-name": "busybox:1",
}


def attributes(**options: str) -> dict[str, str]:
    told = {name.replace("_", "-"): value for name, value in options.items()}
    deadline = Deadline()
    setup = Setup({**FLAGS, **told}, deadline, Reports("gelf", "0123", None), None)
    return read_attributes(setup, Connector(setup.flags, deadline))


@pytest.mark.parametrize(
    ("template", "tag"),
    [
        pytest.param(None, "0123456789ab", id="none"),
        pytest.param("{{.ID}}", "0123456789ab", id="short-id"),
        pytest.param("{{.FullID}}", "0123456789abcdef0123456789abcdef", id="id"),
        pytest.param("{{.Name}}", "web", id="name"),
        pytest.param("{{.ImageName}}/{{ .Name }}!", "busybox:1/web!", id="several"),
        pytest.param("{{.DaemonName}}", "fargate-agent", id="daemon"),
        pytest.param("plain }} text", "plain }} text", id="text"),
    ],
)
def test_tag_is_filled_in(template: str | None, tag: str) -> None:
    flags = FLAGS if template is None else {**FLAGS, "tag": template}

    assert render_tag(flags) == tag


@pytest.mark.parametrize(
    "template",
    ["{{.Command}}", '{{upper "x"}}', "{{.ID", "{{}}", "{{.Name | upper}}", "{{.ImageID}}"],
)
def test_tag_with_anything_else_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="^unsupported log tag '.*': only {{.ID}}, "):
        render_tag({**FLAGS, "tag": template})


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        pytest.param({}, {}, id="nothing"),
        pytest.param({"labels": "b,none"}, {"b": "2"}, id="labels"),
        pytest.param({"labels_regex": "^a"}, {"ab": "1", "ac": "3"}, id="labels-by-expression"),
        pytest.param({"env": "B"}, {"B": "x"}, id="environment"),
        pytest.param({"env_regex": "B|C"}, {"B": "x", "C": "y"}, id="environment-by-expression"),
        pytest.param({"labels": "b", "env": "C"}, {"C": "y", "b": "2"}, id="both"),
    ],
)
def test_attributes_are_those_that_the_options_name(
    options: dict[str, str], chosen: dict[str, str]
) -> None:
    labels, env = '{"ab": "1", "b": "2", "ac": "3"}', '{"B": "x", "C": "y"}'

    assert attributes(container_labels=labels, container_env=env, **options) == chosen


@pytest.mark.parametrize("told", ["", "null", "[]", '{"a": 1}', '{"a": "x"', '{"a": "x"} y'])
def test_attributes_that_are_no_object_of_strings_are_refused(told: str) -> None:
    with pytest.raises(ValueError, match="^container-labels: expected a JSON object of strings$"):
        attributes(labels="a", container_labels=told)


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param("(", id="none"),
        pytest.param("a{99999999999}", id="too-often"),
        pytest.param("(" * 2000 + ")" * 2000, id="too-deep"),
    ],
)
def test_wrong_expression_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="^invalid regular expression '"):
        attributes(env_regex=pattern, container_env="{}")


def write_specification(directory: Path, container_id: str, *env: str) -> None:
    """Write what runC is given, where containerd writes it."""
    bundle = directory / container_id
    bundle.mkdir()
    (bundle / "config.json").write_text(json.dumps({"process": {"env": env}}))


def test_values_of_variables_come_from_the_specification_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_specification(tmp_path, "other", "A=wrong")
    write_specification(tmp_path, "mine", "A=1=2", 'B="\n\\', "PATH=/bin", "SECRET=hidden", "E=")
    monkeypatch.chdir(tmp_path / "other")  # a shim that serves both is in one of them
    flags = {"container-id": "mine", "container-env-names": '["A", "B", "E", "GONE"]'}

    load_env(flags)

    assert json.loads(flags["container-env"]) == {"A": "1=2", "B": '"\n\\', "E": ""}


def test_container_without_a_specification_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(OSError, match=r"'\.\./mine/config\.json'"):
        load_env({"container-id": "mine", "container-env-names": '["A"]'})
