import json
import os
import pty
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fargate_agent.cli.main import main
from fargate_agent.controlplane.access.keys import ensure_keys

HEAVY = {"botocore", "aiohttp", "rich", "pydantic", "grpc", "sqlalchemy"}


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL_ECS", "AWS_ENDPOINT_URL", "FARGATE_AGENT_SOCKET", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        pytest.param(["fly"], 2, "No such command 'fly'.", id="no such command"),
        pytest.param(["logs"], 2, "Missing argument 'TASK'. (see fargate logs --help)", id="none"),
        pytest.param(["ps", "--output", "xml"], 2, "'xml' is not one of", id="bad choice"),
        pytest.param(["run", "a", "--count", "11"], 2, "11 is not in the range", id="too many"),
        pytest.param(
            ["run", "-f", "--count", "2", "a"], 2, "--follow follows one", id="follow two"
        ),
        pytest.param(["run", "/no/file"], 1, "/no/file: No such file or directory", id="no file"),
        pytest.param(["env", "--state-dir", "/no"], 1, "no stack is ready in /no", id="no stack"),
        pytest.param(["ps", "--state-dir", "/no"], 1, "fargate up --state-dir /no", id="not up"),
    ],
)
def test_command_that_fails_says_why_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    assert main(arguments) == code

    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("fargate: ")
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://localhost:9"])
def test_command_says_where_it_found_no_control_plane(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_ECS", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("HTTP_PROXY", "http://192.0.2.99:1")
    monkeypatch.setenv("AWS_PROFILE", "a-profile-that-does-not-exist")

    assert main(["ps"]) == 1

    assert capsys.readouterr().err == (
        f'fargate: no control plane answers at {endpoint}: start one with "fargate up", or set'
        " AWS_ENDPOINT_URL_ECS\n"
    )


@pytest.mark.parametrize("listens", [False, True])
def test_command_without_a_key_says_what_is_missing(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    listens: bool,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    definition = tmp_path / "task.json"
    definition.write_text(json.dumps({"family": "a", "containerDefinitions": []}))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if listens:
            listener.listen()
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECS", endpoint)

        for command in (["ps"], ["run", str(definition)], ["events"]):
            assert main(command) == 1

            said = "no key for the control plane at" if listens else "no control plane answers at"
            assert capsys.readouterr().err.startswith(f"fargate: {said} {endpoint}: ")


COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [
        pytest.param({"TERM": "xterm"}, True, id="terminal"),
        pytest.param({"TERM": "xterm", "NO_COLOR": ""}, True, id="empty NO_COLOR"),
        pytest.param({"TERM": "xterm", "NO_COLOR": "0"}, False, id="NO_COLOR"),
        pytest.param({"TERM": "dumb"}, False, id="dumb"),
    ],
)
def test_terminal_gets_colours_unless_they_are_not_wanted(
    tmp_path: Path, environment: dict[str, str], coloured: bool
) -> None:
    keys = tmp_path / "keys.toml"
    ensure_keys(keys)
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}

    subprocess.run(
        [Path(sys.executable).with_name("fargate"), "keys", "ls", "--keys-file", keys],
        env={**kept, **environment},
        stdout=theirs,
        check=True,
    )

    os.close(theirs)
    screen = os.read(ours, 65536).decode()
    os.close(ours)
    assert "Active" in screen
    assert bool(COLOUR.search(screen)) is coloured


def test_command_says_where_it_found_no_agent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FARGATE_AGENT_SOCKET", str(tmp_path / "none.sock"))

    assert main(["images", "ls"]) == 1

    assert f"no agent answers at {tmp_path}/none.sock (No such file" in capsys.readouterr().err


def test_env_prints_the_file_of_the_stack(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = "export AWS_REGION=us-east-1\nexport AWS_SECRET_ACCESS_KEY='a b'\n"
    (tmp_path / "env").write_text(text)

    assert main(["env", "--state-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out == text
    assert main(["env", "--state-dir", str(tmp_path), "--output", "json"]) == 0
    assert '"AWS_SECRET_ACCESS_KEY": "a b"' in capsys.readouterr().out


def test_help_imports_nothing_that_is_slow() -> None:
    program = (
        "import sys; from fargate_agent.cli.main import main; main(['--help']);"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )

    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert result.stdout.splitlines()[-1] == "[]"


def test_help_of_run_tells_the_grammar_of_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--help"]) == 0

    assert "CONTAINER.environment.KEY=VALUE" in capsys.readouterr().out


def test_fargate_alone_shows_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2

    assert "Commands:" in "".join(capsys.readouterr())


def test_reader_that_has_had_enough_is_no_trouble() -> None:
    program = "import sys; from fargate_agent.cli.main import main; sys.exit(main(['--help']))"

    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
