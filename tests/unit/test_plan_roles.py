"""Roles, and the secrets of log options, in plans and records."""

from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from fargate_agent.plan import plan_task
from fargate_agent.task.store import TaskRecord
from tests.fixtures.aws import ROLE
from tests.messages import container_json, site, task_arn, task_message

SECRET = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:app/db-AbCdEf"
CREDENTIALS = {"credentialsId": "7d1f", "roleArn": ROLE}


def test_credentials_that_come_with_a_message_are_planned_and_never_written(
    tmp_path: Path,
) -> None:
    message = task_message(
        executionRoleCredentials={
            **CREDENTIALS,
            "accessKeyId": "AK",
            "secretAccessKey": "given-secret",
            "sessionToken": "given-token",
            "expiration": "2026-01-05T10:00:00Z",
        }
    )

    role = plan_task(message, site(tmp_path)).execution_role
    record = TypeAdapter(TaskRecord).dump_json(TaskRecord(message=message, boot_id="boot"))
    again = TypeAdapter(TaskRecord).validate_json(record).message

    assert role is not None
    assert role.given is not None
    assert (role.arn, role.credentials_id) == (ROLE, "7d1f")
    assert (role.given.secret_key, role.given.token) == ("given-secret", "given-token")
    assert b"given" not in record
    assert "given" not in repr(role.given)
    adopted = plan_task(again, site(tmp_path)).execution_role
    assert adopted is not None
    assert (adopted.arn, adopted.credentials_id, adopted.given) == (ROLE, "7d1f", None)


def test_secret_options_are_planned_beside_the_others(tmp_path: Path) -> None:
    log = {
        "logDriver": "splunk",
        "options": {"splunk-url": "http://splunk:8088"},
        "secretOptions": [{"name": "splunk-token", "valueFrom": SECRET}],
    }
    message = task_message(
        container_json(logConfiguration=log), executionRoleCredentials=CREDENTIALS
    )

    (container,) = plan_task(message, site(tmp_path)).containers

    assert container.log.secrets == {"splunk-token": SECRET}
    assert container.log.options == {"splunk-url": "http://splunk:8088"}


def test_secret_in_plain_is_no_option_any_more_and_never_shown(tmp_path: Path) -> None:
    log = {
        "logDriver": "splunk",
        "options": {"splunk-url": "http://splunk:8088", "splunk-token": "in-plain"},
    }

    (container,) = plan_task(
        task_message(container_json(logConfiguration=log)), site(tmp_path)
    ).containers

    assert container.log.options == {"splunk-url": "http://splunk:8088"}
    assert container.log.plain_secrets == {"splunk-token": "in-plain"}
    assert "in-plain" not in repr(container)
    assert container.log.secrets_id not in repr(container)


def test_id_of_log_secrets_differs_by_container_and_task_and_agent(tmp_path: Path) -> None:
    log = {"logDriver": "splunk"}
    containers = [container_json(name, logConfiguration=log) for name in ("web", "side")]
    messages = [task_message(*containers, arn=task_arn(one * 32)) for one in "ab"]
    agents = [site(tmp_path), site(tmp_path)]

    plans = [plan_task(message, one) for message in messages for one in agents]

    ids = {container.log.secrets_id for plan in plans for container in plan.containers}
    assert len(ids) == 8
    assert not ids & {container.metadata_id for plan in plans for container in plan.containers}


ENDPOINTS = {"": "http://aws.test", "S3": "http://s3.test", "dynamodb": "http://db.test"}
NAMES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_DYNAMODB")


def test_endpoints_of_the_task_role_are_variables_that_the_definition_may_set_itself(
    tmp_path: Path,
) -> None:
    own = container_json("own", environment={"AWS_ENDPOINT_URL_S3": "http://mine.test"})
    role = {**CREDENTIALS, "endpointUrls": ENDPOINTS}
    message = task_message(container_json("web"), own, roleCredentials=role)

    web, other = plan_task(message, site(tmp_path)).containers

    assert [web.environment[name] for name in NAMES] == list(ENDPOINTS.values())
    assert [other.environment[name] for name in NAMES] == [
        "http://aws.test",
        "http://mine.test",
        "http://db.test",
    ]
    ways = [{n for names in one.gives_way for n in names} & set(NAMES) for one in (web, other)]
    assert ways == [set(NAMES), {"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_DYNAMODB"}]


def test_endpoints_of_the_execution_role_are_not_for_containers(tmp_path: Path) -> None:
    role = {**CREDENTIALS, "endpointUrls": ENDPOINTS}

    (container,) = plan_task(task_message(executionRoleCredentials=role), site(tmp_path)).containers

    assert not container.environment.keys() & set(NAMES)


def test_what_stands_for_roles_and_log_groups_is_said_once(tmp_path: Path) -> None:
    log = {"logDriver": "awslogs", "options": {"awslogs-group": "/app"}}
    containers = [container_json(name, logConfiguration=log) for name in ("web", "side")]
    made = {**CREDENTIALS, "madeFrom": "keys made here"}
    message = task_message(*containers, roleCredentials=made, executionRoleCredentials=CREDENTIALS)
    here = site(tmp_path)

    replaced = plan_task(message, replace(here, logs_are_local=True))

    assert [(one.kind, one.what, one.by) for one in replaced.replacements] == [
        ("role", ROLE, "keys made here"),
        ("logs", "/app", "the copy of the output kept on this machine, shown by fargate logs"),
    ]
    assert all(container.log.is_local for container in replaced.containers)
    assert [one.kind for one in plan_task(message, here).replacements] == ["role"]
