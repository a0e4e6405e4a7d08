"""One line for each request for credentials."""

import logging
import uuid
from pathlib import Path

import pytest

from fargate_agent.credentials.audit import Asked, Audit
from fargate_agent.plan import plan_task
from tests.fixtures.aws import ROLE, role_json
from tests.messages import site, task_arn, task_message


def test_line_has_what_is_known_and_no_id(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    message = task_message(arn=task_arn(uuid.uuid4().hex), roleCredentials=role_json())
    task = plan_task(message, site(tmp_path))
    assert task.task_role is not None
    file = tmp_path / "arn"
    audit = Audit(file)
    hostile = 'x" 200\n' + "y" * 500

    with caplog.at_level(logging.INFO):
        audit.note(Asked.TASK_ROLE, 200, "/v2/credentials", "curl/8", task, task.task_role)
        file.write_text("arn:of:instance")
        audit.note(Asked.TASK_ROLE, 400, "/v2/credentials", hostile, None, None)

    first, second = (record.getMessage() for record in caplog.records)
    assert {record.name for record in caplog.records} == {"fargate_agent.audit"}
    assert first == (f'200 "/v2/credentials" "curl/8" {ROLE} {task.arn} GetCredentials default -')
    begin, end = second.split("yyy")[0], second.rpartition("yyy")[2]
    assert begin == '400 "/v2/credentials" "x\\" 200\\n'
    assert end == '" - - GetCredentials - arn:of:instance'
    assert len(second) < 300
    assert task.task_role.credentials_id not in caplog.text
