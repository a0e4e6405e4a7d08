import tomllib
from pathlib import Path

import pytest

from fargate_agent.cli.failure import CliError
from fargate_agent.cli.layout import Layout
from fargate_agent.cli.stack.choices import Choices, read_choices, write_choices
from fargate_agent.cli.stack.keys import Key, parse_keys
from fargate_agent.cli.stack.place import read_file_settings
from fargate_agent.cli.stack.programs import (
    Place,
    agent_program,
    control_plane_program,
    render_containerd_config,
    tell_host_ports,
)
from fargate_agent.cli.stack.tail import Tail

KEY = Key(access_key_id="AKIAAGENT", secret_access_key="agent's secret")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path)
    made.make()
    return made


@pytest.fixture
def place(layout: Layout) -> Place:
    return Place(
        listen="http://0.0.0.0:4000",
        vpc_cidr="10.3.0.0/16",
        region="eu-west-1",
        containerd_address=layout.containerd_socket,
        containerd_namespace="fargate",
    )


def test_layout_with_paths_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    root = tmp_path / ("x" * 100)

    with pytest.raises(CliError, match="bytes too long"):
        Layout(root).make()

    assert not root.exists()


def test_layout_of_the_longest_path_is_made(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("a")
    root = directory / ("x" * (104 - len(str(directory)) - len("//run/containerd.sock.ttrpc")))

    Layout(root).make()

    with pytest.raises(CliError, match="1 bytes too long"):
        Layout(root.with_name(root.name + "x")).make()


def test_choices_are_remembered(layout: Layout) -> None:
    choices = Choices(listen="http://127.0.0.1:1", vpc_cidr="10.0.0.0/16")

    write_choices(layout.choices, choices)

    assert read_choices(layout.choices) == choices


@pytest.mark.parametrize("text", ["", "[]", '{"other": 1}', "{"])
def test_choices_that_make_no_sense_are_forgotten(layout: Layout, text: str) -> None:
    layout.choices.write_text(text)

    assert read_choices(layout.choices) == Choices()


def test_containerd_is_told_to_keep_below_the_state_directory(tmp_path: Path) -> None:
    layout = Layout(tmp_path / 'a "quoted" \\ one')

    config = tomllib.loads(render_containerd_config(layout))

    assert config["root"] == str(layout.root / "containerd/root")
    assert config["state"] == str(layout.root / "containerd/state")
    assert config["grpc"]["address"] == str(layout.root / "run/containerd.sock")
    assert "io.containerd.internal.v1.opt" in config["disabled_plugins"]


def test_agent_is_told_where_everything_is(
    layout: Layout, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FARGATE_AGENT_IMAGE_PULL_BEHAVIOR", "once")
    monkeypatch.setenv("FARGATE_AGENT_SOCKET", "/of/another/stack.sock")

    program = agent_program(layout, place, KEY)

    told = {k[14:]: v for k, v in program.env.items() if k.startswith("FARGATE_AGENT_")}
    assert told == {
        "CONTROL_PLANE": "http://127.0.0.1:4000",
        "ACCESS_KEY_ID": "AKIAAGENT",
        "SECRET_ACCESS_KEY": "agent's secret",
        "REGION": "eu-west-1",
        "SOCKET": str(layout.root / "run/agent.sock"),
        "CONTAINERD_ADDRESS": str(layout.root / "run/containerd.sock"),
        "CONTAINERD_NAMESPACE": "fargate",
        "STATE_DIR": str(layout.root / "agent"),
        "NETNS_DIR": str(layout.root / "netns"),
        "RUNC_ROOT": str(layout.root / "containerd/runc"),
        "IMAGE_PULL_BEHAVIOR": "once",
    }
    assert Path(program.argv[0]).name == "fargate-agent"
    assert "secret" not in repr(program)
    assert "/usr/sbin" in program.env["PATH"].split(":")


def test_agent_is_told_which_ports_of_the_machine_tasks_may_reach(
    layout: Layout, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FARGATE_AGENT_HOST_PORTS", "1")

    told = agent_program(layout, place, KEY, tell_host_ports(["5432", "53/udp"])).env
    without = agent_program(layout, place, KEY, tell_host_ports([])).env

    assert told["FARGATE_AGENT_HOST_PORTS"] == "5432,53/udp"
    assert without["FARGATE_AGENT_HOST_PORTS"] == "1"


def test_programs_are_told_of_their_settings_files_only_if_there_are_any(
    layout: Layout, place: Place
) -> None:
    before = control_plane_program(layout, place).env

    (layout.root / "control-plane.toml").touch()
    (layout.root / "agent.toml").touch()

    assert "FARGATE_CONTROL_PLANE_CONFIG" not in before
    assert control_plane_program(layout, place).env["FARGATE_CONTROL_PLANE_CONFIG"] == str(
        layout.root / "control-plane.toml"
    )
    assert agent_program(layout, place, KEY).env["FARGATE_AGENT_CONFIG"] == str(
        layout.root / "agent.toml"
    )


def test_settings_file_that_is_no_toml_is_refused_with_the_line(tmp_path: Path) -> None:
    file = tmp_path / "control-plane.toml"
    file.write_text("a = 1\nb =\n")

    with pytest.raises(CliError, match=r"control-plane.toml: .*line 2"):
        read_file_settings(file)


def test_keys_are_found_by_principal() -> None:
    text = """
[[key]]
access_key_id = "A"
secret_access_key = "a"
principal = "admin"
[[key]]
access_key_id = "B"
secret_access_key = "b"
principal = "agent"
[[key]]
access_key_id = "C"
secret_access_key = "c"
principal = "admin"
"""

    assert parse_keys(text) == {
        "admin": Key(access_key_id="A", secret_access_key="a"),
        "agent": Key(access_key_id="B", secret_access_key="b"),
    }


def test_keys_without_a_member_are_refused() -> None:
    with pytest.raises(ValueError, match="secret_access_key"):
        parse_keys('[[key]]\naccess_key_id = "A"\nprincipal = "admin"\n')


def test_tail_gives_whole_lines_that_are_new(tmp_path: Path) -> None:
    file = tmp_path / "log"
    tail = Tail(file)

    assert tail.read() == []
    file.write_bytes("one\ntwo\nthré".encode()[:-1])
    assert tail.read() == ["one", "two"]
    with file.open("ab") as log:
        log.write("é\n".encode()[1:])
    assert tail.read() == ["thré"]
