"""`fargate keys` beside a control plane that runs."""

import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from fargate_agent.cli.connection import parse_env
from fargate_agent.cli.main import main
from tests.fixtures.controlplane import DEADLINE_S, ControlPlane

pytestmark = pytest.mark.one_store


def find_refusal(agent: Any) -> str | None:
    """Make a call that every agent may make; return the code of the error, if there is one."""
    try:
        agent.discover_poll_endpoint()
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return None


def test_agent_keeps_its_instance_when_the_secret_of_its_key_is_rotated(
    control_plane: ControlPlane, state_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key_id, _ = control_plane.keys["agent"]
    before = control_plane.client("agent")
    instance = before.register_container_instance(cluster="default")["containerInstance"]

    code = main(["keys", "rotate", key_id, "--keys-file", str(state_dir / "keys.toml")])
    rotated_at = time.monotonic()
    while find_refusal(before) is None:
        assert time.monotonic() < rotated_at + DEADLINE_S

    secret = parse_env(capsys.readouterr().out)["AWS_SECRET_ACCESS_KEY"]
    after = control_plane.client("agent", aws_secret_access_key=secret)
    assert code == 0
    assert find_refusal(before) == "InvalidSignatureException"
    assert after.discover_poll_endpoint(containerInstance=instance["containerInstanceArn"])
