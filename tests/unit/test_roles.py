"""What needs no AWS: references, the machine's keys, and roles in plans and records."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from fargate_agent.plan import plan_task
from fargate_agent.roles.errors import RoleError
from fargate_agent.roles.machine_keys import read_machine_keys
from fargate_agent.roles.references import (
    InvalidReferenceError,
    ParameterReference,
    SecretReference,
    parse_reference,
)
from fargate_agent.task.store import TaskRecord
from tests.fixtures.aws import ACCESS_KEY, ROLE, SECRET_KEY, write_keys
from tests.messages import container_json, site, task_arn, task_message

SECRET = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:app/db-AbCdEf"
PARAMETER = "arn:aws:ssm:eu-west-1:123456789012:parameter/app/db"
SOON = datetime(2026, 1, 5, tzinfo=UTC)
CREDENTIALS = {"credentialsId": "7d1f", "roleArn": ROLE}


def secret(**parts: str) -> SecretReference:
    return SecretReference(region="eu-west-1", arn=SECRET, **parts)


@pytest.mark.parametrize(
    ("value_from", "reference"),
    [
        pytest.param(SECRET, secret(), id="secret"),
        pytest.param(f"{SECRET}:user::", secret(json_key="user"), id="key"),
        pytest.param(f"{SECRET}::AWSPREVIOUS:", secret(version_stage="AWSPREVIOUS"), id="stage"),
        pytest.param(f"{SECRET}:::0a1b", secret(version_id="0a1b"), id="version"),
        pytest.param(
            f"{SECRET}:user::0a1b", secret(json_key="user", version_id="0a1b"), id="key of version"
        ),
        pytest.param(
            f"{SECRET}:user:AWSCURRENT:0a1b",
            secret(json_key="user", version_stage="AWSCURRENT", version_id="0a1b"),
            id="stage and version",
        ),
        *(
            pytest.param(f"{SECRET}{':' * count}", secret(), id=f"{count} colons")
            for count in (1, 2, 3)
        ),
        pytest.param(
            "/app/db", ParameterReference(region="us-east-1", name="/app/db"), id="parameter"
        ),
        pytest.param("db", ParameterReference(region="us-east-1", name="db"), id="bare name"),
        pytest.param(
            "db:user::", ParameterReference(region="us-east-1", name="db:user::"), id="not a secret"
        ),
        pytest.param(
            PARAMETER, ParameterReference(region="eu-west-1", name=PARAMETER), id="parameter ARN"
        ),
    ],
)
def test_reference_is_read(
    value_from: str, reference: SecretReference | ParameterReference
) -> None:
    assert parse_reference(value_from, "us-east-1") == reference


@pytest.mark.parametrize(
    ("value_from", "text"),
    [
        pytest.param(f"{SECRET}:user", "unexpected ARN format with parameters", id="colons"),
        pytest.param(f"{SECRET}::::", "unexpected ARN format with parameters", id="more colons"),
        pytest.param("arn:aws:s3:::bucket/key", "is no secret and no parameter", id="service"),
        pytest.param("arn:", "is no secret and no parameter", id="cut"),
    ],
)
def test_wrong_reference_is_refused(value_from: str, text: str) -> None:
    with pytest.raises(InvalidReferenceError, match=text):
        parse_reference(value_from, "us-east-1")


def test_machine_keys_are_read_from_the_default_profile(tmp_path: Path) -> None:
    file = write_keys(
        tmp_path,
        "[other]\naws_access_key_id = no\n[default]\naws_access_key_id=AK\n"
        "aws_secret_access_key = a%b/c=\naws_session_token = token\n",
    )

    keys = read_machine_keys(file, SOON)

    assert (keys.access_key, keys.secret_key, keys.token) == ("AK", "a%b/c=", "token")
    assert keys.expires_at == SOON


@pytest.mark.parametrize(
    ("text", "mode", "fault"),
    [
        pytest.param(None, 0o640, "can be read by others", id="mode"),
        pytest.param(f"{SECRET_KEY}\n", 0o600, "is not a credentials file", id="no profile"),
        pytest.param("[other]\n", 0o600, "has no aws_access_key_id", id="other profile"),
        pytest.param(
            f"[default]\naws_access_key_id = {ACCESS_KEY}\n",
            0o600,
            "has no aws_secret_access_key",
            id="half",
        ),
    ],
)
def test_wrong_file_of_machine_keys_is_refused_without_its_secret(
    tmp_path: Path, text: str | None, mode: int, fault: str
) -> None:
    file = write_keys(tmp_path, text, mode)

    with pytest.raises(RoleError, match=f"aws_credentials_file {fault}") as caught:
        read_machine_keys(file, SOON)

    assert SECRET_KEY not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_machine_without_keys_is_told_what_to_set() -> None:
    with pytest.raises(RoleError, match="set aws_credentials_file, or assume_roles = false"):
        read_machine_keys(None, SOON)


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
