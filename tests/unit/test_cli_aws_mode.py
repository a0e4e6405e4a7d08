"""Whether a stack has AWS: decided once, for both programs, and said in one line."""

from pathlib import Path

import pytest

from fargate_agent.cli.layout import Layout
from fargate_agent.cli.stack.aws_mode import KEY_VARIABLES, AwsMode, choose_aws_mode
from fargate_agent.cli.stack.programs import Place, control_plane_program

KEYS = "[default]\naws_access_key_id = AKIAMACHINE\naws_secret_access_key = hush\n"
IN_ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "AKIAMACHINE", "AWS_SECRET_ACCESS_KEY": "hush"}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "stack")
    made.make()
    return made


@pytest.fixture
def place(layout: Layout) -> Place:
    return Place(
        listen="http://127.0.0.1:4000",
        vpc_cidr="10.3.0.0/16",
        region="eu-west-1",
        containerd_address=layout.containerd_socket,
        containerd_namespace="fargate",
    )


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """The shared credentials file of the user."""
    file = tmp_path / ".aws" / "credentials"
    file.parent.mkdir()
    file.write_text(KEYS)
    file.chmod(0o600)
    return file


def test_machine_that_has_nothing_of_aws_does_without(layout: Layout, place: Place) -> None:
    mode = choose_aws_mode(layout, place, {"HOME": "/nowhere"})

    assert mode == AwsMode(
        line="AWS: local, this machine does without; secrets are those of fargate secrets",
        control_plane={"AWS": "local"},
        agent={"AWS": "local"},
    )


def test_keys_of_the_shared_file_are_taken(layout: Layout, place: Place, shared: Path) -> None:
    modes = [
        choose_aws_mode(layout, place, environ)
        for environ in (
            {"HOME": str(shared.parent.parent)},
            {"HOME": "/nowhere", "AWS_SHARED_CREDENTIALS_FILE": str(shared)},
        )
    ]

    assert modes[0] == modes[1]
    assert modes[0].control_plane == {"AWS": "real", "AWS_CREDENTIALS_FILE": str(shared)}
    assert modes[0].agent == {"AWS": "real"}
    assert modes[0].line == (
        f"AWS: real, at AWS in eu-west-1; roles are assumed with the keys in {shared}"
    )


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        pytest.param(KEYS, 0o644, "can be read by others than its owner: chmod 600", id="mode"),
        pytest.param("hush", 0o600, "is not a credentials file", id="no file of keys"),
        pytest.param(KEYS.replace("default", "dev"), 0o600, "", id="other profiles"),
    ],
)
def test_shared_file_that_can_not_be_used_is_said(
    layout: Layout, place: Place, shared: Path, text: str, mode: int, said: str
) -> None:
    shared.write_text(text)
    shared.chmod(mode)

    chosen = choose_aws_mode(layout, place, {"HOME": str(shared.parent.parent)})

    assert chosen.agent == {"AWS": "local"}
    assert chosen.line.endswith(f"({shared} {said})" if said else "fargate secrets")
    assert "hush" not in chosen.line


def test_keys_of_the_environment_are_taken_and_stay_there(layout: Layout, place: Place) -> None:
    mode = choose_aws_mode(layout, place, IN_ENVIRONMENT)

    assert (mode.control_plane, mode.agent) == ({"AWS": "real"}, {"AWS": "real"})
    assert mode.line.endswith("roles are assumed with the keys in the environment")
    assert mode.withheld == frozenset()


@pytest.mark.parametrize("how", ["fargate env", "keys.toml"])
def test_key_of_a_stack_is_no_key_of_the_machine(
    layout: Layout, place: Place, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = dict(IN_ENVIRONMENT)
    if how == "keys.toml":
        (layout.control_plane / "keys.toml").write_text('[[key]]\naccess_key_id = "AKIAMACHINE"\n')
    else:
        environ |= {"AWS_ENDPOINT_URL_ECS": "http://x", "FARGATE_AGENT_SOCKET": "/x"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    mode = choose_aws_mode(layout, place, environ)

    assert (mode.agent, mode.withheld) == ({"AWS": "local"}, KEY_VARIABLES)
    program = control_plane_program(layout, place, mode.control_plane, mode.withheld)
    assert program.env["FARGATE_CONTROL_PLANE_AWS"] == "local"
    assert not KEY_VARIABLES & program.env.keys()


def test_endpoint_of_the_environment_stands_for_aws(layout: Layout, place: Place) -> None:
    mode = choose_aws_mode(layout, place, {"AWS_ENDPOINT_URL": "http://127.0.0.1:4566"})

    told = {"AWS": "real", "AWS_ENDPOINT_URL": "http://127.0.0.1:4566"}
    assert (mode.control_plane, mode.agent) == (told, told)
    assert mode.line == ("AWS: real, at http://127.0.0.1:4566; roles are assumed with made-up keys")


def test_endpoint_of_the_stack_itself_is_no_aws(layout: Layout, place: Place) -> None:
    mode = choose_aws_mode(layout, place, {"AWS_ENDPOINT_URL": "http://127.0.0.1:4000/"})

    assert mode.agent == {"AWS": "local"}


def test_settings_of_the_agent_are_handed_on_to_the_control_plane(
    layout: Layout, place: Place
) -> None:
    (layout.root / "agent.toml").write_text(
        'aws_endpoint_url = "http://198.18.7.2:5555"\naws_credentials_file = "/keys"\n'
        "assume_roles = false\n"
    )

    mode = choose_aws_mode(layout, place, IN_ENVIRONMENT)

    assert mode.control_plane == {
        "AWS": "real",
        "AWS_ENDPOINT_URL": "http://198.18.7.2:5555",
        "AWS_CREDENTIALS_FILE": "/keys",
        "ASSUME_ROLES": "false",
    }
    assert mode.agent == {"AWS": "real"}
    assert mode.line == (
        "AWS: real, at http://198.18.7.2:5555; tasks get the keys in /keys as they are"
    )


@pytest.mark.parametrize("no", ["false", "False", "0", "off"])
def test_no_of_the_environment_is_one(layout: Layout, place: Place, no: str) -> None:
    environ = {**IN_ENVIRONMENT, "FARGATE_CONTROL_PLANE_ASSUME_ROLES": no}

    mode = choose_aws_mode(layout, place, environ)

    assert mode.line.endswith("; tasks get the keys in the environment as they are")


def test_what_the_control_plane_has_of_its_own_stays(layout: Layout, place: Place) -> None:
    (layout.root / "agent.toml").write_text('aws_credentials_file = "/keys"\n')
    (layout.root / "control-plane.toml").write_text('aws_credentials_file = "/own"\n')

    mode = choose_aws_mode(
        layout, place, {"FARGATE_CONTROL_PLANE_AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    )

    assert mode.control_plane == {"AWS": "real"}
    assert mode.agent == {"AWS": "real", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}


@pytest.mark.parametrize("where", ["agent.toml", "control-plane.toml"])
def test_what_is_asked_for_counts_before_what_is_found(
    layout: Layout, place: Place, where: str
) -> None:
    (layout.root / where).write_text('aws = "local"\n')

    mode = choose_aws_mode(layout, place, IN_ENVIRONMENT)

    told = [mode.control_plane, mode.agent]
    assert mode.line.startswith("AWS: local, ")
    assert sorted(told, key=len) == [{}, {"AWS": "local"}]


def test_real_may_be_asked_for_by_the_environment(layout: Layout, place: Place) -> None:
    mode = choose_aws_mode(layout, place, {"FARGATE_AGENT_AWS": "real"})

    assert (mode.control_plane, mode.agent) == ({"AWS": "real"}, {})
