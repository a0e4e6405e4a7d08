"""Roles, and the secrets of log options, in plans and records."""

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
