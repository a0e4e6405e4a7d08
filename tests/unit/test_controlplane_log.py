"""What the control plane logs of the libraries that it uses."""

import subprocess
import sys

SCRIPT = """
import logging
from datetime import UTC, datetime
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from fargate_agent.controlplane.__main__ import configure_logging
from fargate_agent.role_keys import RoleKeys

configure_logging("debug")
keys = RoleKeys(access_key="a", secret_key="b", token="geheim", expires_at=datetime.now(UTC))
SigV4Auth(keys, "sts", "us-east-1").add_auth(AWSRequest(method="POST", url="https://sts.test/"))
logging.getLogger("fargate_agent.controlplane").debug("own line")
"""


def test_lines_for_debugging_are_its_own_and_show_no_token() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin"},
    )

    assert "own line" in done.stderr
    assert "geheim" not in done.stderr
