"""Which paths of the machine tasks may have as volumes."""

from pathlib import Path

import pytest

from fargate_agent.controlplane.agents.needs import find_needs
from fargate_agent.plan import HostPaths, plan_task
from fargate_agent.plan.host_paths import ALWAYS_GUARDED
from fargate_agent.settings import AgentSettings
from fargate_agent.site import make_site
from fargate_agent.volumes.host import HostVolumes
from fargate_agent.wire.volume_kinds import VolumeKind
from tests.messages import container_json, site, task_message

STATE = Path("/var/lib/fargate-agent")


def paths(*allowed: str) -> HostPaths:
    return HostPaths(allowed=tuple(map(Path, allowed)), guarded=(*ALWAYS_GUARDED, STATE))


@pytest.mark.parametrize(
    ("allowed", "path", "prefix"),
    [
        pytest.param((), "/srv", None, id="nothing is allowed"),
        pytest.param(("/srv",), "/srv", "/srv", id="the path itself"),
        pytest.param(("/srv",), "/srv/a/b", "/srv", id="below it"),
        pytest.param(("/srv", "/srv/a"), "/srv/a/b", "/srv/a", id="the longest one"),
        pytest.param(("/srv",), "/srv2", None, id="a name that begins alike"),
        pytest.param(("/srv/a",), "/srv", None, id="above it"),
        pytest.param(("/",), "/srv", "/", id="everything"),
        pytest.param(("/",), "/", "/", id="the root directory, named"),
        pytest.param(("/",), "/proc/1", None, id="guarded"),
        pytest.param(("/",), str(STATE / "tasks"), None, id="of the agent"),
        pytest.param(("/",), "/var/lib", None, id="holds what is guarded"),
        pytest.param(("/var/lib",), "/var/lib", "/var/lib", id="holds what is guarded, named"),
        pytest.param(("/run",), "/run/docker.sock", "/run", id="guarded, named"),
        pytest.param(("/run/docker.sock",), "/run/docker.sock", "/run/docker.sock", id="a file"),
    ],
)
def test_path_is_allowed_by_a_path_of_the_setting(
    allowed: tuple[str, ...], path: str, prefix: str | None
) -> None:
    found = paths(*allowed).find_prefix(Path(path))

    assert found == (None if prefix is None else Path(prefix))


@pytest.mark.parametrize("setting", ["state_dir", "netns_dir"])
def test_directory_of_the_agent_is_guarded_where_its_link_leads(
    tmp_path: Path, setting: str
) -> None:
    (tmp_path / "data/agent").mkdir(parents=True)
    (tmp_path / "link").symlink_to("data/agent")
    settings = AgentSettings.model_validate(
        {setting: tmp_path / "link", "host_volume_paths": (tmp_path,)}
    )

    found = make_site(settings).host_paths

    assert found.find_prefix(tmp_path / "data/agent/tasks") is None
    assert found.find_prefix(tmp_path / "data") is None
    assert found.find_prefix(tmp_path / "link/tasks") is None
    assert found.find_prefix(tmp_path / "code") == tmp_path


def test_task_needs_an_agent_that_allows_the_path_or_one_above() -> None:
    definition = {"volumes": [{"name": "v", "host": {"sourcePath": "/srv/code/"}}]}

    (need,) = [need for need in find_needs(definition, []) if "sourcePath" in need.what]

    names = {name for name, _ in need.attributes}
    assert names == {
        f"fargate.capability.host-volumes{path}" for path in ("/srv/code", "/srv", "/")
    }
    assert "host_volume_paths" in need.what
    said = {attribute.name for attribute in HostVolumes(paths("/srv")).read_attributes(Path("/"))}
    assert said & names


@pytest.mark.parametrize("host", [None, {}, {"sourcePath": ""}])
def test_volume_without_a_path_is_scratch_space(host: object, tmp_path: Path) -> None:
    message = task_message(container_json(), volumes=[{"name": "v", "host": host}])

    (volume,) = plan_task(message, site(tmp_path)).volumes

    assert volume.kind is VolumeKind.SCRATCH
