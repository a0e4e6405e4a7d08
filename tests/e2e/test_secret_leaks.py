"""No value that a task is given is in anything that the programs of this project write or show.

containerd is another program: it keeps the variables of a container in its own store, for root
alone, as docs/secrets.md says.
"""

import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fixtures.aws import ROLE, SECRET_KEY, Front, client, write_keys
from tests.fixtures.cli import Cli, plain_env
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.stack import OUTSIDE, make_stack, tool
from tests.fixtures.storage import read_data

# stand-ins for AWS start
pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(120)]


def value(kind: str) -> str:
    """Make up a value that is nowhere else."""
    return f"leak-{kind}-{secrets.token_hex(12)}"


def files_with(root: Path, values: list[str]) -> Iterator[str]:
    """Name the files below a directory that hold one of the values, and which."""
    for directory, below, names in os.walk(root):
        below[:] = [name for name in below if name != "netns"]  # mounts that can't be read
        for path in (Path(directory) / name for name in names):
            with suppress(FileNotFoundError):
                if stat.S_ISREG(path.lstat().st_mode):
                    content = read_data(path)
                    yield from (f"{path}: {v}" for v in values if v.encode() in content)


def processes_with(mark: str, values: list[str]) -> tuple[list[str], list[str]]:
    """Return the programs of this project that a stack runs, and which of them show a value.

    A command line is looked at whosever it is, an environment unless it is a container's.
    """
    ours, found = [], []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            argv = (process / "cmdline").read_bytes()
            environ = (process / "environ").read_bytes()
            found += [f"argv of {process.name}: {v}" for v in values if v.encode() in argv]
            programs = (b"fargate-agent", b"fargate-control-plane", b"shim-loggers", b"containerd")
            if mark.encode() in argv + environ and any(name in argv for name in programs):
                ours.append(argv.replace(b"\0", b" ").decode())
                found += [
                    f"environ of {process.name}: {v}" for v in values if v.encode() in environ
                ]
    return ours, found


def keep(moto: str, mark: str, values: dict[str, str]) -> tuple[str, str]:
    """Have AWS keep the values; return the ARNs of a secret with all of them, and of a login."""
    manager, ssm, s3 = (client(moto, name) for name in ("secretsmanager", "ssm", "s3"))
    secret = manager.create_secret(Name=f"db-{mark}", SecretString=json.dumps(values))["ARN"]
    text = json.dumps({"username": "u", "password": values["password"]})
    login = manager.create_secret(Name=f"login-{mark}", SecretString=text)["ARN"]
    ssm.put_parameter(Name=f"/app/{mark}", Value=values["parameter"], Type="SecureString")
    s3.create_bucket(Bucket=f"env-{mark}")
    s3.put_object(Bucket=f"env-{mark}", Key="1.env", Body=f"C={values['file']}\n".encode())
    return secret, login


async def test_no_value_is_in_a_file_a_log_a_database_a_command_line_or_an_environment(
    tmp_path: Path,
    private_containerd: PrivateContainerd,
    outside: tuple[Path, str],
    aws_outside: Front,
    registry: FakeRegistry,
    moto: str,
) -> None:
    settings = {
        "FARGATE_AGENT_AWS_ENDPOINT_URL": aws_outside.url,
        "FARGATE_AGENT_AWS_CREDENTIALS_FILE": str(write_keys(tmp_path)),
        "FARGATE_AGENT_ASSUME_ROLES": "false",
        "FARGATE_AGENT_LOG_LEVEL": "debug",
    }
    mark = secrets.token_hex(4)
    values = {name: value(name) for name in ("user", "parameter", "file", "token", "password")}
    secret, login = keep(moto, mark, values)
    values |= {"local": value("local"), "machine": SECRET_KEY}
    container = tool(
        "main",
        'echo "lengths ${#A} ${#B} ${#C}"; exec sleep 1000',
        secrets=[
            {"name": "A", "valueFrom": f"{secret}:user::"},
            {"name": "B", "valueFrom": f"/app/{mark}"},
        ],
        repositoryCredentials={"credentialsParameter": login},
        environmentFiles=[{"type": "s3", "value": f"arn:aws:s3:::env-{mark}/1.env"}],
        logConfiguration={
            "logDriver": "splunk",
            "options": {
                "splunk-url": f"http://{OUTSIDE}.9:8088",
                "splunk-verify-connection": "false",
            },
            "secretOptions": [{"name": "splunk-token", "valueFrom": f"{secret}:token::"}],
        },
    )

    async with make_stack(tmp_path, private_containerd, outside, **settings) as stack:
        refused = stack.run(
            tool("main", "true", secrets=[{"name": "A", "valueFrom": f"{secret}:user:NOSTAGE:"}]),
            executionRoleArn=ROLE,
        )
        await stack.wait_for(refused, "STOPPED")
        arn = stack.run(container, executionRoleArn=ROLE, taskRoleArn=ROLE)
        await stack.wait_for(arn, "RUNNING")
        lengths = [str(len(values[name])) for name in ("user", "parameter", "file")]
        await stack.wait_for_log(arn, f"lengths {' '.join(lengths)}")
        cli = Cli(plain_env(FARGATE_AGENT_SOCKET=str(stack.socket)))
        await cli.run("secrets", "set", f"local-{mark}", stdin=values["local"])

        ours, shown = processes_with(str(stack.root), list(values.values()))
        written = list(files_with(stack.root, list(values.values())))
        stack.stop(arn)
        await stack.wait_for(arn, "STOPPED")
        written += files_with(stack.root, list(values.values()))

    programs = ("fargate-agent", "shim-loggers")  # the control plane is a fork of pytest here
    assert all(any(program in argv for argv in ours) for program in programs), ours
    assert shown == []
    keys = f"{tmp_path}/credentials: {SECRET_KEY}"  # the operator's own
    assert written == [keys, keys]
