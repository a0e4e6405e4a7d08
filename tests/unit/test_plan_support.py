"""A task that asks for what isn't done is refused, and one reason names all of it."""

from pathlib import Path
from typing import Any

import pytest

from fargate_agent.errors import MAX_REASON_CHARS, ResourceInitializationError
from fargate_agent.plan import plan_task
from fargate_agent.wire.messages import TaskMessage
from tests.messages import container_json, site, task_message

SITE = site(Path("/state"))
HOSTS = [{"hostname": "db", "ipAddress": "10.0.0.1"}]


def refusal(message: TaskMessage) -> str:
    with pytest.raises(ResourceInitializationError) as error:
        plan_task(message, SITE)
    return error.value.reason


def test_reason_names_every_member_and_where_it_stands() -> None:
    message = task_message(
        container_json("app", extraHosts=HOSTS, links=["db"]),
        container_json(
            "side", linuxParameters={"initProcessEnabled": True, "maxSwap": 1, "swappiness": 1}
        ),
        container_json("plain"),
        pidMode="host",
        proxyConfiguration={"containerName": "app"},
        volumes=[{"name": "data", "s3filesVolumeConfiguration": {"fileSystemArn": "arn"}}],
    )

    assert refusal(message) == (
        "ResourceInitializationError: not supported here: proxyConfiguration, pidMode host; "
        "container 'app': extraHosts, links; "
        "container 'side': linuxParameters.maxSwap, linuxParameters.swappiness; "
        "volume 'data': s3filesVolumeConfiguration"
    )


def test_reason_names_every_member_where_there_is_no_room_for_places() -> None:
    names = [f"{position}{'n' * 254}" for position in range(10)]
    message = task_message(
        *(container_json(name, extraHosts=HOSTS, links=["db"]) for name in names),
        placementConstraints=[{"type": "memberOf"}],
    )

    reason = refusal(message)

    assert reason == (
        "ResourceInitializationError: not supported here, in several places: placementConstraints, "
        "extraHosts, links"
    )
    assert len(reason) <= MAX_REASON_CHARS


@pytest.mark.parametrize(
    ("members", "named"),
    [
        pytest.param(
            {"portMappings": [{"containerPort": 80, "hostPort": 8080}]},
            "portMappings.hostPort other than containerPort",
            id="port of the host",
        ),
        pytest.param(
            {"systemControls": [{"namespace": "kernel.core_pattern", "value": "|/x"}]},
            "systemControls with kernel.core_pattern",
            id="the host's parameter",
        ),
        pytest.param(
            {"systemControls": [{"namespace": "net.ipv4.ip_forward", "value": "1"}]},
            "systemControls with net.ipv4.ip_forward",
            id="a way to the metadata endpoint",
        ),
        pytest.param(
            {"systemControls": [{"namespace": "net.ipv4.conf.eth0/1.forwarding", "value": " 1"}]},
            "systemControls with net.ipv4.conf.eth0/1.forwarding",
            id="the same, by interface",
        ),
        pytest.param(
            {"systemControls": [{"namespace": "net..ipv4//ip_forward.", "value": "1"}]},
            "systemControls with net..ipv4//ip_forward.",
            id="the same, by another name",
        ),
        pytest.param(
            {"systemControls": [{"namespace": "net.ipv6.conf.all.force_forwarding", "value": "1"}]},
            "systemControls with net.ipv6.conf.all.force_forwarding",
            id="the same, of newer kernels",
        ),
        pytest.param(
            {"systemControls": [{"namespace": "net.ipv6.conf.all.accept_ra", "value": "2"}]},
            "systemControls with net.ipv6.conf.all.accept_ra",
            id="addresses of neighbours",
        ),
    ],
)
def test_values_that_can_not_be_had_are_refused(members: dict[str, Any], named: str) -> None:
    message = task_message(container_json(**members), container_json("other"))

    assert refusal(message).endswith(f": container 'web': {named}")


@pytest.mark.parametrize(
    "members",
    [
        pytest.param({"restartPolicy": {"enabled": False}}, id="no restarts"),
        pytest.param({"privileged": False, "interactive": False, "links": []}, id="empty"),
        pytest.param({"linuxParameters": {"initProcessEnabled": False, "maxSwap": 0}}, id="0"),
        pytest.param({"portMappings": [{"containerPort": 80, "hostPort": 80}]}, id="same port"),
        pytest.param(
            {"systemControls": [{"namespace": "net.ipv4.ip_forward", "value": "0"}]}, id="as it is"
        ),
        pytest.param({"portMappings": [{"containerPort": 80, "hostPort": 0}]}, id="any port"),
    ],
)
def test_what_asks_for_nothing_is_taken(members: dict[str, Any]) -> None:
    plan_task(task_message(container_json(**members), enableFaultInjection=False), SITE)
