import asyncio
import tomllib
from pathlib import Path

import pytest

from fargate_agent.cli.failure import CliError
from fargate_agent.cli.layout import Layout
from fargate_agent.cli.stack import up
from fargate_agent.cli.stack.place import choose_region
from fargate_agent.cli.stack.programs import Place
from fargate_agent.cli.stack.up import remove_shim_sockets


@pytest.fixture
def run_containerd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "containerd"
    monkeypatch.setattr(up, "RUN_CONTAINERD", path)
    return path


@pytest.mark.parametrize("left_by_a_stack", [False, True])
def test_directory_of_shims_goes_with_the_stack_that_made_it(
    run_containerd: Path, left_by_a_stack: bool
) -> None:
    if left_by_a_stack:
        (run_containerd / "s").mkdir(parents=True)

    with remove_shim_sockets():
        (run_containerd / "s").mkdir(parents=True, exist_ok=True)

    assert not run_containerd.exists()


@pytest.mark.parametrize("other", ["containerd.sock", "io.containerd.runtime.v2.task"])
def test_directory_of_shims_stays_if_a_containerd_of_the_system_uses_it(
    run_containerd: Path, other: str
) -> None:
    (run_containerd / "s").mkdir(parents=True)
    (run_containerd / other).touch()

    with remove_shim_sockets():
        pass

    assert (run_containerd / "s").exists()


def test_directory_of_shims_stays_if_another_stack_has_tasks(run_containerd: Path) -> None:
    with remove_shim_sockets():
        (run_containerd / "s").mkdir(parents=True)
        (run_containerd / "s" / "socket").touch()

    assert (run_containerd / "s" / "socket").exists()


def test_directory_of_shims_stays_empty_if_it_was_there_before(run_containerd: Path) -> None:
    run_containerd.mkdir()

    with remove_shim_sockets():
        pass

    assert run_containerd.exists()


def test_directory_of_shims_needn_t_be_made(run_containerd: Path) -> None:
    with remove_shim_sockets():
        pass

    assert not run_containerd.exists()


async def test_what_takes_long_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(up, "QUIET_S", 0)
    monkeypatch.setattr(up, "POLL_S", 0.001)
    place = Place(
        listen="http://127.0.0.1:1",
        vpc_cidr="10.0.0.0/16",
        region="us-east-1",
        containerd_address=tmp_path / "c.sock",
        containerd_namespace="fargate",
    )
    options = up.UpOptions(
        state_dir=tmp_path,
        containerd=place.containerd_address,
        listen=None,
        vpc_cidr=None,
        host_ports=(),
        verbose=False,
        as_json=False,
    )
    stack = up._Stack(Layout(tmp_path), place, options, asyncio.get_running_loop().create_future())
    answers = iter([False, False, False, True])

    async def is_served() -> bool:
        return next(answers)

    await stack._until(f"containerd to listen at {place.containerd_address}", is_served)

    assert capsys.readouterr().out == (
        f"waiting for containerd to listen at {tmp_path}/c.sock, for 120 s at most\n"
    )


@pytest.mark.parametrize(
    ("plane", "agent", "region"),
    [
        pytest.param("", "", "us-east-1", id="none"),
        pytest.param('region = "eu-west-1"', "", "eu-west-1", id="of the control plane"),
        pytest.param("", 'region = "eu-west-1"', "eu-west-1", id="of the agent"),
        pytest.param('region = "eu-west-1"', 'region = "eu-west-1"', "eu-west-1", id="of both"),
    ],
)
def test_both_programs_have_the_region_of_either(
    tmp_path: Path, plane: str, agent: str, region: str
) -> None:
    (tmp_path / "agent.toml").write_text(agent)

    assert choose_region(tmp_path, tomllib.loads(plane)) == region


def test_two_regions_are_refused(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text('region = "eu-west-1"')

    with pytest.raises(CliError, match="us-east-2 for the control plane, eu-west-1 for the agent"):
        choose_region(tmp_path, {"region": "us-east-2"})


def test_region_of_a_stack_stays(tmp_path: Path) -> None:
    (tmp_path / "agent").mkdir()
    arn = "arn:aws:ecs:us-east-1:000000000000:container-instance/default/0a"
    (tmp_path / "agent" / "container-instance-arn").write_text(arn)

    assert choose_region(tmp_path, {}) == "us-east-1"
    with pytest.raises(CliError, match="was made for region us-east-1, and is to be in eu-west-1"):
        choose_region(tmp_path, {"region": "eu-west-1"})


def test_port_that_is_none_is_refused_before_anything_starts(tmp_path: Path) -> None:
    options = up.UpOptions(
        state_dir=tmp_path / "stack",
        containerd=None,
        listen=None,
        vpc_cidr=None,
        host_ports=("5432", "70000"),
        verbose=False,
        as_json=False,
    )

    with pytest.raises(CliError) as error:
        up.run_stack(options)

    rule = "must be ports such as 5432, 53/udp or 8000-8100/tcp"
    assert str(error.value) == f"--host-port 70000: {rule}"
    assert not (tmp_path / "stack").exists()
