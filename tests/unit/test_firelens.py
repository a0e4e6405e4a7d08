"""FireLens: what the router of a task is given, and where the others' output goes."""

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from fargate_agent.drivers import LoggerUser
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.logdriver.catalog import make_log_drivers
from fargate_agent.plan import Condition, ContainerPlan, FirelensPlan, TaskPlan, plan_task
from fargate_agent.settings import AgentSettings
from tests.messages import TASK_ID, container_json, site, task_message

DATA = Path(__file__).parents[1] / "data" / "firelens"
DIRECTORY = Path(f"/srv/tasks/{TASK_ID}")
OUTPUT_KEYS = {"fluentbit": "Name", "fluentd": "@type"}
SITE = site(Path("/srv"))


def router(kind: str = "fluentbit", **changes: Any) -> dict[str, Any]:
    options = changes.pop("options", {})
    configuration = {"type": kind, "options": options}
    return container_json("router", firelensConfiguration=configuration, **changes)


def sender(name: str = "web", options: dict[str, str] | None = None, **log: Any) -> dict[str, Any]:
    changes = log.pop("container", {})
    configuration = {"logDriver": "awsfirelens", "options": options or {}, **log}
    return container_json(name, logConfiguration=configuration, **changes)


def plan(*containers: dict[str, Any], **changes: Any) -> TaskPlan:
    return plan_task(task_message(*containers, **changes), SITE)


def named(task: TaskPlan, name: str) -> ContainerPlan:
    return next(container for container in task.containers if container.name == name)


def firelens_of(task: TaskPlan) -> FirelensPlan:
    assert task.firelens is not None
    return task.firelens


def logger_flags(task: TaskPlan, name: str = "web", **settings: Any) -> dict[str, str]:
    made = AgentSettings.model_validate({"shim_loggers_dir": "/opt/loggers", **settings})
    drivers = make_log_drivers(made, LoggerUser(uid=7, gid=8))
    uri = drivers["awsfirelens"].uri(task, named(task, name))
    assert uri is not None
    return {flag.removeprefix("--"): value for flag, value in parse_qsl(urlsplit(uri).query)}


@pytest.mark.parametrize(("kind", "file"), [("fluentbit", "fluent-bit"), ("fluentd", "fluentd")])
def test_configuration_of_a_router_is_that_of_ecs(kind: str, file: str) -> None:
    key = OUTPUT_KEYS[kind]
    web = {
        key: "cloudwatch_logs",
        "region": "eu-west-1",
        "log_group_name": "/ecs/web",
        "include-pattern": "^GET",
        "exclude-pattern": "/health$",
        "log-driver-buffer-limit": "2097152",
        "log_stream_prefix": "from-",
        "auto_create_group": "true",
    }
    back_end = {
        "compress": "gzip",
        key: "datadog",
        "TLS": "on",
        "Host": "http-intake.logs.datadoghq.com",
    }
    included = {"config-file-type": "file", "config-file-value": "/etc/extra.conf"}

    task = plan(
        sender("web", web),
        router(kind, options=included, memory=256, memoryReservation=128),
        sender("back-end_2", back_end, secretOptions=[{"name": "apikey", "valueFrom": "key"}]),
        sender("quiet", {"include-pattern": "ERROR"}),
        container_json("other", logConfiguration={"logDriver": "awslogs"}),
    )

    assert firelens_of(task).config_text == (DATA / f"{file}.conf").read_text()


@pytest.mark.parametrize(("kind", "file"), [("fluentbit", "fluent-bit"), ("fluentd", "fluentd")])
def test_configuration_without_metadata_has_no_filter(kind: str, file: str) -> None:
    task = plan(
        router(kind, options={"enable-ecs-log-metadata": "false"}),
        sender("web", {OUTPUT_KEYS[kind]: "stdout"}),
    )

    assert firelens_of(task).config_text == (DATA / f"{file}-plain.conf").read_text()


@pytest.mark.parametrize(
    ("limits", "megabytes"),
    [
        pytest.param({}, 25, id="none"),
        pytest.param({"memory": 301}, 150, id="hard"),
        pytest.param({"memory": 300, "memoryReservation": 50}, 25, id="soft-wins"),
        pytest.param({"memoryReservation": 1}, 25, id="too-little"),
    ],
)
def test_fluent_bit_holds_no_more_than_half_of_its_memory(
    limits: dict[str, Any], megabytes: int
) -> None:
    task = plan(router(**limits), sender())

    assert f"    Mem_Buf_Limit {megabytes}MB\n" in firelens_of(task).config_text


@pytest.mark.parametrize(
    ("kind", "path"),
    [("fluentbit", "/fluent-bit/etc/fluent-bit.conf"), ("fluentd", "/fluentd/etc/fluent.conf")],
)
def test_router_has_its_configuration_and_the_directory_of_the_socket(kind: str, path: str) -> None:
    task = plan(router(kind), sender())

    mounts = {mount.destination: mount.source for mount in named(task, "router").mounts}
    assert mounts == {path: DIRECTORY / "fluent.conf", "/var/run": DIRECTORY / "fluent"}
    assert firelens_of(task).config == DIRECTORY / "fluent.conf"
    assert firelens_of(task).socket == DIRECTORY / "fluent" / "fluent.sock"
    assert named(task, "web").mounts == ()


def test_containers_that_log_through_the_router_are_told_where_it_listens() -> None:
    own = {"environment": {"FLUENT_HOST": "mine", "A": "1"}}

    task = plan(router("fluentd"), sender(container=own), container_json("other"))

    told = {
        one.name: {key: value for key, value in one.environment.items() if "FLUENT" in key}
        for one in task.containers
    }
    assert told == {
        "router": {"FLUENT_UID": "0"},
        "web": {"FLUENT_HOST": "127.0.0.1", "FLUENT_PORT": "24224"},
        "other": {},
    }
    assert named(task, "web").environment["A"] == "1"


def test_router_comes_before_those_that_log_through_it() -> None:
    task = plan(sender("web"), container_json("other"), router())

    order = [container.name for container in task.containers]
    waits = {
        one.name: [(d.container, d.condition) for d in one.depends_on] for one in task.containers
    }
    assert order.index("router") < order.index("web")
    assert waits == {"web": [("router", Condition.START)], "other": [], "router": []}


def test_condition_of_the_definition_is_kept() -> None:
    before = {"dependsOn": [{"containerName": "router", "condition": "COMPLETE"}]}

    (dependency,) = named(plan(sender(container=before), router()), "web").depends_on

    assert dependency.condition is Condition.COMPLETE


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {"dependsOn": [{"containerName": "web", "condition": "START"}]}, id="dependsOn"
        ),
        pytest.param({"volumesFrom": [{"sourceContainer": "web"}]}, id="volumesFrom"),
    ],
)
def test_nothing_waits_for_a_router_that_waits_itself(changes: dict[str, Any]) -> None:
    task = plan(router(**changes), sender())

    assert [container.name for container in task.containers] == ["web", "router"]
    assert named(task, "web").depends_on == ()


def test_router_may_log_through_itself() -> None:
    log = {"logDriver": "awsfirelens", "options": {"Name": "stdout"}}

    task = plan(router(logConfiguration=log))

    assert named(task, "router").depends_on == ()
    assert "Match router-firelens*" in firelens_of(task).config_text


@pytest.mark.parametrize(
    ("user", "owner"),
    [
        pytest.param(None, (0, 0), id="none"),
        pytest.param("root", (0, 0), id="root"),
        pytest.param("1000", (1000, -1), id="uid"),
        pytest.param("1000:2000", (1000, 2000), id="uid-and-gid"),
        pytest.param("1000:logs", (1000, -1), id="name-of-a-group"),
    ],
)
def test_directory_of_the_socket_belongs_to_the_router(
    user: str | None, owner: tuple[int, int]
) -> None:
    task = plan(router(user=user), sender())

    assert firelens_of(task).socket_owner == owner
    assert named(task, "router").user == (user or "0")


def test_secrets_of_output_options_are_variables_of_the_router_and_of_nobody_else() -> None:
    secrets = [{"name": "apikey", "valueFrom": "key"}, {"name": "host", "valueFrom": "place"}]

    task = plan(router(), sender("web", {"Name": "x"}, secretOptions=secrets), sender("worker"))

    assert named(task, "router").secrets == {"apikey_1": "key", "host_1": "place"}
    assert all(not named(task, name).secrets for name in ("web", "worker"))
    assert all(not container.log.secrets for container in task.containers)
    assert "    apikey ${apikey_1}\n    host ${host_1}\n" in firelens_of(task).config_text


@pytest.mark.parametrize(
    ("containers", "text"),
    [
        pytest.param(
            [sender()],
            "When awsfirelens log driver is specified in log configuration, a firelens "
            "configuration object must be configured in one of the containers.",
            id="no-router",
        ),
        pytest.param(
            [router(), {**router(), "name": "second"}],
            "A task definition can have at most one firelens configuration.",
            id="two-routers",
        ),
        pytest.param(
            [router("logstash")], "invalid firelens configuration type: logstash", id="type"
        ),
        pytest.param(
            [router(options={"config-file-type": "s3", "config-file-value": "arn"})],
            "Fargate launch type does not support FirelensConfiguration config file from 's3'",
            id="s3",
        ),
        pytest.param(
            [router(options={"config-file-type": "file"})],
            "option config-file-type is specified but config-file-value is not specified",
            id="no-file",
        ),
        pytest.param(
            [router(options={"config-file-type": "ftp", "config-file-value": "x"})],
            "invalid value ftp is specified for option config-file-type",
            id="place-of-the-file",
        ),
        pytest.param(
            [router(user="fluent")],
            "container 'router': the user of a firelens container is root or a number, "
            "not 'fluent'",
            id="name-of-a-user",
        ),
        *(
            pytest.param(
                [router(kind), sender("web", {"region": "eu-west-1"})],
                "unable to generate firelens config file: unable to generate firelens config: "
                "unable to apply log options of container web to firelens config: missing output "
                f"key {key} which is required for firelens configuration of type {kind}",
                id=f"no-output-{kind}",
            )
            for kind, key in OUTPUT_KEYS.items()
        ),
    ],
)
def test_task_is_refused_when_its_router_cannot_be(
    containers: list[dict[str, Any]], text: str
) -> None:
    with pytest.raises(ResourceInitializationError) as refused:
        plan(*containers)

    assert refused.value.detail == text


def test_plan_with_a_router_is_the_same_when_it_is_made_again() -> None:
    containers = router(), sender("web", {"Name": "stdout"})

    assert plan(*containers) == plan(*containers)


def test_logger_speaks_the_forward_protocol_to_the_socket_of_the_router() -> None:
    task = plan(router(), sender("web", {"Name": "stdout", "region": "eu-west-1"}))

    flags = logger_flags(task)

    assert flags["log-driver"] == "fluentd"
    assert flags["fluentd-address"] == f"unix://{DIRECTORY}/fluent/fluent.sock"
    assert flags["fluentd-tag"] == f"web-firelens-{TASK_ID}"
    assert flags["fluentd-async"] == "true"
    assert flags["fluentd-request-ack"] == "false"
    assert flags["fluentd-sub-second-precision"] == "true"
    assert flags["log-path"] == f"/srv/logs/{TASK_ID}/web.log"
    assert not {"netns", "uid", "region", "fluentd-buffer-limit"} & flags.keys()


@pytest.mark.parametrize(
    ("limit", "lines", "size"),
    [
        pytest.param({}, None, "10m", id="default"),
        pytest.param({"log-driver-buffer-limit": "256"}, "256", "10m", id="small"),
        pytest.param({"log-driver-buffer-limit": "536870912"}, *["536870912"] * 2, id="large"),
    ],
)
def test_buffer_limit_is_for_the_logger(
    limit: dict[str, str], lines: str | None, size: str
) -> None:
    task = plan(router(), sender("web", {"Name": "stdout", **limit}))

    flags = logger_flags(task)

    assert (flags.get("fluentd-buffer-limit"), flags["max-buffer-size"]) == (lines, size)
    assert "log-driver-buffer-limit" not in firelens_of(task).config_text


def test_options_of_every_driver_are_for_the_logger_and_not_for_the_router() -> None:
    task = plan(router(), sender(options={"mode": "blocking", "max-buffer-size": "25m"}))

    flags = logger_flags(task)

    assert (flags["mode"], flags["max-buffer-size"]) == ("blocking", "25m")
    assert "blocking" not in firelens_of(task).config_text
    assert "25m" not in firelens_of(task).config_text
