"""From the options of a task definition to the flags of a logger."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from fargate_agent.drivers import LogDriver, LoggerUser
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.logdriver.catalog import make_log_drivers
from fargate_agent.logdriver.uri import render_uri
from fargate_agent.plan import TaskPlan, plan_task
from fargate_agent.runtime.logger_replacement import parse_log_uri
from fargate_agent.settings import AgentSettings
from fargate_agent.wire.log_options import COMMON_NAMES, DESTINATIONS, DRIVER_OPTIONS
from reading import known_flags
from tests.messages import TASK_ID, container_json, eni_json, site, task_message

CREDENTIALS_ID = "8d0f2a0c-3c55-4d0b-9a54-000000000001"
ROLE = {"credentialsId": CREDENTIALS_ID, "roleArn": "arn:aws:iam::000000000000:role/execution"}
AWSLOGS = {"awslogs-group": "g", "awslogs-region": "eu-west-1", "awslogs-stream-prefix": "p"}
REQUIRED: dict[str, dict[str, str]] = {
    "awslogs": AWSLOGS,
    "splunk": {"splunk-url": "https://hec.test:8088", "splunk-token": "t"},
    "gelf": {"gelf-address": "udp://10.0.0.9:12201"},
}
"""What a driver can't do without."""


def make_drivers(user: LoggerUser | None = None, **settings: Any) -> dict[str, LogDriver]:
    given = {"shim_loggers_dir": "/opt/loggers", "socket": "/run/x/a.sock", "aws": "real"}
    made = AgentSettings.model_validate({**given, **settings})
    return dict(make_log_drivers(made, user))


def plan_log(
    driver: str,
    options: dict[str, str] | None = None,
    *,
    container: dict[str, Any] | None = None,
    **log: Any,
) -> TaskPlan:
    options = REQUIRED.get(driver, {}) if options is None else options
    configuration = {"logDriver": driver, "options": options, **log}
    web = container_json("web", logConfiguration=configuration, **(container or {}))
    message = task_message(web, executionRoleCredentials=ROLE)
    return plan_task(message, site(Path("/srv")))


def render(task: TaskPlan, drivers: dict[str, LogDriver] | None = None) -> dict[str, str]:
    """Return the flags of the logger of a task's only container."""
    (container,) = task.containers
    uri = (drivers or make_drivers())[container.log.driver].uri(task, container)
    assert uri is not None
    assert urlsplit(uri).path == "/opt/loggers/logger"
    return {name.removeprefix("--"): value for name, value in parse_qsl(urlsplit(uri).query)}


def refusal(task: TaskPlan, drivers: dict[str, LogDriver] | None = None) -> str:
    (container,) = task.containers
    with pytest.raises(ResourceInitializationError) as refused:
        (drivers or make_drivers())[container.log.driver].uri(task, container)
    assert refused.value.container == "web"
    return refused.value.detail


@pytest.mark.parametrize("driver", DESTINATIONS)
def test_every_flag_is_one_that_the_logger_knows(driver: str) -> None:
    names = DRIVER_OPTIONS[driver].names - COMMON_NAMES
    options = dict.fromkeys(names, "/x") | {"labels": "a", "env": "A"}
    options = {name: value for name, value in options.items() if name in names}
    container = {"environment": {"A": "1"}, "dockerLabels": {"a": "1"}}
    drivers = make_drivers(
        LoggerUser(uid=7, gid=8), awslogs_endpoint="http://logs.test", log_host_paths="/x,/"
    )
    flags = render(plan_log(driver, options, container=container), drivers)

    assert flags.keys() - {*known_flags.LOGGER, *known_flags.DESTINATIONS[driver]} == set()


@pytest.mark.parametrize("driver", DESTINATIONS)
def test_unknown_option_is_refused_in_docker_s_words(driver: str) -> None:
    task = plan_log(driver, {**REQUIRED.get(driver, {}), "x": "y"})

    assert refusal(task) == (
        f"failed to initialize logging driver: unknown log opt 'x' for {driver} log driver"
    )


@pytest.mark.parametrize(
    ("driver", "missing"),
    [(driver, name) for driver in DESTINATIONS for name in DRIVER_OPTIONS[driver].required],
)
def test_missing_option_is_refused(driver: str, missing: str) -> None:
    options = {name: value for name, value in REQUIRED[driver].items() if name != missing}

    assert refusal(plan_log(driver, options)) == (
        f"failed to validate logger args: unable to get {driver} driver arguments: "
        f"{missing} is required : exit status 1"
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        pytest.param({"mode": "x"}, "logger: logging mode not supported: x", id="mode"),
        pytest.param(
            {"max-buffer-size": "3q"},
            "error parsing option max-buffer-size: invalid size: '3q'",
            id="size",
        ),
    ],
)
@pytest.mark.parametrize("driver", [*DESTINATIONS, "json-file"])
def test_wrong_option_of_every_driver_is_refused(
    driver: str, options: dict[str, str], reason: str
) -> None:
    task = plan_log(driver, {**REQUIRED.get(driver, {}), **options})

    assert refusal(task) == f"failed to initialize logging driver: {reason}"


def test_a_secret_that_no_logger_would_fetch_is_refused() -> None:
    secrets = [{"name": "gelf-address", "valueFrom": "parameter"}]

    reason = refusal(plan_log("gelf", {}, secretOptions=secrets))

    assert reason.endswith("log opt 'gelf-address' of gelf log driver can't be a secret here")


@pytest.mark.parametrize(
    ("setting", "options", "mode", "size"),
    [
        pytest.param("non-blocking", {}, "non-blocking", "10m", id="default"),
        pytest.param("blocking", {}, "blocking", None, id="setting"),
        pytest.param("non-blocking", {"mode": "blocking"}, "blocking", None, id="definition"),
        pytest.param("blocking", {"mode": "non-blocking"}, "non-blocking", "10m", id="both"),
        pytest.param("non-blocking", {"max-buffer-size": "4M"}, "non-blocking", "4M", id="size"),
        pytest.param("blocking", {"max-buffer-size": "4M"}, "blocking", "4M", id="size-and-wait"),
    ],
)
def test_container_waits_for_its_logger_only_if_it_should(
    setting: str, options: dict[str, str], mode: str, size: str | None
) -> None:
    flags = render(plan_log("fluentd", options), make_drivers(log_driver_mode=setting))

    assert (flags["mode"], flags.get("max-buffer-size")) == (mode, size)


@pytest.mark.parametrize(
    ("driver", "in_netns"), [(driver, driver != "journald") for driver in DESTINATIONS]
)
def test_destination_is_reached_as_the_task_reaches_it(driver: str, in_netns: bool) -> None:
    drivers = make_drivers()

    flags = render(plan_log(driver), drivers)

    assert flags.get("netns") == (f"/srv/netns/fargate-{TASK_ID}" if in_netns else None)
    assert flags.get("dns-servers") == ("10.213.0.2" if in_netns else None)
    assert flags.get("dns-search") == ("ec2.internal" if in_netns else None)
    assert drivers[driver].needs_network == in_netns


def test_resolver_of_the_vpc_is_asked_when_the_subnet_names_no_servers() -> None:
    log = {"logDriver": "fluentd"}
    eni = eni_json(domainNameServers=[])
    message = task_message(
        container_json("web", logConfiguration=log), elasticNetworkInterfaces=[eni]
    )

    flags = render(plan_task(message, site(Path("/srv"))))

    assert flags["dns-servers"] == "169.254.169.253"


@pytest.mark.parametrize("driver", DESTINATIONS)
def test_a_copy_is_kept_here_unless_it_is_switched_off(driver: str) -> None:
    settings: dict[str, Any] = {"log_max_size": "1m", "log_max_file": 3}

    kept = render(plan_log(driver), make_drivers(**settings))
    not_kept = render(plan_log(driver), make_drivers(log_copy=False, **settings))

    names = ("log-path", "copy-max-size", "copy-max-file")
    assert [kept[name] for name in names] == [f"/srv/logs/{TASK_ID}/web.log", "1m", "3"]
    assert not not_kept.keys() & set(names)


def test_loggers_run_as_the_user_of_the_settings() -> None:
    flags = render(plan_log("fluentd"), make_drivers(LoggerUser(uid=7, gid=8)))

    assert (flags["uid"], flags["gid"]) == ("7", "8")
    assert "uid" not in render(plan_log("fluentd"))


def test_awslogs_has_a_stream_per_container_and_the_execution_role() -> None:
    flags = render(plan_log("awslogs"))

    assert flags["awslogs-stream"] == f"p/web/{TASK_ID}"
    assert flags["awslogs-credentials-endpoint"] == "unix:///run/x/a.sock.loggers/agent.sock"
    assert CREDENTIALS_ID not in str(flags)
    assert "awslogs-stream-prefix" not in flags
    assert "awslogs-endpoint" not in flags


@pytest.mark.parametrize(
    "pattern", [{"awslogs-multiline-pattern": "^E"}, {"awslogs-datetime-format": "%Y"}]
)
def test_awslogs_is_told_where_re2_is_if_it_has_a_pattern(pattern: dict[str, str]) -> None:
    flags = render(plan_log("awslogs", AWSLOGS | pattern))

    assert (Path(flags["awslogs-packages"]) / "re2").is_dir()
    assert flags["awslogs-python"] == sys.executable
    assert not {"awslogs-packages", "awslogs-python"} & render(plan_log("awslogs")).keys()


def test_awslogs_without_a_prefix_names_the_stream_after_the_container() -> None:
    task = plan_log("awslogs", {"awslogs-group": "g", "awslogs-region": "eu-west-1"})

    assert render(task)["awslogs-stream"] == task.containers[0].id


def test_awslogs_takes_the_endpoint_of_the_settings_unless_the_definition_says_another() -> None:
    drivers = make_drivers(awslogs_endpoint="http://logs.test")
    other = {**AWSLOGS, "awslogs-endpoint": "http://other.test"}

    assert render(plan_log("awslogs"), drivers)["awslogs-endpoint"] == "http://logs.test"
    assert render(plan_log("awslogs", other), drivers)["awslogs-endpoint"] == "http://other.test"


@pytest.mark.parametrize(
    ("options", "secrets"),
    [
        pytest.param({}, [{"name": "splunk-token", "valueFrom": "hidden"}], id="secret"),
        pytest.param({"splunk-token": "hidden"}, [], id="plain"),
        pytest.param(
            {"splunk-token": "hidden"}, [{"name": "splunk-token", "valueFrom": "x"}], id="both"
        ),
    ],
)
def test_splunk_token_is_fetched_by_the_logger(
    options: dict[str, str], secrets: list[dict[str, str]]
) -> None:
    options = {"splunk-url": "https://hec.test:8088", **options}
    task = plan_log("splunk", options, secretOptions=secrets)

    flags = render(task)

    assert "hidden" not in str(flags)
    assert task.containers[0].log.secrets_id not in str(flags)
    assert flags["splunk-token-endpoint"] == "unix:///run/x/a.sock.loggers/agent.sock"
    assert "splunk-token" not in flags


@pytest.mark.parametrize(
    ("options", "env", "labels"),
    [
        pytest.param({}, None, None, id="none"),
        pytest.param({"env": "A,C", "labels": "a"}, ["A"], {"a": "1"}, id="names"),
    ],
)
def test_logger_is_told_only_what_it_may_say_of_a_container(
    options: dict[str, str], env: list[str] | None, labels: dict[str, str] | None
) -> None:
    container = {
        "environment": {"A": "secret 1", "B1": "secret 2", "PASSWORD": "secret 3"},
        "dockerLabels": {"a": "1", "ab": "2"},
    }

    flags = render(plan_log("journald", options, container=container))

    assert json.loads(flags.get("container-env-names", "null")) == env
    assert json.loads(flags.get("container-labels", "null")) == labels
    assert "secret" not in str(flags)


def test_regular_expression_is_left_to_the_logger() -> None:
    forever = {"env-regex": "(a+)+$", "labels-regex": "("}
    env, labels = {"a" * 60 + "!": "hidden 1", "B": "hidden 2"}, {"c": "3"}

    flags = render(
        plan_log(
            "splunk",
            {**REQUIRED["splunk"], **forever},
            container={
                "environment": env,
                "dockerLabels": labels,
            },
        )
    )

    assert env.keys() <= set(json.loads(flags["container-env-names"]))
    assert "hidden" not in str(flags)
    assert labels.items() <= json.loads(flags["container-labels"]).items()
    assert (flags["env-regex"], flags["labels-regex"]) == ("(a+)+$", "(")


def test_variable_that_a_secret_replaces_is_not_told() -> None:
    environment = {"environment": {"A": "1", "B": "2"}}
    task = plan_log("journald", {"env-regex": "."}, container=environment)
    container = replace(task.containers[0], secrets={"A": "parameter"})

    flags = render(replace(task, containers=(container,)))

    names = json.loads(flags["container-env-names"])
    assert "B" in names
    assert "A" not in names


@pytest.mark.parametrize(
    ("driver", "option", "value"),
    [
        pytest.param("splunk", "splunk-capath", "/etc/shadow", id="file"),
        pytest.param("splunk", "splunk-capath", "/allowed/../etc/shadow", id="way-out"),
        pytest.param("splunk", "splunk-capath", "/allowed-not", id="similar"),
        pytest.param("splunk", "splunk-capath", "rootfs/ca.pem", id="relative"),
        pytest.param("fluentd", "fluentd-capath", "/dev/watchdog", id="device"),
        pytest.param("fluentd", "fluentd-address", "unix:///run/x.sock", id="socket"),
        pytest.param("syslog", "syslog-address", "unix:///run/x.sock", id="stream"),
        pytest.param("syslog", "syslog-address", "unixgram:///run/x.sock", id="datagrams"),
        pytest.param("syslog", "syslog-tls-ca-cert", "/etc/shadow", id="ca"),
        pytest.param("syslog", "syslog-tls-cert", "/etc/shadow", id="certificate"),
        pytest.param("syslog", "syslog-tls-key", "/etc/shadow", id="key"),
    ],
)
def test_task_cannot_make_a_logger_open_what_the_machine_does_not_allow(
    driver: str, option: str, value: str
) -> None:
    task = plan_log(driver, {**REQUIRED.get(driver, {}), option: value})
    path = value.rpartition("://")[2]

    reason = refusal(task, make_drivers(log_host_paths="/allowed"))

    assert reason == (
        f"failed to initialize logging driver: log opt '{option}': "
        f"'{path}' is not one of this machine's log_host_paths"
    )


@pytest.mark.parametrize(
    ("driver", "option", "value"),
    [
        pytest.param("splunk", "splunk-capath", "/allowed/ca.pem", id="file"),
        pytest.param("syslog", "syslog-address", "unix:///allowed/x.sock", id="socket"),
        pytest.param("syslog", "syslog-address", "unixgram:///dev/log", id="itself"),
        pytest.param("syslog", "syslog-address", "udp://10.0.0.9:514", id="network"),
        pytest.param("fluentd", "fluentd-address", "10.0.0.9", id="host"),
    ],
)
def test_task_may_name_what_the_machine_allows(driver: str, option: str, value: str) -> None:
    task = plan_log(driver, {**REQUIRED.get(driver, {}), option: value})

    flags = render(task, make_drivers(log_host_paths="/allowed, /dev/log"))

    assert flags[option] == value


def test_container_that_names_no_driver_has_the_local_copy_alone() -> None:
    task = plan_task(task_message(container_json("web")), site(Path("/srv")))

    uri = make_drivers()["json-file"].uri(task, task.containers[0])

    assert uri is not None
    assert urlsplit(uri).path == "/opt/loggers/json-file"


@pytest.mark.parametrize(
    ("copy", "terminal", "uri"),
    [
        pytest.param(True, False, "binary:///opt/loggers/json-file", id="copy"),
        pytest.param(False, False, None, id="no-copy"),
        pytest.param(False, True, "/dev/null", id="no-copy-of-a-terminal"),
    ],
)
def test_none_keeps_the_copy_or_nothing(copy: bool, terminal: bool, uri: str | None) -> None:
    task = plan_log("none", {"tag": "x"}, container={"pseudoTerminal": terminal})

    made = make_drivers(log_copy=copy)["none"].uri(task, task.containers[0])

    assert made is uri is None or str(made).partition("?")[0] == uri


def test_flags_of_a_log_uri_are_read_as_the_shim_reads_them() -> None:
    flags = {"tag": "a b&c=d;e+f%2F", "labels": "ä,\n", "empty": ""}
    program = Path("/opt/log gers/logger")

    argv = parse_log_uri(render_uri(program, flags))

    assert argv == [str(program), "--tag", flags["tag"], "--labels", flags["labels"]]
    assert parse_log_uri("binary:///l?--a=1&--b=&--a=2") == ["/l", "--a", "1", "--b", ""]
