"""Labels by which a container has files: what is taken, what is refused, what the agent is told."""

from typing import Any

import pytest

from fargate_agent.controlplane.agents.needs import find_needs
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.rules.definition import check_definition
from fargate_agent.controlplane.rules.draft import Draft
from fargate_agent.controlplane.tasks.payload import render_container
from fargate_agent.wire.attributes import CONTAINER_FILES
from fargate_agent.wire.containers import FileMessage, SecretMessage
from tests.unit.test_rules_texts import ACCOUNT, APP, ROLE, definition

SECRETS = [{"name": "DB", "valueFrom": "/prod/db"}, {"name": "ALL", "valueFrom": "/prod/all"}]


def labelled(labels: dict[str, str], **members: Any) -> dict[str, Any]:
    return {**APP, "secrets": SECRETS, "dockerLabels": labels, **members}


def check(*containers: dict[str, Any], volumes: tuple[str, ...] = ()) -> None:
    whole = definition(
        executionRoleArn=ROLE,
        containerDefinitions=list(containers),
        volumes=[{"name": name} for name in volumes],
    )
    check_definition(Draft(whole, ACCOUNT))


GOOD = [
    pytest.param({}, id="no labels"),
    pytest.param({"fargate.secret-file.DB": "/run/secrets/db"}, id="a secret"),
    pytest.param(
        {"fargate.secret-file.DB": "/run/secrets/db", "fargate.secret-file.ALL": "/run/secrets/x"},
        id="a directory of two",
    ),
    pytest.param({"fargate.secret-keys.ALL": ""}, id="keys without prefix"),
    pytest.param({"fargate.secret-keys.ALL": "APP_"}, id="keys with prefix"),
    pytest.param({"fargate.text-file./etc/app.conf": "a = 1\n"}, id="a text"),
    pytest.param({"fargate.text-file./etc/app.conf": ""}, id="an empty text"),
    pytest.param({"fargate.text-file./etc/ä b": "x"}, id="a path with letters of all kinds"),
    pytest.param({"fargate.text-file./process": "x"}, id="begins like /proc"),
    pytest.param({"fargate.text-file./etc/hosts.allow": "x"}, id="begins like a file of the task"),
    pytest.param({"fargate.text-file./a": "x", "fargate.text-file./ab": "x"}, id="begin alike"),
    pytest.param({"fargate.text-file./tmp/x/a": "x"}, id="in a tmpfs"),
    pytest.param({"fargate.team": "x", "com.example.text-file": "x"}, id="labels of others"),
]


@pytest.mark.parametrize("labels", GOOD)
def test_label_is_taken(labels: dict[str, str]) -> None:
    tmpfs = {"tmpfs": [{"containerPath": "/tmp/x", "size": 1}]}

    check(labelled(labels, linuxParameters=tmpfs))


BAD = [
    pytest.param(
        {"fargate.secret-fil.DB": "/a"},
        "there is no such label, but fargate.secret-file.…, fargate.secret-keys.…, "
        "fargate.text-file.….",
        id="misspelt",
    ),
    pytest.param({"fargate.text-file": "/a"}, "there is no such label", id="without a path"),
    pytest.param({"Fargate.Secret-File.DB": "/a"}, "there is no such label", id="capitals"),
    pytest.param({"fargate.secret-file.NO": "/a"}, "'secrets' has no 'NO'.", id="no such secret"),
    pytest.param({"fargate.secret-keys.NO": ""}, "'secrets' has no 'NO'.", id="no such object"),
    pytest.param(
        {"fargate.secret-file.DB": "/a", "fargate.secret-keys.DB": ""},
        "there is fargate.secret-file.DB as well.",
        id="file and keys",
    ),
    pytest.param({"fargate.secret-keys.ALL": "A-"}, "letters, digits and", id="prefix"),
    pytest.param({"fargate.secret-keys.ALL": "1"}, "no digit first", id="prefix of a digit"),
    pytest.param(
        {"fargate.secret-keys.ALL": "A\n"}, "letters, digits and", id="prefix with a line"
    ),
    pytest.param({"fargate.text-file.": "x"}, "must begin with /.", id="no path"),
    pytest.param({"fargate.text-file.etc/a": "x"}, "must begin with /.", id="relative"),
    pytest.param({"fargate.secret-file.DB": ""}, "must begin with /.", id="empty"),
    pytest.param({"fargate.text-file./": "x"}, "must name a file", id="root"),
    pytest.param({"fargate.text-file./a/": "x"}, "must name a file", id="last slash"),
    pytest.param({"fargate.text-file.//a": "x"}, "must name a file", id="two slashes"),
    pytest.param({"fargate.text-file./a//b": "x"}, "must name a file", id="doubled slash"),
    pytest.param({"fargate.text-file./a/../b": "x"}, "must name a file", id="up"),
    pytest.param({"fargate.text-file./a/./b": "x"}, "must name a file", id="here"),
    pytest.param({"fargate.text-file./a\nb": "x"}, "can't be printed", id="a line in a path"),
    pytest.param({"fargate.text-file./a\0b": "x"}, "can't be printed", id="NUL"),
    pytest.param({f"fargate.text-file./{'a' * 256}": "x"}, "255 between", id="long name"),
    pytest.param({f"fargate.text-file.{'/a' * 2048}": "x"}, "at most 4095 bytes", id="long path"),
    pytest.param({"fargate.text-file./proc/x": "x"}, "nothing can be put into /proc.", id="/proc"),
    pytest.param({"fargate.text-file./sys/x": "x"}, "nothing can be put into /sys.", id="/sys"),
    pytest.param({"fargate.text-file./dev/x": "x"}, "nothing can be put into /dev.", id="/dev"),
    pytest.param({"fargate.text-file./proc": "x"}, "nothing can be put", id="/proc itself"),
    pytest.param({"fargate.text-file./etc/hosts": "x"}, "a /etc/hosts of its own", id="hosts"),
    pytest.param({"fargate.text-file./etc": "x"}, "a /etc/hosts of its own", id="above hosts"),
    pytest.param(
        {"fargate.secret-file.DB": "/a", "fargate.secret-file.ALL": "/a"},
        "/a and the path of fargate.secret-file.DB meet.",
        id="two at one path",
    ),
    pytest.param(
        {"fargate.secret-file.DB": "/a", "fargate.text-file./a/b": "x"},
        "/a/b and the path of fargate.secret-file.DB meet.",
        id="one in another",
    ),
    pytest.param(
        {"fargate.secret-file.DB": "/a/b", "fargate.text-file./a": "x"},
        "/a and the path of fargate.secret-file.DB meet.",
        id="one above another",
    ),
    pytest.param({"fargate.text-file./tmp/x": "x"}, "and the tmpfs at /tmp/x meet", id="tmpfs"),
    pytest.param({"fargate.text-file./tmp": "x"}, "the tmpfs at /tmp/x meet", id="above a tmpfs"),
    pytest.param({"fargate.text-file./v/a": "x"}, "the volume at /v meet", id="in a volume"),
    pytest.param({"fargate.text-file./v": "x"}, "the volume at /v meet", id="at a volume"),
    pytest.param({"fargate.text-file./w": "x"}, "the volume at /w/x meet", id="above a volume"),
    pytest.param({"fargate.text-file./o/a": "x"}, "at /o meet", id="in a volume of another"),
]


@pytest.mark.parametrize(("labels", "text"), BAD)
def test_label_is_refused(labels: dict[str, str], text: str) -> None:
    app = labelled(
        labels,
        mountPoints=[
            {"sourceVolume": "v", "containerPath": "/v/"},
            {"sourceVolume": "v", "containerPath": "/w/x"},
        ],
        volumesFrom=[{"sourceContainer": "side"}],
        linuxParameters={"tmpfs": [{"containerPath": "/tmp/x/", "size": 1}]},
    )
    mounts = [{"sourceVolume": "v", "containerPath": "/o"}]
    side = {"name": "side", "image": "busybox", "essential": False, "mountPoints": mounts}

    with pytest.raises(ApiError) as refused:
        check(app, side, volumes=("v",))

    assert str(refused.value).startswith("Invalid label 'fargate.") or "Fargate." in str(
        refused.value
    )
    assert "of container 'app': " in str(refused.value)
    assert text in str(refused.value)


def test_refusal_shows_nothing_of_a_text() -> None:
    with pytest.raises(ApiError) as refused:
        check(labelled({"fargate.text-file.x": "the text of it"}))

    assert "the text of it" not in str(refused.value)


def test_agent_is_told_of_files_and_keys_and_sees_the_labels() -> None:
    labels = {
        "fargate.secret-file.DB": "/run/secrets/db",
        "fargate.secret-keys.ALL": "APP_",
        "fargate.text-file./etc/app.conf": "a = 1\n",
    }
    secrets = [*SECRETS, {"name": "PLAIN", "valueFrom": "/prod/plain"}]

    message = render_container(labelled(labels, secrets=secrets), "arn")

    assert message.secrets == (
        SecretMessage(
            name="DB", value_from="/prod/db", type="MOUNT_POINT", container_path="/run/secrets/db"
        ),
        SecretMessage(name="ALL", value_from="/prod/all", type="ALL_KEYS", prefix="APP_"),
        SecretMessage(name="PLAIN", value_from="/prod/plain"),
    )
    assert message.files == (FileMessage(container_path="/etc/app.conf", text="a = 1\n"),)
    assert message.docker_labels == labels


@pytest.mark.parametrize(
    ("labels", "needed"),
    [
        pytest.param({"fargate.text-file./a": "x"}, True, id="text"),
        pytest.param({"fargate.secret-file.DB": "/a"}, True, id="secret"),
        pytest.param({"fargate.secret-keys.DB": ""}, True, id="keys"),
        pytest.param({"team": "x"}, False, id="others"),
    ],
)
def test_agent_must_know_what_the_labels_mean(labels: dict[str, str], needed: bool) -> None:
    needs = find_needs({}, [labelled(labels)])

    assert ([(CONTAINER_FILES, "")] in [list(need.attributes) for need in needs]) is needed
