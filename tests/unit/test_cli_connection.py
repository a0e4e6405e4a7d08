import os
import shutil
import tempfile
from pathlib import Path

import pytest

from fargate_agent.cli.connection import (
    find_state_dir,
    parse_env,
    read_connection,
    read_env,
    render_env,
)
from fargate_agent.cli.failure import CliError, NotKnownError

STACK = {
    "AWS_ENDPOINT_URL_ECS": "http://127.0.0.1:40000",
    "AWS_ACCESS_KEY_ID": "AKIASTACK",
    "AWS_SECRET_ACCESS_KEY": "stack's $ecret",
    "AWS_REGION": "eu-west-1",
    "FARGATE_AGENT_SOCKET": "/stack/run/agent.sock",
}


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """A state directory whose stack is ready."""
    (tmp_path / "env").write_text(render_env(STACK))
    return tmp_path


def test_env_survives_the_shell_whatever_it_holds() -> None:
    values = {"A": "it's", "B": 'a "b" $c `d`', "C": "", "D": "x=y\\"}

    assert parse_env(render_env(values)) == values


def test_env_with_another_line_is_refused() -> None:
    with pytest.raises(ValueError, match="line 2 is not an export"):
        parse_env("export A=1\nrm -rf x\n")


def test_connection_is_the_named_stack_against_all_else(stack: Path, tmp_path: Path) -> None:
    environ = {"AWS_ENDPOINT_URL_ECS": "http://elsewhere:1", "AWS_ACCESS_KEY_ID": "OTHER"}

    found = read_connection(stack, environ, tmp_path / "none")

    assert found.endpoint == "http://127.0.0.1:40000"
    assert found.access_key_id == "AKIASTACK"
    assert found.secret_access_key == "stack's $ecret"
    assert found.region == "eu-west-1"
    assert found.agent_socket == Path("/stack/run/agent.sock")


def test_connection_to_a_named_stack_that_is_not_ready_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CliError, match='start one with "fargate up --state-dir'):
        read_connection(tmp_path, {}, tmp_path)


def test_connection_is_the_environment_s_if_it_names_an_endpoint(stack: Path) -> None:
    environ = {
        "AWS_ENDPOINT_URL_ECS": "http://elsewhere:1",
        "AWS_ACCESS_KEY_ID": "OTHER",
        "AWS_SECRET_ACCESS_KEY": "o",
        "FARGATE_AGENT_SOCKET": "/other.sock",
    }

    found = read_connection(None, environ, stack)

    assert (found.endpoint, found.access_key_id) == ("http://elsewhere:1", "OTHER")
    assert found.agent_socket == Path("/other.sock")


def test_connection_never_takes_the_key_of_another_stack(stack: Path) -> None:
    found = read_connection(None, {"AWS_ENDPOINT_URL_ECS": "http://elsewhere:1"}, stack)

    assert found.access_key_id is None
    assert found.agent_socket == Path("/run/fargate-agent/agent.sock")


def test_connection_never_sends_the_key_of_an_aws_account_to_the_default_stack(stack: Path) -> None:
    environ = {"AWS_ACCESS_KEY_ID": "REAL", "AWS_SECRET_ACCESS_KEY": "r", "AWS_REGION": "sa-east-1"}

    found = read_connection(None, environ, stack)

    assert (found.access_key_id, found.region) == ("AKIASTACK", "eu-west-1")


def test_connection_completes_the_environment_by_the_stack_at_the_same_endpoint(
    stack: Path,
) -> None:
    found = read_connection(None, {"AWS_ENDPOINT_URL_ECS": STACK["AWS_ENDPOINT_URL_ECS"]}, stack)

    assert found.access_key_id == "AKIASTACK"
    assert found.agent_socket == Path("/stack/run/agent.sock")


def test_connection_is_the_default_without_anything(tmp_path: Path) -> None:
    found = read_connection(None, {"AWS_ACCESS_KEY_ID": "K"}, tmp_path, tmp_path / "none")

    assert found.endpoint == "http://127.0.0.1:51680"
    assert found.region == "us-east-1"
    assert found.access_key_id == "K"
    assert found.agent_socket == Path("/run/fargate-agent/agent.sock")


def test_connection_hides_its_secrets(stack: Path) -> None:
    assert "ecret" not in repr(read_connection(stack, {}, stack)).replace("secret_", "")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """What `make install` wrote for the services of the machine."""
    file = tmp_path / "installed"
    file.write_text(render_env({**STACK, "AWS_ENDPOINT_URL_ECS": "http://127.0.0.1:51680"}))
    return file


def test_connection_is_the_installed_services_if_nothing_else_is_there(
    tmp_path: Path, installed: Path
) -> None:
    environ = {"AWS_ACCESS_KEY_ID": "REAL", "AWS_SECRET_ACCESS_KEY": "r"}

    found = read_connection(None, environ, tmp_path / "none", installed)

    assert found.endpoint == "http://127.0.0.1:51680"
    assert found.access_key_id == "AKIASTACK"
    assert found.agent_socket == Path("/stack/run/agent.sock")


def test_connection_is_the_stack_before_the_installed_services(
    stack: Path, installed: Path
) -> None:
    found = read_connection(None, {}, stack, installed)

    assert found.endpoint == "http://127.0.0.1:40000"


def test_connection_completes_the_environment_by_the_installed_services(
    stack: Path, installed: Path
) -> None:
    environ = {"AWS_ENDPOINT_URL_ECS": "http://127.0.0.1:51680"}

    found = read_connection(None, environ, stack, installed)

    assert (found.endpoint, found.access_key_id) == ("http://127.0.0.1:51680", "AKIASTACK")


def test_env_is_that_of_the_installed_services_if_no_stack_is_ready(
    tmp_path: Path, installed: Path
) -> None:
    found = read_env(None, {}, tmp_path / "none", installed)

    assert found["AWS_ENDPOINT_URL_ECS"] == "http://127.0.0.1:51680"


def test_env_is_that_of_the_stack_to_which_the_environment_leads(
    tmp_path: Path, installed: Path
) -> None:
    stack = tmp_path / "other"
    stack.mkdir()
    (stack / "env").write_text(render_env(STACK))
    environ = {"FARGATE_AGENT_SOCKET": str(stack / "run" / "agent.sock")}

    assert find_state_dir(environ) == stack
    assert read_env(None, environ, tmp_path, installed) == STACK
    for other in ({}, {"FARGATE_AGENT_SOCKET": "/run/fargate-agent/agent.sock"}):
        assert find_state_dir(other) is None


def test_env_of_nothing_is_not_known(tmp_path: Path) -> None:
    with pytest.raises(NotKnownError, match="no stack is ready"):
        read_env(None, {}, tmp_path, tmp_path / "none")


@pytest.mark.root
def test_connection_tells_who_may_not_read_it_what_to_do(installed: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:  # pytest's own are closed to other users
        Path(directory).chmod(0o711)
        file = shutil.copy(installed, directory)
        shutil.chown(file, "root", "tty")
        Path(file).chmod(0o640)

        told = _as_nobody(Path(file))

    assert told == (
        f"{file}: only root and the group tty may read it: use sudo, or join the group"
        " (usermod -aG tty USER) and log in again"
    )


def _as_nobody(installed: Path) -> str:
    """What a process of nobody is told; the error comes back through a pipe."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        try:
            read_connection(None, {}, installed.parent / "none", installed)
        except CliError as error:
            os.write(writer, str(error).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        return pipe.read()
