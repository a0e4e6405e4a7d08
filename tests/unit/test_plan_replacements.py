"""What stands for what a task definition names, on a machine without AWS."""

from dataclasses import replace
from pathlib import Path

from fargate_agent.plan import Replacement, plan_task
from tests.messages import container_json, site, task_message

SECRET = "arn:aws:secretsmanager:us-east-1:123456789012:secret:prod/db-AbC1eF"
FILE = "arn:aws:s3:::bucket/app.env"
MESSAGE = task_message(
    container_json(
        "a",
        secrets=[
            {"name": "USER", "valueFrom": f"{SECRET}:user::"},
            {"name": "PASSWORD", "valueFrom": f"{SECRET}:password::"},
            {"name": "KEY", "valueFrom": "/prod/key"},
        ],
        environmentFiles=[{"type": "s3", "value": FILE}],
    ),
    container_json(
        "b",
        environmentFiles=[{"type": "s3", "value": FILE}],
        logConfiguration={
            "logDriver": "splunk",
            "secretOptions": [{"name": "splunk-token", "valueFrom": "/prod/token"}],
        },
    ),
)


def test_each_secret_and_file_is_named_once_where_it_is_replaced() -> None:
    plan = plan_task(MESSAGE, replace(site(Path("/nowhere")), is_local=True))

    secrets = [one for one in plan.replacements if one.kind == "secret"]
    assert [one.what for one in secrets] == [SECRET, "/prod/key", "/prod/token"]
    assert {one.by for one in secrets} == {"the value of fargate secrets"}
    assert [one for one in plan.replacements if one.kind != "secret"] == [
        Replacement(
            kind="environment-file", what=FILE, by="a file of the agent's setting local_buckets"
        )
    ]


def test_nothing_is_replaced_on_a_machine_that_has_aws() -> None:
    assert plan_task(MESSAGE, site(Path("/nowhere"))).replacements == ()
