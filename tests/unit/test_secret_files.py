"""Secrets and texts as files, and secrets that are many variables: from the message to the plan."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.drivers import ImageConfig
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import ContainerPlan, FilePlan, TaskPlan, plan_task
from fargate_agent.plan.files import plan_files, plan_secret_objects
from fargate_agent.runtime.host import HostLimits
from fargate_agent.runtime.spec import render_spec
from fargate_agent.runtime.users import ContainerUser
from fargate_agent.secrets.files import add_files, object_variables
from fargate_agent.wire.containers import ContainerMessage
from tests.messages import container_json, site, task_message

FILE = {"name": "DB", "valueFrom": "/db", "type": "MOUNT_POINT", "containerPath": "/run/secrets/db"}
KEYS = {"name": "ALL", "valueFrom": "/all", "type": "ALL_KEYS", "prefix": "APP_"}
TEXT = {"containerPath": "/etc/app.conf", "text": "a = 1\n"}


def message(**members: Any) -> ContainerMessage:
    return ContainerMessage.model_validate(container_json(**members))


def planned(**changes: Any) -> tuple[TaskPlan, ContainerPlan]:
    task = plan_task(task_message(container_json(files=[TEXT])), site(Path("/state")))
    return task, replace(task.containers[0], **changes)


def test_plan_has_files_and_objects_apart_from_variables() -> None:
    plain = {"name": "PLAIN", "valueFrom": "/plain"}
    container = message(secrets=[FILE, KEYS, plain], files=[TEXT])

    assert plan_files(container) == (
        FilePlan(destination="/run/secrets/db", reference="/db"),
        FilePlan(destination="/etc/app.conf", text="a = 1\n"),
    )
    assert plan_secret_objects(container) == (("APP_", "/all"),)


def test_container_with_a_text_alone_has_nothing_to_fetch() -> None:
    _, container = planned()

    assert container.files == (FilePlan(destination="/etc/app.conf", text="a = 1\n"),)
    assert not container.refers


@pytest.mark.parametrize(
    "path",
    [None, "", "a", "/", "//a", "/a/", "/a/../b", "/a/./b", "/proc", "/sys/a"],
)
def test_plan_has_no_file_where_none_can_be(path: str | None) -> None:
    with pytest.raises(ResourceInitializationError, match="there can't be a file at"):
        plan_files(message(secrets=[{**FILE, "containerPath": path}]))


def test_members_of_an_object_are_variables() -> None:
    _, container = planned(secret_objects=(("", "/a"), ("B_", "/b")))
    values = {
        "/a": json.dumps({"user": "u", "port": 5432, "B_x": "early", "list": ["ü"], "no": None}),
        "/b": json.dumps({"x": "late", "with-dash": ""}),
    }

    assert object_variables(container, values) == {
        "user": "u",
        "port": "5432",
        "B_x": "late",
        "list": '["ü"]',
        "no": "null",
        "B_with-dash": "",
    }


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param("hush", "is not a JSON object", id="text"),
        pytest.param('["hush"]', "is not a JSON object", id="list"),
        pytest.param("[" * 100_000, "is not a JSON object", id="deep"),
        pytest.param('{"": "hush"}', "has a member that can't be a variable", id="no name"),
        pytest.param('{"hush=": ""}', "has a member that can't be a variable", id="equals sign"),
        pytest.param('{"hush\\u0000": ""}', "has a member that can't be", id="NUL in a name"),
        pytest.param('{"a": "hush\\u0000"}', "has a member that can't be", id="NUL in a value"),
    ],
)
def test_object_that_is_none_fails_and_shows_nothing_of_itself(text: str, fault: str) -> None:
    _, container = planned(secret_objects=(("", "/a"),))

    with pytest.raises(ResourceInitializationError) as failed:
        object_variables(container, {"/a": text})

    assert f"/a {fault}" in str(failed.value)
    assert "hush" not in str(failed.value)


def test_files_have_the_values_of_their_secrets_and_no_repr_shows_them() -> None:
    _, container = planned(
        files=(FilePlan(destination="/a", reference="/db"), FilePlan(destination="/b", text="t"))
    )

    filled = add_files(container, {"/db": "hush ü"})

    assert filled.file_contents == {"/a": "hush ü".encode()}
    assert "hush" not in repr(filled)


def test_file_is_mounted_alone_for_reading_and_its_text_is_not_in_the_specification() -> None:
    task, container = planned(
        files=(FilePlan(destination="/x/deep/b", text="the text"),),
        mounts=(),
        file_contents={"/x/deep/b": b"hush"},
    )

    spec = render_spec(
        task,
        container,
        ImageConfig(command=("sh",)),
        ContainerUser(uid=0, gid=0, additional_gids=()),
        HostLimits(rlimits={}, capabilities=frozenset(), limits_swap=False),
    ).decode()

    (mount,) = [one for one in json.loads(spec)["mounts"] if one["destination"] == "/x/deep/b"]
    assert mount["source"] == f"/state/tasks/{task.id}/secret-files/web/0"
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(mount["options"])
    assert "the text" not in spec
    assert "hush" not in spec
